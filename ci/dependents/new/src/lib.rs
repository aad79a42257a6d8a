//! The code is the same for both versions.

#[path = "../../park.rs"]
pub mod park;
#[path = "../../vmm.rs"]
mod vmm;

pub use vmm::*;
