//! A dump of unknown origin: parsed, read, negotiated, written and verified.
//!
//! The first line of the input is the user's list, the second chooses the
//! VMM, the rest is the dump.

#![no_main]

use std::collections::BTreeMap;

use cpuid_features::{
    CpuidReader, Dump, HaltService, KickService, KvmFeatures, KvmLeaf, Selection, VmmSupport, kvm,
    negotiate,
};
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (list, rest) = text.split_once('\n').unwrap_or((text, ""));
    let (choice, dump) = rest.split_once('\n').unwrap_or((rest, ""));
    let want: Selection = match list.parse() {
        Ok(want) => want,
        Err(error) => {
            assert!(list.contains(error.token.as_str()));
            assert!(!error.to_string().contains('\n'));
            Selection::default()
        }
    };
    let dump = Dump::new(dump);

    // The shortcut to the base finds what asking for each base finds.
    let mut leaves = BTreeMap::new();
    for entry in dump.entries().filter(|entry| entry.subleaf == 0) {
        leaves.entry(entry.leaf).or_insert(entry.regs);
    }
    let one_by_one = |leaf| leaves.get(&leaf).copied();
    assert_eq!(dump.kvm_base(), one_by_one.kvm_base());

    let found = KvmLeaf::read(&dump);
    let host = found.map_or(KvmFeatures::empty(), |leaf| leaf.features);
    let Ok(negotiated) = negotiate(host, &vmm(choice.as_bytes()), &want) else {
        return;
    };
    for decision in negotiated.decisions() {
        assert!(!decision.to_string().contains('\n'));
    }

    let entries: Vec<kvm_cpuid_entry2> = dump
        .entries()
        .take(KVM_MAX_CPUID_ENTRIES)
        .map(kvm_cpuid_entry2::from)
        .collect();
    let whole = dump.entries().count() <= KVM_MAX_CPUID_ENTRIES;
    let mut cpuid = CpuId::from_entries(&entries).expect("no more than the limit");
    if whole {
        assert_eq!(kvm::read(&cpuid), found);
    }
    let before = cpuid.clone();
    match kvm::write(&mut cpuid, &negotiated) {
        Ok(()) => {
            let verified = kvm::verify(&negotiated, &cpuid);
            assert!(verified.is_exact(), "{verified}");
        }
        Err(_) => assert_eq!(cpuid.as_slice(), before.as_slice()),
    }
});

/// A VMM out of the bytes of a line; missing ones are 0.
fn vmm(choice: &[u8]) -> VmmSupport {
    let byte = |at: usize| choice.get(at).copied().unwrap_or_default();
    let word = |at: usize| u32::from_le_bytes([byte(at), byte(at + 1), byte(at + 2), byte(at + 3)]);
    VmmSupport {
        halts: match byte(0) % 3 {
            0 => HaltService::Kernel,
            1 => HaltService::Userspace,
            _ => HaltService::None,
        },
        kicks: match byte(1) % 3 {
            0 => KickService::Kernel,
            1 => KickService::Userspace,
            _ => KickService::None,
        },
        hlt_exits: byte(2) & 1 == 0,
        exit_hypercall: byte(2) & 2 != 0,
        msi_ext_dest_id: byte(2) & 4 != 0,
        migration_control: byte(2) & 8 != 0,
        vcpus: (byte(3) < 255).then(|| byte(3).into()),
        implements: KvmFeatures::from_bits_retain(word(4)),
        excludes: &[],
    }
}
