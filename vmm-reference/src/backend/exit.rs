//! One vCPU's execution: run the guest, and say why it left.

use std::sync::Arc;

use hypercall_abi::RawHypercall;

use super::backend_error::BackendError;
use super::exit_request::ExitRequest;
use super::registers::Registers;
use super::saved::SavedVcpu;
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

/// What a vCPU reaches on its own thread, before the bus that all vCPUs share: its
/// local APIC. Other MSRs than KVM's come here too.
pub trait PrivateIo {
    /// A load outside guest memory; whether it is answered here.
    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) -> bool;

    /// A store outside guest memory; whether it is taken here.
    fn mmio_write(&mut self, gpa: u64, data: &[u8]) -> bool;

    /// RDMSR; none is #GP.
    fn msr_read(&mut self, index: u32) -> Option<u64>;

    /// WRMSR; false is #GP.
    fn msr_write(&mut self, index: u32, value: u64) -> bool;
}

/// Nothing of its own.
impl PrivateIo for () {
    fn mmio_read(&mut self, _gpa: u64, _data: &mut [u8]) -> bool {
        false
    }

    fn mmio_write(&mut self, _gpa: u64, _data: &[u8]) -> bool {
        false
    }

    fn msr_read(&mut self, _index: u32) -> Option<u64> {
        None
    }

    fn msr_write(&mut self, _index: u32, _value: u64) -> bool {
        false
    }
}

/// A vCPU to which this process delivers interrupts, for KVM has no local APIC
/// for it. What it says is as of the last exit.
pub trait Interruptible {
    /// RFLAGS.IF.
    fn interrupts_enabled(&mut self) -> bool;

    /// A vector can be delivered now: IF, no interrupt shadow, and none is queued
    /// already.
    fn accepts_interrupt(&mut self) -> bool;

    /// Queues a vector for the next run: only if it [accepts
    /// one](Self::accepts_interrupt), or the one before is lost. It counts as
    /// acknowledged.
    ///
    /// # Errors
    /// KVM_INTERRUPT failed.
    fn interrupt(&mut self, vector: u8) -> Result<(), BackendError>;

    /// Whether the next run is to end when a vector can be delivered.
    fn want_window(&mut self, wanted: bool);

    /// Queues an NMI.
    ///
    /// # Errors
    /// KVM_NMI failed.
    fn nmi(&mut self) -> Result<(), BackendError>;

    /// CR8, which the guest may have changed.
    fn cr8(&mut self) -> u8;

    /// Sets CR8 for the next run.
    fn set_cr8(&mut self, cr8: u8);

    /// INIT: the registers of a reset, but for those that an INIT leaves.
    ///
    /// # Errors
    /// KVM refused them.
    fn init(&mut self) -> Result<(), BackendError>;

    /// SIPI: real mode, at the start of this page.
    ///
    /// # Errors
    /// KVM refused the registers.
    fn startup(&mut self, page: u8) -> Result<(), BackendError>;

    /// From now on its [run states](super::run_states) are recorded at this GPA, in
    /// guest memory and within a page; or nowhere.
    ///
    /// # Errors
    /// KVM can't.
    fn set_run_states(&mut self, at: Option<u64>) -> Result<(), BackendError>;

    /// It is running, whatever run state was recorded last.
    ///
    /// # Errors
    /// KVM can't.
    fn set_running(&mut self) -> Result<(), BackendError>;
}

/// One vCPU of a backend, owned by its thread.
pub trait VcpuBackend: Send + 'static {
    /// Runs the guest until it leaves. What is not `own` is the bus's.
    ///
    /// # Errors
    /// The vCPU can't go on.
    fn run(&mut self, bus: &Bus, own: &mut dyn PrivateIo) -> Result<Exit, BackendError>;

    /// By which interrupts are delivered to it, if this process can.
    fn interruptible(&mut self) -> Option<&mut dyn Interruptible> {
        None
    }

    /// Puts the result of the hypercall that the last exit was into RAX.
    fn set_result(&mut self, rax: u64);

    /// By which other threads make this vCPU leave the guest.
    fn exit_request(&self) -> Arc<ExitRequest>;

    /// The vCPU's registers, where there are any.
    fn registers(&self) -> Option<Registers> {
        None
    }

    /// The vCPU's state, with these MSRs as far as the vCPU has them. It does not
    /// run, and what its last exit asked for has been answered.
    ///
    /// # Errors
    /// KVM refuses something, or this backend has no state that can be saved.
    fn save(&mut self, msrs: &[u32]) -> Result<SavedVcpu, BackendError> {
        let _ = msrs;
        Err(BackendError::NotSaved)
    }

    /// Puts a saved state in, before it runs.
    ///
    /// # Errors
    /// KVM refuses something of it.
    fn restore(&mut self, saved: &SavedVcpu) -> Result<(), BackendError> {
        let _ = saved;
        Err(BackendError::NotSaved)
    }

    /// An interrupt waits in KVM for this vCPU. Without a local APIC in KVM: no.
    fn has_interrupt(&self) -> bool {
        false
    }
}
