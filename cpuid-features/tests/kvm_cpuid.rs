//! Reading and writing `kvm_bindings::CpuId`, without a `/dev/kvm`.

#![cfg(target_arch = "x86_64")]
#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

use cpuid_features::kvm::{self, TooManyEntries, WriteError};
use cpuid_features::{
    Dump, HaltService, KickService, KvmFeatures, KvmHints, KvmLeaf, Negotiated, Selection,
    VmmSupport, negotiate,
};
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};

const SHIFTED: &str = include_str!("dumps/synthetic-hyperv-shifted.cpuid");
const HYPERV_ONLY: &str = include_str!("dumps/synthetic-hyperv-only.cpuid");
const MAX_LEAF_ZERO: &str = include_str!("dumps/synthetic-max-leaf-zero.cpuid");
const MAX_LEAF_HIGH: &str = include_str!("dumps/synthetic-max-leaf-0x40000010.cpuid");
const STALE_MAX_LEAF: &str = include_str!("dumps/synthetic-hyperv-stale-max-leaf.cpuid");
const NO_FEATURE_LEAF: &str = include_str!("dumps/synthetic-no-feature-leaf.cpuid");
const NO_KVM: &str = include_str!("dumps/synthetic-no-kvm.cpuid");
/// The highest leaf is the signature itself.
const MAX_LEAF_LOW: &str =
    "0x40000000 0x00: eax=0x40000000 ebx=0x4b4d564b ecx=0x564b4d56 edx=0x0000004d";
const HOST: &str = include_str!("dumps/kvm-pvm-6.18.supported");

fn cpuid(dump: &str) -> CpuId {
    let entries: Vec<kvm_cpuid_entry2> = Dump::new(dump)
        .entries()
        .map(kvm_cpuid_entry2::from)
        .collect();
    CpuId::from_entries(&entries).unwrap()
}

fn negotiated() -> Negotiated {
    let vmm = VmmSupport {
        halts: HaltService::Kernel,
        kicks: KickService::Kernel,
        hlt_exits: true,
        vcpus: Some(2),
        ..VmmSupport::default()
    };
    let want: Selection = "-pv-eoi,+realtime".parse().unwrap();
    negotiate(KvmFeatures::from_bits_retain(0x0100_7efb), &vmm, &want).unwrap()
}

fn expected(base: u32, max_leaf: u32) -> Option<KvmLeaf> {
    Some(KvmLeaf {
        base,
        max_leaf,
        features: KvmFeatures::from_bits_retain(0x0100_7ebb),
        hints: KvmHints::REALTIME,
    })
}

/// Entries outside the KVM leaves at `base`.
fn others(cpuid: &CpuId, base: u32) -> Vec<(u32, u32, [u32; 4])> {
    cpuid
        .as_slice()
        .iter()
        .filter(|entry| entry.function & !0xff != base)
        .map(|entry| {
            (
                entry.function,
                entry.index,
                [entry.eax, entry.ebx, entry.ecx, entry.edx],
            )
        })
        .collect()
}

#[test]
fn the_leaf_is_written_where_it_belongs() {
    let cases = [
        ("host", HOST, 0x4000_0000, 0x4000_0001),
        ("behind Hyper-V", SHIFTED, 0x4000_0100, 0x4000_0101),
        ("Hyper-V alone", HYPERV_ONLY, 0x4000_0100, 0x4000_0101),
        (
            "stale highest leaf",
            STALE_MAX_LEAF,
            0x4000_0100,
            0x4000_0101,
        ),
        ("highest leaf 0", MAX_LEAF_ZERO, 0x4000_0000, 0x4000_0001),
        (
            "highest leaf too low",
            MAX_LEAF_LOW,
            0x4000_0000,
            0x4000_0001,
        ),
        ("higher leaf stays", MAX_LEAF_HIGH, 0x4000_0000, 0x4000_0010),
        ("no feature leaf", NO_FEATURE_LEAF, 0x4000_0000, 0x4000_0001),
        ("no KVM", NO_KVM, 0x4000_0000, 0x4000_0001),
        ("nothing", "", 0x4000_0000, 0x4000_0001),
    ];
    for (what, dump, base, max_leaf) in cases {
        let before = cpuid(dump);
        let mut after = before.clone();
        kvm::write(&mut after, &negotiated()).unwrap();
        assert_eq!(kvm::read(&after), expected(base, max_leaf), "{what}");
        assert_eq!(others(&after, base), others(&before, base), "{what}");
        assert!(kvm::verify(&negotiated(), &after).is_exact(), "{what}");
        // The highest leaf as a guest reads it, without the quirk for 0.
        let signature = after
            .as_slice()
            .iter()
            .find(|entry| entry.function == base)
            .unwrap();
        assert_eq!(signature.eax, max_leaf, "{what}");

        let twice = {
            let mut again = after.clone();
            kvm::write(&mut again, &negotiated()).unwrap();
            again
        };
        assert_eq!(twice.as_slice(), after.as_slice(), "{what}");
    }
}

