//! One vCPU's execution: run the guest, and say why it left.

use std::sync::Arc;

use hypercall_abi::RawHypercall;

use super::backend_error::BackendError;
use super::exit_request::ExitRequest;
use super::registers::Registers;
use crate::devices::{Bus, BusEvent};

/// Why a vCPU left the guest. What had to be answered in place, such as a read
/// of a port, has been answered by the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// HLT; the instruction is done, RIP is behind it.
    Halt,
    /// A hypercall, to be answered by [`VcpuBackend::set_result`]. Its transport
    /// no longer matters.
    Hypercall(RawHypercall),
    /// A device asks something of the VMM.
    Bus(BusEvent),
    /// An [`ExitRequest`] or a signal; also any exit that needs no action.
    Interrupted,
    /// Triple fault.
    Shutdown,
}

/// One vCPU of a backend, owned by its thread.
pub trait VcpuBackend: Send + 'static {
    /// Runs the guest until it leaves.
    ///
    /// # Errors
    /// The vCPU can't go on.
    fn run(&mut self, bus: &Bus) -> Result<Exit, BackendError>;

    /// Puts the result of the hypercall that the last exit was into RAX.
    fn set_result(&mut self, rax: u64);

    /// By which other threads make this vCPU leave the guest.
    fn exit_request(&self) -> Arc<ExitRequest>;

    /// The vCPU's registers, where there are any.
    fn registers(&self) -> Option<Registers> {
        None
    }

    /// An interrupt waits in KVM for this vCPU. Without a local APIC in KVM: no.
    fn has_interrupt(&self) -> bool {
        false
    }
}
