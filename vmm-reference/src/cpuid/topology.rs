//! CPU topology in CPUID: one package of as many cores as there are vCPUs, one
//! thread each, which share the last cache.
//!
//! KVM_GET_SUPPORTED_CPUID describes the host's; a guest that is given that
//! believes in siblings and packages which it does not have.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// EBX 31:24 initial APIC ID, 23:16 logical processors; EDX bit 28: these count.
const LEAF_BASIC: u32 = 0x1;
const HTT: u32 = 1 << 28;
/// ECX: runs under a hypervisor.
const HYPERVISOR: u32 = 1 << 31;
/// Intel's caches; EAX 31:26 cores of the package, 25:14 sharing, 7:5 level.
const LEAF_CACHES: u32 = 0x4;
/// A level of topology a subleaf.
const LEAF_TOPOLOGY: u32 = 0xb;
const LEAF_TOPOLOGY_V2: u32 = 0x1f;
/// AMD: ECX 7:0 cores - 1, 15:12 bits of an APIC ID that are a core's.
const LEAF_SIZES: u32 = 0x8000_0008;
/// AMD's caches, as leaf 4.
const LEAF_AMD_CACHES: u32 = 0x8000_001d;
/// AMD: EAX APIC ID, EBX core, ECX node.
const LEAF_AMD_TOPOLOGY: u32 = 0x8000_001e;
const LEAF_AMD_TOPOLOGY_V2: u32 = 0x8000_0026;

/// Level types of leaf 0xb.
const THREADS: u32 = 1;
const CORES: u32 = 2;
/// The cache that all cores share.
const LAST_CACHE: u32 = 3;

/// Bits of an APIC ID that `count` vCPUs need.
fn id_bits(count: u32) -> u32 {
    count.max(1).next_power_of_two().trailing_zeros()
}

/// Describes the vCPU with `apic_id` of `count`.
pub(super) fn describe(entries: &mut Vec<kvm_cpuid_entry2>, apic_id: u32, count: u32) {
    let others = count.saturating_sub(1);
    let bits = id_bits(count);
    entries.retain(|e| {
        !matches!(
            e.function,
            LEAF_TOPOLOGY | LEAF_TOPOLOGY_V2 | LEAF_AMD_TOPOLOGY_V2
        )
    });
    let mut max_basic = 0;
    for e in entries.iter_mut() {
        match e.function {
            0 => max_basic = e.eax,
            LEAF_BASIC => {
                // 8 bits are all that an initial APIC ID and a count have.
                e.ebx = (e.ebx & 0xffff) | ((apic_id & 0xff) << 24) | (count.min(0xff) << 16);
                e.ecx |= HYPERVISOR;
                if count > 1 {
                    e.edx |= HTT;
                } else {
                    e.edx &= !HTT;
                }
            }
            LEAF_CACHES | LEAF_AMD_CACHES => {
                let level = (e.eax >> 5) & 7;
                let sharing = if level >= LAST_CACHE { others } else { 0 };
                e.eax = (e.eax & !0x03ff_c000) | (sharing.min(0xfff) << 14);
                if e.function == LEAF_CACHES && e.eax & 0x1f != 0 {
                    e.eax = (e.eax & !0xfc00_0000) | (others.min(0x3f) << 26);
                }
            }
            LEAF_SIZES => e.ecx = (e.ecx & !0xf0ff) | others.min(0xff) | (bits.min(0xf) << 12),
            LEAF_AMD_TOPOLOGY => {
                e.eax = apic_id;
                // Core ID; one thread a core; node 0 of one.
                e.ebx = (e.ebx & !0xffff) | (apic_id & 0xff);
                e.ecx &= !0x7ff;
            }
            _ => {}
        }
    }
    if max_basic >= LEAF_TOPOLOGY {
        let level = |index, eax, ebx, kind: u32| kvm_cpuid_entry2 {
            function: LEAF_TOPOLOGY,
            index,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax,
            ebx,
            ecx: (kind << 8) | index,
            edx: apic_id,
            ..Default::default()
        };
        entries.push(level(0, 0, 1, THREADS));
        entries.push(level(1, bits, count & 0xffff, CORES));
        entries.push(level(2, 0, 0, 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            index,
            ..Default::default()
        }
    }

    fn find(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        *entries
            .iter()
            .find(|e| e.function == function && e.index == index)
            .unwrap()
    }

    /// A host of another shape: what is left of it must be gone.
    fn host() -> Vec<kvm_cpuid_entry2> {
        let mut entries = vec![entry(0, 0), entry(1, 0), entry(0x8000_0008, 0)];
        entries[0].eax = 0x20;
        entries[1].ebx = 0xff20_0800;
        entries[2].ecx = 0xffff_ffff;
        for index in 0..6 {
            entries.push(entry(0xb, index));
            entries.push(entry(0x1f, index));
        }
        let mut cache = entry(4, 3);
        cache.eax = 0xffff_ff63;
        entries.push(cache);
        let mut topology = entry(0x8000_001e, 0);
        (topology.eax, topology.ebx, topology.ecx) = (99, 0x1ff, 0x7ff);
        entries.push(topology);
        entries
    }

    #[test]
    fn the_levels_tell_every_vcpu_apart() {
        for (count, bits) in [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (64, 6), (255, 8)] {
            let mut entries = host();
            describe(&mut entries, count - 1, count);
            let core = find(&entries, 0xb, 1);
            assert_eq!((core.eax, core.ebx, core.ecx), (bits, count, 0x201));
            assert_eq!(find(&entries, 0xb, 0).ecx, 0x100);
            assert_eq!(find(&entries, 0xb, 2).ecx, 2, "the end has no type");
            assert!((count - 1) >> bits == 0, "every ID is in one package");
            let levels = entries.iter().filter(|e| e.function == 0xb).count();
            assert_eq!(levels, 3);
            assert!(entries.iter().all(|e| e.function != 0x1f));
        }
    }

    #[test]
    fn the_older_leaves_say_the_same() {
        let mut entries = host();
        describe(&mut entries, 3, 4);
        assert_eq!(find(&entries, 1, 0).ebx, 0x0304_0800);
        assert_eq!(find(&entries, 1, 0).edx, 1 << 28);
        assert_eq!(find(&entries, 0x8000_0008, 0).ecx, 0xffff_2f03);
        // Cores of the package 31:26 and sharers 25:14, both less one.
        assert_eq!(find(&entries, 4, 3).eax, (3 << 26) | (3 << 14) | 0x3f63);
        let amd = find(&entries, 0x8000_001e, 0);
        assert_eq!((amd.eax, amd.ebx, amd.ecx), (3, 3, 0));
    }

    #[test]
    fn one_vcpu_has_no_siblings() {
        let mut entries = host();
        entries[1].edx = HTT;
        describe(&mut entries, 0, 1);
        assert_eq!(find(&entries, 1, 0).edx & HTT, 0);
        assert_eq!(find(&entries, 1, 0).ebx, 0x0001_0800);
    }
}
