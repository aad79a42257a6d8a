//! What runs guest code: KVM, or a host thread.
//!
//! The two differ only below this trait; the vCPU loop, the doors, the dispatch
//! and the scheduler above it are the same.

pub mod hosted;
pub mod kvm;
pub mod registers;
pub mod state;
pub mod xen;

use hypercall_abi::RawHypercall;

use crate::devices::{Bus, BusEvent};
use crate::memory::MemoryError;

/// How a hypercall left the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// A dword written to the doorbell port of hypercall-abi.
    Port,
    /// KVM_EXIT_XEN: a hypercall instruction, of any number, from any CPL.
    Xen,
    /// KVM_EXIT_HYPERCALL: one of those that KVM leaves to userspace.
    Kvm,
    /// The guest is a program of this process.
    Hosted,
}

/// Why a vCPU left the guest. What had to be answered in place, such as a read
/// of a port, has been answered by the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// HLT; the instruction is done, RIP is behind it.
    Halt,
    /// A hypercall, to be answered by [`VcpuBackend::set_result`].
    Hypercall(RawHypercall, Via),
    /// A device asks something of the VMM.
    Bus(BusEvent),
    /// A signal or its equivalent; also any exit that needs no action.
    Interrupted,
    /// Triple fault.
    Shutdown,
}

/// Why a vCPU can't go on: one line for the person who runs the VMM.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// An ioctl failed.
    #[error("{op}: {source}")]
    Ioctl {
        /// Which.
        op: &'static str,
        /// What KVM said.
        source: vmm_sys_util::errno::Error,
    },
    /// KVM_EXIT_INTERNAL_ERROR: KVM met what it can't run.
    #[error("KVM internal error, suberror {suberror} ({meaning}), guest rip {rip:#x}")]
    Internal {
        /// `kvm_run.internal.suberror`.
        suberror: u32,
        /// Its name in the kernel's API documentation.
        meaning: &'static str,
        /// Where the guest was.
        rip: u64,
    },
    /// KVM_EXIT_FAIL_ENTRY.
    #[error(
        "the processor refused to enter the guest, hardware reason {reason:#x}, guest rip {rip:#x}"
    )]
    FailEntry {
        /// The vendor's code.
        reason: u64,
        /// Where the guest was.
        rip: u64,
    },
    /// An exit that this VMM did not ask for.
    #[error("unexpected KVM exit {exit}, guest rip {rip:#x}")]
    Unexpected {
        /// As kvm-ioctls names it.
        exit: String,
        /// Where the guest was.
        rip: u64,
    },
    /// The VMM's own code on the vCPU's thread panicked: a bug, but one that
    /// must end the VM and not leave it without a vCPU.
    #[error("a panic on the vCPU's thread (its message is above)")]
    Panicked,
    /// The hosted program met the end of guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// One vCPU of a backend, owned by its thread.
pub trait VcpuBackend: Send + 'static {
    /// Runs the guest until it leaves.
    fn run(&mut self, bus: &Bus) -> Result<Exit, BackendError>;

    /// Puts the result of the hypercall that the last exit was into RAX.
    fn set_result(&mut self, rax: u64);

    /// What the vCPU was doing, where that can be told.
    fn registers(&self) -> Option<registers::Registers> {
        None
    }
}
