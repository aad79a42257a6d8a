//! The code is the same for both versions.

#[path = "../../vmm.rs"]
mod vmm;

pub use vmm::*;
