//! What a hosted guest is to the backend.

use std::fmt::Debug;
use std::sync::atomic::AtomicBool;

use hypercall_abi::RawHypercall;

use crate::memory::MemoryError;

/// Where a program left the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// HLT.
    Halt,
    /// A hypercall; [`Program::set_result`] answers it.
    Hypercall(RawHypercall),
    /// A write of this value to the exit port.
    Exit(u8),
    /// The interrupt flag was found set.
    Interrupted,
}

/// A guest that is a state machine of this process.
pub trait Program: Debug + Send + 'static {
    /// Runs until the guest leaves, or until `interrupted` is found set; the
    /// next call goes on from there.
    fn run(&mut self, interrupted: &AtomicBool) -> Result<Leave, MemoryError>;

    /// What the guest finds in RAX behind its hypercall.
    fn set_result(&mut self, rax: u64);
}
