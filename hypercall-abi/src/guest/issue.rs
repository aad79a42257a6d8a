//! The calls.

use super::Transport;
use crate::call::{
    ClockPairing, ClockPairingData, Hypercall, KickCpu, MapGpaRange, SchedYield, SendIpi,
};
use crate::errno::{HypercallResult, KvmErrno, from_rax};
use crate::raw::Mode;

/// Hypercalls over a transport that is known to work.
///
/// See the [module](crate::guest) for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hypercalls {
    transport: Transport,
}

impl Hypercalls {
    /// Hypercalls over `transport`.
    ///
    /// # Safety
    /// The code runs at CPL 0 in 64-bit mode, in a guest whose hypervisor
    /// serves `transport` by KVM's ABI, and will for as long as the value is
    /// used.
    #[must_use]
    pub const unsafe fn new(transport: Transport) -> Self {
        Self { transport }
    }

    /// The transport by which this makes its calls.
    #[must_use]
    pub const fn transport(&self) -> Transport {
        self.transport
    }

    /// Wakes the vCPU of that APIC ID from HLT, or lets its next HLT fall
    /// through. The target must have checked its condition before it halts,
    /// and check again after it: wake-ups may be spurious.
    ///
    /// # Errors
    /// [`KvmErrno::ENOSYS`] from a host that does not have it
    /// (`KVM_FEATURE_PV_UNHALT`). An APIC ID without a vCPU is no error.
    pub fn kick_cpu(&self, apic_id: u32) -> Result<(), KvmErrno> {
        self.harmless(Hypercall::KickCpu(KickCpu::new(apic_id)))
            .map(|_| ())
    }

    /// Lets the vCPU with that APIC ID run in place of this one, if it is ready
    /// to run and does not run.
    ///
    /// # Errors
    /// [`KvmErrno::ENOSYS`] from a host that does not have it
    /// (`KVM_FEATURE_PV_SCHED_YIELD`).
    pub fn sched_yield(&self, apic_id: u32) -> Result<(), KvmErrno> {
        self.harmless(Hypercall::SchedYield(SchedYield::new(apic_id)))
            .map(|_| ())
    }

    /// Leaves the guest once, so that the host looks for pending interrupts.
    ///
    /// # Errors
    /// KVM has none.
    pub fn vapic_poll_irq(&self) -> Result<(), KvmErrno> {
        self.harmless(Hypercall::VapicPollIrq).map(|_| ())
    }

    /// Sends one interrupt to up to 128 vCPUs: bit 0 of `bitmap[0]` is
    /// `first_apic_id`, bit 0 of `bitmap[1]` is 64 above it. Gives the number
    /// of vCPUs that accepted it.
    ///
    /// # Safety
    /// The targets expect what `icr` says: a vector that they have a handler
    /// for, and no INIT or start-up that pulls a vCPU out of running code.
    ///
    /// # Errors
    /// [`KvmErrno::ENOSYS`] from a host that does not have it
    /// (`KVM_FEATURE_PV_SEND_IPI`), [`KvmErrno::EINVAL`] for a logical
    /// destination or a shorthand in `icr`.
    pub unsafe fn send_ipi(
        &self,
        bitmap: [u64; 2],
        first_apic_id: u32,
        icr: u32,
    ) -> HypercallResult {
        let call = Hypercall::SendIpi(SendIpi {
            bitmap,
            first_apic_id: first_apic_id.into(),
            icr: icr.into(),
            mode: Mode::Bits64,
        });
        // SAFETY: it touches no memory, and the targets are the caller's
        // promise.
        unsafe { self.call(call) }
    }

    /// Reads the host's wall clock and this guest's TSC at one instant. `page`
    /// is where the host writes, and `gpa` the same place for the host.
    ///
    /// # Safety
    /// `gpa` is the guest physical address of `page`, which is contiguous
    /// there.
    ///
    /// # Errors
    /// [`KvmErrno::EOPNOTSUPP`] while the host has no usable clock,
    /// [`KvmErrno::EFAULT`] for an address that is not memory, and
    /// [`KvmErrno::ENOSYS`] from a host that does not have it.
    pub unsafe fn clock_pairing(
        &self,
        page: &mut [u8; ClockPairingData::SIZE],
        gpa: u64,
    ) -> Result<ClockPairingData, KvmErrno> {
        let call = Hypercall::ClockPairing(ClockPairing {
            gpa,
            clock_type: ClockPairing::WALLCLOCK,
        });
        // SAFETY: the host writes to `page` alone, by the caller's promise,
        // and it is borrowed mutably.
        unsafe { self.call(call) }?;
        // The asm block may write any memory, but `page` was not passed to it
        // and could be kept in registers across it.
        // SAFETY: a reference is valid for reads.
        let bytes = unsafe { core::ptr::read_volatile(page) };
        Ok(ClockPairingData::from_bytes(&bytes))
    }

    /// Asks the VMM to map `pages` pages of 4 KiB from `gpa` on with other
    /// attributes, such as [`MapGpaRange::ENCRYPTED`].
    ///
    /// # Safety
    /// Nothing that Rust relies on lies in the range: after the call its
    /// contents are undefined, and the host may write to shared pages.
    ///
    /// # Errors
    /// [`KvmErrno::EINVAL`] for a range that is misaligned, empty or wraps,
    /// [`KvmErrno::ENOSYS`] from a host that does not have it
    /// (`KVM_FEATURE_HC_MAP_GPA_RANGE`), and whatever the VMM answers.
    pub unsafe fn map_gpa_range(&self, gpa: u64, pages: u64, attributes: u64) -> HypercallResult {
        let call = Hypercall::MapGpaRange(MapGpaRange {
            gpa,
            pages,
            attributes,
        });
        // SAFETY: the memory is the caller's to give, by its promise.
        unsafe { self.call(call) }
    }

    /// A call that writes no memory of the guest and disturbs no other vCPU.
    fn harmless(&self, call: Hypercall) -> HypercallResult {
        // SAFETY: the call is one that Rust's promises do not depend on.
        unsafe { self.call(call) }
    }

    /// Issues any call.
    ///
    /// # Safety
    /// The caller is responsible for what the call does to memory and to other
    /// vCPUs.
    pub unsafe fn call(&self, call: Hypercall) -> HypercallResult {
        // SAFETY: the transport is served, by the promise made to `new`, and
        // the call's effects are the caller's promise.
        let rax = unsafe { self.transport.issue(&call.encode(Mode::Bits64, 0)) };
        from_rax(rax, Mode::Bits64)
    }
}