#[test]
fn leaves_move_to_make_room_for_hyperv() {
    let mut cpuid = cpuid(MAX_LEAF_HIGH);
    kvm::write_at(&mut cpuid, 0x4000_0100, &negotiated()).unwrap();
    assert_eq!(kvm::read(&cpuid), expected(0x4000_0100, 0x4000_0110));
    let leaves: Vec<u32> = cpuid
        .as_slice()
        .iter()
        .map(|entry| entry.function)
        .filter(|leaf| (0x4000_0000..0x8000_0000).contains(leaf))
        .collect();
    // The frequency leaf moved along, and nothing is left behind.
    assert_eq!(leaves, [0x4000_0100, 0x4000_0101, 0x4000_0110]);
}

#[test]
fn what_cannot_be_written_leaves_the_list_alone() {
    let refuse = |mut cpuid: CpuId, base: Option<u32>, error| {
        let before = cpuid.clone();
        let result = match base {
            Some(base) => kvm::write_at(&mut cpuid, base, &negotiated()),
            None => kvm::write(&mut cpuid, &negotiated()),
        };
        assert_eq!(result, Err(error));
        assert_eq!(cpuid.as_slice(), before.as_slice());
        assert!(!error.to_string().contains('\n'));
    };
    for base in [
        0,
        0x3fff_ff00,
        0x4000_0001,
        0x4000_0080,
        0x4001_0000,
        u32::MAX,
    ] {
        refuse(cpuid(HOST), Some(base), WriteError::NotABase(base));
    }
    refuse(
        cpuid(SHIFTED),
        Some(0x4000_0000),
        WriteError::Occupied(0x4000_0000),
    );

    let entry = |function| kvm_cpuid_entry2 {
        function,
        ..Default::default()
    };
    let full: Vec<_> = (0..).map(entry).take(KVM_MAX_CPUID_ENTRIES).collect();
    refuse(
        CpuId::from_entries(&full).unwrap(),
        None,
        WriteError::Table(TooManyEntries(KVM_MAX_CPUID_ENTRIES + 1)),
    );
    // Room for the signature and not for the features.
    refuse(
        CpuId::from_entries(&full[1..]).unwrap(),
        None,
        WriteError::Table(TooManyEntries(KVM_MAX_CPUID_ENTRIES + 1)),
    );
    let taken: Vec<_> = (0x4000_0000..0x4001_0000)
        .step_by(0x100)
        .map(entry)
        .collect();
    refuse(
        CpuId::from_entries(&taken).unwrap(),
        None,
        WriteError::NoFreeBase,
    );
}

#[test]
fn verify_says_what_changed() {
    let asked = negotiated();
    let mut kept = cpuid(HOST);
    kvm::write(&mut kept, &asked).unwrap();
    let features = kept
        .as_mut_slice()
        .iter_mut()
        .find(|entry| entry.function == 0x4000_0001)
        .unwrap();
    // PV_UNHALT and STEAL_TIME gone, bit 6 come, the hint swapped.
    features.eax ^= 1 << 7 | 1 << 5 | 1 << 6;
    features.edx = 1 << 2;
    let verified = kvm::verify(&asked, &kept);
    assert!(!verified.is_exact());
    assert_eq!(
        verified.cleared,
        KvmFeatures::PV_UNHALT | KvmFeatures::STEAL_TIME
    );
    assert_eq!(verified.extra, KvmFeatures::PV_EOI);
    assert_eq!(verified.kept, asked.features - verified.cleared);
    assert_eq!(verified.cleared_hints, KvmHints::REALTIME);
    assert_eq!(verified.extra_hints.bits(), 1 << 2);
    assert_eq!(
        verified.to_string(),
        "steal-time cleared: KVM did not keep it; no rule of KVM's for this bit is known here; \
         pv-unhalt cleared: KVM clears it when the VM's HLT exits are disabled \
         (KVM_CAP_X86_DISABLE_EXITS); hints cleared: realtime; not asked for: pv-eoi; \
         hints not asked for: hint2"
    );

    let gone = kvm::verify(&asked, &cpuid(NO_KVM));
    assert_eq!((gone.leaf, gone.cleared), (None, asked.features));
    assert!(
        gone.to_string()
            .starts_with("clocksource cleared: the vCPU has no KVM leaves")
    );
    let nothing = negotiate(
        KvmFeatures::empty(),
        &VmmSupport::default(),
        &Selection::default(),
    )
    .unwrap();
    let gone = kvm::verify(&nothing, &cpuid(NO_KVM));
    assert!(!gone.is_exact());
    assert_eq!(gone.to_string(), "the vCPU has no KVM leaves at all");
}
