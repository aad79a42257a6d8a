//! The study's guest: the lock program with more ways to wait, and with vCPUs
//! that compute.
//!
//! - [`layout`]: what it shares with the host beyond the lock program's pages;
//! - [`code`]: the machine code;
//! - [`machine`]: the same for the hosted backend;
//! - [`image`]: the guest, loaded.

pub mod code;
pub mod image;
pub mod layout;
pub mod machine;

#[cfg(test)]
mod tests;
