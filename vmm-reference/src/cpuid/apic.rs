//! The local APIC in CPUID, and what can't be had without one in KVM.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

const LEAF_BASIC: u32 = 0x1;
/// Leaf 1, ECX.
const VMX: u32 = 1 << 5;
const X2APIC: u32 = 1 << 21;
/// The local APIC's timer compares with the TSC.
const TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1, EDX.
const APIC: u32 = 1 << 9;
/// Performance counters, Intel's.
const LEAF_PERFMON: u32 = 0xa;
/// AMD: features; ECX.
const LEAF_AMD: u32 = 0x8000_0001;
const SVM: u32 = 1 << 2;
/// Performance counters of cores, of the northbridge, of the last cache.
const AMD_PERFMON: u32 = 1 << 23 | 1 << 24 | 1 << 28;
const LEAF_AMD_PERFMON_V2: u32 = 0x8000_0022;
/// EAX 7:0: bits of a physical address.
const LEAF_SIZES: u32 = 0x8000_0008;
/// What a processor without that leaf has.
const DEFAULT_ADDRESS_BITS: u8 = 36;

/// Whose local APIC a guest has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApicFeatures {
    /// KVM's. Whether its timer has the TSC-deadline mode
    /// (KVM_CAP_TSC_DEADLINE_TIMER), its CPUID does not always say.
    Kernel {
        /// It has.
        tsc_deadline: bool,
    },
    /// Nobody's: the guest has none, and runs with interrupts off.
    None,
    /// This process's.
    Userspace {
        /// It has an x2APIC mode.
        x2apic: bool,
    },
}

impl ApicFeatures {
    pub(super) fn describe(self, entries: &mut [kvm_cpuid_entry2]) {
        for entry in entries {
            match self {
                Self::Kernel { tsc_deadline } => {
                    if tsc_deadline && entry.function == LEAF_BASIC {
                        entry.ecx |= TSC_DEADLINE;
                    }
                }
                Self::None => {
                    if entry.function == LEAF_BASIC {
                        entry.edx &= !APIC;
                        entry.ecx &= !(TSC_DEADLINE | X2APIC);
                    }
                }
                Self::Userspace { x2apic } => userspace(entry, x2apic),
            }
        }
    }
}

fn userspace(entry: &mut kvm_cpuid_entry2, x2apic: bool) {
    match entry.function {
        LEAF_BASIC => {
            entry.edx |= APIC;
            // KVM swallows writes to the TSC-deadline MSR of a vCPU without a
            // local APIC of its own: they never come here. And it does not
            // virtualize virtualization without one.
            entry.ecx &= !(TSC_DEADLINE | VMX | X2APIC);
            if x2apic {
                entry.ecx |= X2APIC;
            }
        }
        // KVM delivers no overflow interrupt without a local APIC.
        LEAF_PERFMON | LEAF_AMD_PERFMON_V2 => {
            (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
        }
        LEAF_AMD => entry.ecx &= !(SVM | AMD_PERFMON),
        _ => {}
    }
}

/// How many bits a guest's physical address has.
pub fn physical_address_bits(cpuid: &CpuId) -> u8 {
    let mut leaves = cpuid.as_slice().iter();
    let sizes = leaves.find(|entry| entry.function == LEAF_SIZES);
    sizes.map_or(DEFAULT_ADDRESS_BITS, |leaf| {
        let [bits, ..] = leaf.eax.to_le_bytes();
        bits
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            eax: u32::MAX,
            ebx: u32::MAX,
            ecx: u32::MAX,
            edx: u32::MAX,
            ..Default::default()
        }
    }

    #[test]
    fn kvm_s_local_apic_gains_a_timer_mode() {
        let mut leaf = [kvm_cpuid_entry2 {
            function: 1,
            ..Default::default()
        }];
        ApicFeatures::Kernel {
            tsc_deadline: false,
        }
        .describe(&mut leaf);
        assert_eq!(leaf[0].ecx, 0);
        ApicFeatures::Kernel { tsc_deadline: true }.describe(&mut leaf);
        assert_eq!(leaf[0].ecx, 1 << 24);
    }

    #[test]
    fn a_guest_without_one_is_told_so() {
        let mut entries = [entry(1), entry(7)];
        ApicFeatures::None.describe(&mut entries);
        assert_eq!(entries[0].edx, !(1 << 9));
        assert_eq!(entries[0].ecx, !(1 << 24 | 1 << 21));
        assert_eq!(entries[1].edx, u32::MAX);
    }

    #[test]
    fn ours_has_no_tsc_deadline_whatever_kvm_says() {
        for x2apic in [false, true] {
            let mut entries = [1, 0xa, 0x8000_0001, 0x8000_0022, 7].map(entry);
            ApicFeatures::Userspace { x2apic }.describe(&mut entries);
            let [basic, perfmon, amd, perfmon_v2, other] = entries;
            assert_eq!(basic.ecx >> 24 & 1, 0, "TSC-deadline");
            assert_eq!(basic.ecx >> 21 & 1, u32::from(x2apic), "x2APIC");
            assert_eq!(basic.ecx >> 5 & 1, 0, "VMX");
            assert_eq!(basic.edx >> 9 & 1, 1, "APIC");
            assert_eq!((perfmon.eax, perfmon_v2.eax), (0, 0));
            assert_eq!(amd.ecx >> 2 & 1, 0, "SVM");
            assert_eq!(other.ecx, u32::MAX);
        }
    }
}
