//! The study's guest: the lock program with more ways to wait and more locks,
//! and with vCPUs that compute or sleep.
//!
//! - [`layout`]: what it shares with the host beyond the lock program's pages;
//! - [`code`]: the machine code;
//! - [`machine`]: the same for the hosted backend;
//! - [`clock`]: the host's side of the guest's clock;
//! - [`image`]: the guest, loaded.

pub mod clock;
pub mod code;
pub mod image;
pub mod layout;
pub mod machine;

#[cfg(test)]
mod tests;
