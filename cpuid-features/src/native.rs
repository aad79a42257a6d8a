//! The CPUID instruction of the CPU this runs on: the guest's own view.

use core::arch::x86_64::__cpuid_count;
use core::ops::Range;

use crate::leaf::{CpuidReader, CpuidRegs, KVM_CPUID_SIGNATURE};

/// Leaf 1, `ecx`: set by every hypervisor, reserved as 0 by hardware.
const HYPERVISOR: u32 = 1 << 31;

/// What CPU vendors leave to hypervisors, the extended leaves excluded.
const HYPERVISOR_LEAVES: Range<u32> = KVM_CPUID_SIGNATURE..0x8000_0000;

/// Reads CPUID of the running CPU.
///
/// What it finds is what this program's machine shows its guests' kernel: in
/// a KVM guest, the leaves that guest's VMM chose.
///
/// ```
/// use cpuid_features::{CpuidReader, KvmLeaf, Native};
///
/// // Every CPU has leaf 0; whether KVM's are there depends on the machine.
/// assert!(Native.leaf(0).is_some());
/// if let Some(leaf) = KvmLeaf::read(&Native) {
///     println!("{}", leaf.features);
/// }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Native;

impl CpuidReader for Native {
    /// `None` for a hypervisor leaf of a CPU that runs under none: there the
    /// instruction would return another leaf's data.
    fn leaf(&self, leaf: u32) -> Option<CpuidRegs> {
        if HYPERVISOR_LEAVES.contains(&leaf) && cpuid(1).ecx & HYPERVISOR == 0 {
            return None;
        }
        Some(cpuid(leaf))
    }
}

fn cpuid(leaf: u32) -> CpuidRegs {
    #[expect(unsafe_code, reason = "the only way to the instruction")]
    #[allow(
        unused_unsafe,
        reason = "newer toolchains declare the intrinsic safe, 1.85 does not"
    )]
    // SAFETY: every x86-64 CPU has CPUID, and it has no effect but on the four
    // registers that the intrinsic returns.
    let regs = unsafe { __cpuid_count(leaf, 0) };
    regs.into()
}
