//! The issuing side: hypercalls of an x86-64 guest.
//!
//! [`Transport`] says how a call leaves the guest, and is chosen once.
//! [`Hypercalls`] issues them: making them is unsafe, as the caller vouches for
//! the transport; the calls are safe where they can be.
//!
//! ```no_run
//! use hypercall_abi::guest::{Hypercalls, Transport};
//!
//! # fn kernel_of_a_guest() -> Result<(), hypercall_abi::KvmErrno> {
//! let Some(transport) = Transport::detect() else {
//!     return Ok(()); // not a guest of KVM
//! };
//! // SAFETY: this is a kernel, at CPL 0 in a guest of KVM.
//! # #[expect(unsafe_code, reason = "an example")]
//! let hypercalls = unsafe { Hypercalls::new(transport) };
//! hypercalls.kick_cpu(3)?;
//! # Ok(())
//! # }
//! ```
#![expect(
    unsafe_code,
    reason = "a hypercall is an instruction that no safe Rust has"
)]

mod issue;
mod transport;

pub use issue::Hypercalls;
pub use transport::Transport;
