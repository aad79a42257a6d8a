//! KVM's paravirtual MSRs (`asm/kvm_para.h`).
//!
//! KVM's own range is 0x4b564d00 to 0x4b564dff; the two lowest numbers are
//! the deprecated place of kvmclock. [`Msr`] has an example.

use core::fmt;

/// An MSR by which a guest uses a feature.
///
/// ```
/// use cpuid_features::{KvmFeatures, msr};
///
/// let row = KvmFeatures::POLL_CONTROL.row().unwrap();
/// assert_eq!(row.msrs, [msr::POLL_CONTROL]);
/// assert_eq!(msr::POLL_CONTROL.index, 0x4b56_4d05);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Msr {
    /// The index, as `rdmsr` and `wrmsr` take it in `ecx`.
    pub index: u32,
    /// The name of the macro in the kernel's headers.
    pub kernel_name: &'static str,
}

impl fmt::Display for Msr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.index)
    }
}

/// Every MSR of KVM's, in order of index.
pub const ALL: &[Msr] = &[
    WALL_CLOCK,
    SYSTEM_TIME,
    WALL_CLOCK_NEW,
    SYSTEM_TIME_NEW,
    ASYNC_PF_EN,
    STEAL_TIME,
    PV_EOI_EN,
    POLL_CONTROL,
    ASYNC_PF_INT,
    ASYNC_PF_ACK,
    MIGRATION_CONTROL,
];

const fn msr(index: u32, kernel_name: &'static str) -> Msr {
    Msr { index, kernel_name }
}

/// GPA of the wall clock at boot (deprecated place).
pub const WALL_CLOCK: Msr = msr(0x11, "MSR_KVM_WALL_CLOCK");
/// GPA of this vCPU's system time, bit 0 enables (deprecated place).
pub const SYSTEM_TIME: Msr = msr(0x12, "MSR_KVM_SYSTEM_TIME");
/// GPA of the wall clock at boot.
pub const WALL_CLOCK_NEW: Msr = msr(0x4b56_4d00, "MSR_KVM_WALL_CLOCK_NEW");
/// GPA of this vCPU's system time, bit 0 enables.
pub const SYSTEM_TIME_NEW: Msr = msr(0x4b56_4d01, "MSR_KVM_SYSTEM_TIME_NEW");
/// GPA of the asynchronous page fault area, low bits enable and select.
pub const ASYNC_PF_EN: Msr = msr(0x4b56_4d02, "MSR_KVM_ASYNC_PF_EN");
/// GPA of the 64-byte steal time record, bit 0 enables.
pub const STEAL_TIME: Msr = msr(0x4b56_4d03, "MSR_KVM_STEAL_TIME");
/// GPA of the end-of-interrupt word, bit 0 enables.
pub const PV_EOI_EN: Msr = msr(0x4b56_4d04, "MSR_KVM_PV_EOI_EN");
/// Bit 0: the host may poll when this vCPU halts.
pub const POLL_CONTROL: Msr = msr(0x4b56_4d05, "MSR_KVM_POLL_CONTROL");
/// Vector of the page-ready interrupt.
pub const ASYNC_PF_INT: Msr = msr(0x4b56_4d06, "MSR_KVM_ASYNC_PF_INT");
/// Acknowledges a page-ready event.
pub const ASYNC_PF_ACK: Msr = msr(0x4b56_4d07, "MSR_KVM_ASYNC_PF_ACK");
/// Bit 0: the guest is ready to be migrated.
pub const MIGRATION_CONTROL: Msr = msr(0x4b56_4d08, "MSR_KVM_MIGRATION_CONTROL");
