//! Whether a guest can go on with this host's processor and KVM.

use cpuid_features::kvm::read;
use cpuid_features::{KvmLeaf, Negotiated, migratable};
use kvm_bindings::{CpuId, kvm_cpuid_entry2};

use super::error::SnapshotError;
use crate::cpuid::physical_address_bits;

/// Registers of CPUID whose bits are features, and the bits among them that are
/// not the processor's: the VMM's (APIC, x2APIC, TSC deadline, HTT, CMP_LEGACY) or
/// the operating system's (OSXSAVE, OSPKE).
///
/// SDM volume 2, CPUID; AMD's APM volume 3, appendix E.
const FEATURES: &[(u32, u32, [u32; 4])] = &[
    (
        0x1,
        0,
        [0, 0, !(1 << 21 | 1 << 24 | 1 << 27), !(1 << 9 | 1 << 28)],
    ),
    (0x7, 0, [0, u32::MAX, !(1 << 4), u32::MAX]),
    (0x7, 1, [u32::MAX, 0, 0, u32::MAX]),
    (0x7, 2, [0, 0, 0, u32::MAX]),
    (0xd, 0, [u32::MAX, 0, 0, u32::MAX]),
    (0xd, 1, [u32::MAX, 0, u32::MAX, u32::MAX]),
    (0x8000_0001, 0, [0, 0, !(1 << 1), u32::MAX]),
    (0x8000_0007, 0, [0, 0, 0, u32::MAX]),
    (0x8000_0008, 0, [0, u32::MAX, 0, 0]),
    (0x8000_000a, 0, [0, 0, 0, u32::MAX]),
    (0x8000_0021, 0, [u32::MAX, 0, 0, 0]),
];
const REGISTERS: [&str; 4] = ["eax", "ebx", "ecx", "edx"];

/// Compares what a guest was shown of its processor with what this host has:
/// `supported` is KVM_GET_SUPPORTED_CPUID, `kept` what a vCPU has that was given a
/// new guest's. It may be more: a guest of PVM sees the host's processor itself.
///
/// A guest does not look again: all that it was shown must be here.
///
/// # Errors
/// Another vendor, or the first thing that is missing.
pub fn check_cpu(
    shown: &[kvm_cpuid_entry2],
    supported: &CpuId,
    kept: &CpuId,
) -> Result<(), SnapshotError> {
    let (saved, here) = (vendor(shown), vendor(supported.as_slice()));
    if saved != here {
        return Err(SnapshotError::Vendor { saved, here });
    }
    for &(leaf, subleaf, counts) in FEATURES {
        let of = |entries| registers(entries, leaf, subleaf);
        let (shown, supported, kept) = (of(shown), of(supported.as_slice()), of(kept.as_slice()));
        for (index, register) in REGISTERS.into_iter().enumerate() {
            let at = |of: [u32; 4]| of.get(index).copied().unwrap_or(0);
            let missing = at(shown) & !(at(supported) | at(kept)) & at(counts);
            if missing != 0 {
                return Err(SnapshotError::CpuBit {
                    leaf,
                    subleaf,
                    register,
                    bit: missing.trailing_zeros(),
                });
            }
        }
    }
    let saved = physical_address_bits(&table(shown)?);
    let here = physical_address_bits(supported).max(physical_address_bits(kept));
    match saved > here {
        true => Err(SnapshotError::AddressBits { saved, here }),
        false => Ok(()),
    }
}

/// Compares what a guest was shown of KVM with what a new guest like it would be
/// offered here; what it was shown, if anything.
///
/// # Errors
/// A feature is missing; it says which and why.
pub fn check_features(
    shown: &[kvm_cpuid_entry2],
    offered: &Negotiated,
) -> Result<Option<KvmLeaf>, SnapshotError> {
    let Some(leaf) = read(&table(shown)?) else {
        return Ok(None);
    };
    let migration = migratable(&leaf, offered);
    match migration.is_possible() {
        true => Ok(Some(leaf)),
        false => Err(SnapshotError::Features(migration.to_string())),
    }
}

fn table(entries: &[kvm_cpuid_entry2]) -> Result<CpuId, SnapshotError> {
    CpuId::from_entries(entries).map_err(|_| SnapshotError::CpuidSize(entries.len()))
}

fn registers(entries: &[kvm_cpuid_entry2], leaf: u32, subleaf: u32) -> [u32; 4] {
    let is_it = |e: &&kvm_cpuid_entry2| e.function == leaf && e.index == subleaf;
    let entry = entries.iter().find(is_it);
    entry.map_or([0; 4], |e| [e.eax, e.ebx, e.ecx, e.edx])
}

