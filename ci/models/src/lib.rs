//! One body, three worlds: the models of `tests` run in every order there is
//! (loom), in many (shuttle), or natively, many times over.
//!
//! - [`World`] is the platform that the schedulers of the models live in.
//! - [`clock`] is its time, a value.
//! - [`explore`], [`spawn`], [`relax`], [`Mutex`], [`Payload`] and [`Flag`] are the models'
//!   language.
//! - [`vm`] makes the VMs that models begin with.

#[cfg(all(feature = "loom", feature = "shuttle"))]
compile_error!("one checker at a time");

pub mod clock;
mod explore;
mod payload;
pub mod vm;
mod waits;
mod world;

pub use explore::{Mutex, explore, relax, spawn};
pub use payload::{Flag, Payload};
pub use waits::at_next_wait;
pub use world::World;
