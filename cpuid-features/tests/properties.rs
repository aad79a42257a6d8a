//! What holds for every host, every VMM and every list.

use std::collections::HashSet;

use cpuid_features::{
    Bit, CpuidReader, CpuidRegs, Dump, DumpEntry, Exclusion, FEATURES, HaltService, KickService,
    KvmFeatures, KvmHints, KvmLeaf, Negotiated, Outcome, Selection, VmmSupport, negotiate,
};
use proptest::prelude::*;

prop_compose! {
    fn vmm()(
        halts in prop::sample::select(vec![
            HaltService::Kernel, HaltService::Userspace, HaltService::None,
        ]),
        kicks in prop::sample::select(vec![
            KickService::Kernel, KickService::Userspace, KickService::None,
        ]),
        (hlt_exits, exit_hypercall, msi_ext_dest_id, migration_control) in any::<(bool, bool, bool, bool)>(),
        vcpus in proptest::option::of(0u32..5),
        excludes in prop::sample::select(&EXCLUSIONS[..]),
        implements in features(),
    ) -> VmmSupport {
        VmmSupport {
            halts, kicks, hlt_exits, exit_hypercall, msi_ext_dest_id, migration_control, vcpus,
            implements, excludes,
        }
    }
}

/// What a VMM may leave out.
const EXCLUSIONS: [&[Exclusion]; 3] = [
    &[],
    &[Exclusion {
        features: KvmFeatures::STEAL_TIME,
        why: "a test",
        source: "",
    }],
    &[
        Exclusion {
            features: KvmFeatures::from_bits_retain(0x0001_0481),
            why: "a test",
            source: "",
        },
        Exclusion {
            features: KvmFeatures::ASYNC_PF_INT,
            why: "another test",
            source: "",
        },
    ],
];

/// Sets of all sizes: an even mix of bits, few bits, KVM's own report.
fn features() -> impl Strategy<Value = KvmFeatures> {
    prop_oneof![
        any::<u32>(),
        (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(a, b, c)| a & b & c),
        Just(0x0100_7efb_u32),
        any::<u32>().prop_map(|bits| 0x0100_7efb & bits),
        Just(0),
    ]
    .prop_map(KvmFeatures::from_bits_retain)
}

prop_compose! {
    /// Lists that ask for few bits, so that many can be had.
    fn selection()(
        on in features(),
        thin in any::<[u32; 3]>(),
        off in features(),
        hints_on in any::<u32>(),
        hints_off in any::<u32>(),
        overlap in prop::bool::weighted(0.1),
    ) -> Selection {
        let on = KvmFeatures::from_bits_retain(on.bits() & thin[0] & thin[1] & thin[2]);
        let hints_on = KvmHints::from_bits_retain(hints_on);
        let (on, hints_on) = if overlap {
            (on, hints_on)
        } else {
            (on - off, hints_on - KvmHints::from_bits_retain(hints_off))
        };
        Selection { on, off, hints_on, hints_off: KvmHints::from_bits_retain(hints_off) }
    }
}