/// As the processor says it: leaf 0, EBX, EDX, ECX.
fn vendor(entries: &[kvm_cpuid_entry2]) -> String {
    let [_, ebx, ecx, edx] = registers(entries, 0, 0);
    let bytes = [ebx, edx, ecx].map(u32::to_le_bytes).concat();
    let name: String = bytes
        .iter()
        .copied()
        .filter(u8::is_ascii_graphic)
        .map(char::from)
        .collect();
    match name.is_empty() {
        true => "no vendor".to_string(),
        false => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpuid_features::{KvmFeatures, VmmSupport, offer};

    fn entry(function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            index,
            eax,
            ebx,
            ecx,
            edx,
            ..Default::default()
        }
    }

    /// "AuthenticAMD", as AMD's processors say it, and some features.
    fn amd() -> Vec<kvm_cpuid_entry2> {
        vec![
            entry(0, 0, [0x10, 0x6874_7541, 0x444d_4163, 0x6974_6e65]),
            entry(1, 0, [0, 0, 1 << 0 | 1 << 19, 1 << 25]),
            entry(7, 0, [0, 1 << 5, 0, 0]),
            entry(0x8000_0008, 0, [48, 0, 0, 0]),
        ]
    }

    fn here(entries: &[kvm_cpuid_entry2]) -> CpuId {
        CpuId::from_entries(entries).unwrap()
    }

    fn said(shown: &[kvm_cpuid_entry2], supported: &[kvm_cpuid_entry2]) -> String {
        let here = here(supported);
        check_cpu(shown, &here, &here).unwrap_err().to_string()
    }

    #[test]
    fn the_same_processor_will_do_and_a_greater_one() {
        let mut greater = amd();
        greater[2].ebx |= 1 << 16;
        greater[3].eax = 52;
        for host in [amd(), greater] {
            assert!(check_cpu(&amd(), &here(&host), &here(&host)).is_ok());
        }
    }

    #[test]
    fn another_vendor_will_not() {
        let mut intel = amd();
        intel[0] = entry(0, 0, [0x10, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]);
        assert_eq!(
            said(&amd(), &intel),
            "snapshot: the guest ran on a processor of AuthenticAMD, this host has one of \
             GenuineIntel"
        );
        assert!(said(&[], &amd()).contains("of no vendor"));
    }

    #[test]
    fn a_missing_bit_is_named() {
        let mut less = amd();
        less[2].ebx = 0;
        let said = said(&amd(), &less);
        assert!(said.contains("bit 5 of CPUID leaf 0x7.0 ebx"), "{said}");
        // Unless the vCPU has it all the same.
        assert!(check_cpu(&amd(), &here(&less), &here(&amd())).is_ok());
    }

    #[test]
    fn the_vmms_and_the_guests_own_bits_are_not_the_processors() {
        let mut shown = amd();
        // x2APIC, TSC deadline, OSXSAVE; APIC, HTT; OSPKE.
        shown[1].ecx |= 1 << 21 | 1 << 24 | 1 << 27;
        shown[1].edx |= 1 << 9 | 1 << 28;
        shown[2].ecx |= 1 << 4;
        assert!(check_cpu(&shown, &here(&amd()), &here(&amd())).is_ok());
    }

    #[test]
    fn fewer_address_bits_will_not_do() {
        let mut less = amd();
        less[3].eax = 40;
        let said = said(&amd(), &less);
        assert!(
            said.ends_with("48 bits of physical address, this host 40"),
            "{said}"
        );
    }

    #[test]
    fn a_missing_feature_of_kvm_is_named_with_its_reason() {
        let features = KvmFeatures::CLOCKSOURCE2 | KvmFeatures::STEAL_TIME;
        let mut shown = amd();
        // "KVMKVMKVM", then the features.
        shown.push(entry(
            0x4000_0000,
            0,
            [0x4000_0001, 0x4b4d_564b, 0x564b_4d56, 0x4d],
        ));
        shown.push(entry(0x4000_0001, 0, [features.bits(), 0, 0, 0]));
        let all = offer(features, &VmmSupport::default());
        let leaf = check_features(&shown, &all).unwrap();
        assert_eq!(leaf.map(|leaf| leaf.features), Some(features));
        let less = offer(KvmFeatures::CLOCKSOURCE2, &VmmSupport::default());
        let said = check_features(&shown, &less).unwrap_err().to_string();
        assert!(said.contains("steal-time: "), "{said}");
        assert!(check_features(&amd(), &less).unwrap().is_none());
    }
}