fn offered(negotiated: &Negotiated) -> (KvmFeatures, KvmHints) {
    let mut features = KvmFeatures::empty();
    let mut hints = KvmHints::empty();
    for decision in negotiated.decisions() {
        if matches!(decision.outcome, Outcome::Kept | Outcome::Added) {
            match decision.bit {
                Bit::Feature(bit) => features |= bit,
                Bit::Hint(bit) => hints |= bit,
            }
        }
    }
    (features, hints)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// A selection without a contradiction prints as what it is read from.
    #[test]
    fn selections_read_back(wanted in selection()) {
        let mut wanted = wanted;
        wanted.off -= wanted.on;
        wanted.hints_off -= wanted.hints_on;
        prop_assert_eq!(wanted.to_string().parse(), Ok(wanted));
    }

    #[test]
    fn never_more_than_host_and_vmm(host in features(), vmm in vmm(), want in selection()) {
        if let Ok(negotiated) = negotiate(host, &vmm, &want) {
            prop_assert!((host | vmm.serves()).contains(negotiated.features));
            prop_assert!(!negotiated.features.intersects(want.off));
            prop_assert!(negotiated.features.contains(want.on));
            prop_assert_eq!(negotiated.hints, want.hints_on);
            for bit in negotiated.features.singles() {
                if let Some(row) = bit.row() {
                    prop_assert!(negotiated.features.contains(row.needs), "{}", bit);
                }
            }
        }
    }

    #[test]
    fn idempotent(host in features(), vmm in vmm(), want in selection()) {
        if let Ok(first) = negotiate(host, &vmm, &want) {
            let second = negotiate(first.features, &vmm, &want);
            prop_assert_eq!(second.map(|second| second.features), Ok(first.features));
        }
    }

    /// More from the host, or from the VMM, never takes a bit away and never
    /// turns a success into a refusal.
    #[test]
    fn monotone(
        host in features(), more in features(), vmm in vmm(), serves in features(),
        want in selection(),
    ) {
        if let Ok(less) = negotiate(host, &vmm, &want) {
            let with_host = negotiate(host | more, &vmm, &want);
            prop_assert!(with_host.is_ok_and(|more| more.features.contains(less.features)));
            let richer = VmmSupport { implements: vmm.implements | serves, ..vmm };
            let with_vmm = negotiate(host, &richer, &want);
            prop_assert!(with_vmm.is_ok_and(|more| more.features.contains(less.features)));
        }
    }

    /// The list turns bits on or off and nothing else: without it the guest
    /// has at least as much, and a refusal names only what was asked for.
    #[test]
    fn asking_gives_nothing_extra(host in features(), vmm in vmm(), want in selection()) {
        let unasked = negotiate(host, &vmm, &Selection::default()).unwrap();
        match negotiate(host, &vmm, &want) {
            Ok(asked) => prop_assert!(unasked.features.contains(asked.features)),
            Err(error) => {
                prop_assert!(!error.refused.is_empty() || !error.refused_hints.is_empty());
                prop_assert!(want.on.contains(error.refused));
                prop_assert!(want.hints_on.contains(error.refused_hints));
                prop_assert_eq!(error.decision.outcome, Outcome::Refused);
                prop_assert!(!error.to_string().contains('\n'));
            }
        }
    }

    /// Every bit that matters has exactly one decision, in order, that agrees
    /// with the result and gives one sentence.
    #[test]
    fn decisions_account_for_every_bit(host in features(), vmm in vmm(), want in selection()) {
        if let Ok(negotiated) = negotiate(host, &vmm, &want) {
            prop_assert_eq!(offered(&negotiated), (negotiated.features, negotiated.hints));
            let rows = FEATURES.iter().fold(KvmFeatures::empty(), |set, row| set | row.features());
            let mut seen = HashSet::new();
            for decision in negotiated.decisions() {
                prop_assert!(seen.insert(decision.bit.to_string()));
                let sentence = decision.reason.to_string();
                prop_assert!(!sentence.is_empty() && !sentence.contains('\n'));
                let (bit, reported) = match decision.bit {
                    Bit::Feature(bit) => (bit, host.contains(bit)),
                    Bit::Hint(_) => continue,
                };
                prop_assert_eq!(bit.bits().count_ones(), 1);
                match decision.outcome {
                    Outcome::Kept => prop_assert!(reported),
                    Outcome::Added => prop_assert!(!reported && vmm.serves().contains(bit)),
                    Outcome::Dropped => prop_assert!(reported || vmm.serves().contains(bit)),
                    Outcome::Absent => prop_assert!(!reported && !vmm.serves().contains(bit)),
                    Outcome::Refused => prop_assert!(false, "refused without an error"),
                    other => prop_assert!(false, "{other} is new here"),
                }
            }
            for bit in (rows | host | vmm.serves() | want.on | want.off).singles() {
                prop_assert!(negotiated.reason(bit).is_some(), "{}", bit);
            }
        }
    }

    /// A set prints as names, and the names signed read back as the set.
    #[test]
    fn names_read_back(on in any::<u32>(), hints in any::<u32>()) {
        let on = KvmFeatures::from_bits_retain(on);
        let hints = KvmHints::from_bits_retain(hints);
        let list: Vec<String> = on
            .singles()
            .map(|bit| format!("+{bit}"))
            .chain(hints.singles().map(|hint| format!("-{hint}")))
            .collect();
        let expected = Selection { on, hints_off: hints, ..Selection::default() };
        prop_assert_eq!(list.join(",").parse::<Selection>(), Ok(expected));
    }

    #[test]
    fn any_text_is_a_list_or_an_error(text in "\\PC*") {
        if let Err(error) = text.parse::<Selection>() {
            prop_assert!(text.contains(error.token.as_str()));
        }
    }

    #[test]
    fn any_text_is_a_dump(text in "([ >x0-9a-f=:]|eax|0x4000|\n|\\PC)*") {
        let dump = Dump::new(&text);
        let one_by_one = |leaf| dump.leaf(leaf);
        prop_assert_eq!(dump.kvm_base(), one_by_one.kvm_base());
    }

    /// What is printed is read back, and the shortcut to the base agrees with
    /// the search, wherever signatures are.
    #[test]
    fn dumps_read_back(
        entries in prop::collection::vec(
            (0u32..0x302, prop::bool::ANY, 0u32..2, any::<[u32; 4]>()), 0..12,
        ),
    ) {
        let entries: Vec<DumpEntry> = entries
            .into_iter()
            .map(|(offset, signature, subleaf, [eax, ebx, ecx, edx])| DumpEntry {
                leaf: 0x4000_0000 + (offset & !0xfe),
                subleaf,
                regs: if signature {
                    CpuidRegs { eax, ebx: 0x4b4d_564b, ecx: 0x564b_4d56, edx: 0x4d }
                } else {
                    CpuidRegs { eax, ebx, ecx, edx }
                },
            })
            .collect();
        let text: String = entries.iter().map(|entry| format!("{entry}\n")).collect();
        let dump = Dump::new(&text);
        prop_assert_eq!(&dump.entries().collect::<Vec<_>>(), &entries);
        let one_by_one = |leaf| {
            entries.iter().find(|entry| entry.leaf == leaf && entry.subleaf == 0).map(|entry| entry.regs)
        };
        prop_assert_eq!(KvmLeaf::read(&dump), KvmLeaf::read(&one_by_one));
    }
}
