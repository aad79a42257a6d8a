//! Each rule of the negotiation by itself, with the reason it gives.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

use cpuid_features::{
    Bit, Exclusion, HaltService, KickService, KvmFeatures, KvmHints, NegotiateError, Outcome,
    Reason, Selection, VmmSupport, negotiate, offer,
};

/// KVM's report with and without steal time: ABI, `arch/x86/kvm/cpuid.c`.
const FULL: KvmFeatures = KvmFeatures::from_bits_retain(0x0100_7efb);

/// In-kernel irqchip, four vCPUs, nothing special.
const KERNEL: VmmSupport = VmmSupport {
    halts: HaltService::Kernel,
    kicks: KickService::Kernel,
    hlt_exits: true,
    exit_hypercall: false,
    msi_ext_dest_id: false,
    migration_control: false,
    vcpus: Some(4),
    implements: KvmFeatures::empty(),
    excludes: &[],
};

/// No irqchip, the VMM parks vCPUs and serves the kick.
const USERSPACE: VmmSupport = VmmSupport {
    halts: HaltService::Userspace,
    kicks: KickService::Userspace,
    ..KERNEL
};

const OF_A_TEST: Exclusion = Exclusion {
    features: KvmFeatures::PV_UNHALT,
    why: "of a test",
    source: "",
};

struct Case {
    what: &'static str,
    host: KvmFeatures,
    vmm: VmmSupport,
    want: &'static str,
    bit: KvmFeatures,
    outcome: Outcome,
    reason: Reason,
}

const CASE: Case = Case {
    what: "",
    host: FULL,
    vmm: KERNEL,
    want: "",
    bit: KvmFeatures::PV_UNHALT,
    outcome: Outcome::Dropped,
    reason: Reason::NotReported,
};

const CASES: &[Case] = &[
    Case {
        what: "plain",
        outcome: Outcome::Kept,
        reason: Reason::HostReports,
        ..CASE
    },
    Case {
        what: "turned off",
        want: "-pv-unhalt",
        reason: Reason::TurnedOff,
        ..CASE
    },
    Case {
        what: "not reported",
        host: FULL.difference(KvmFeatures::PV_UNHALT),
        outcome: Outcome::Absent,
        ..CASE
    },
    Case {
        what: "HLT exits disabled",
        vmm: VmmSupport {
            hlt_exits: false,
            ..KERNEL
        },
        reason: Reason::HltExitsDisabled,
        ..CASE
    },
    Case {
        what: "no halts",
        vmm: VmmSupport {
            halts: HaltService::None,
            ..KERNEL
        },
        reason: Reason::NobodyHalts,
        ..CASE
    },
    Case {
        what: "no kicks",
        vmm: VmmSupport {
            kicks: KickService::None,
            ..USERSPACE
        },
        reason: Reason::NobodyKicks,
        ..CASE
    },
    Case {
        what: "kernel kicks, userspace halts",
        vmm: VmmSupport {
            kicks: KickService::Kernel,
            ..USERSPACE
        },
        reason: Reason::KernelKickMissesUserspaceHalt,
        ..CASE
    },
    Case {
        what: "userspace kicks, kernel halts (KVM_SIGNAL_MSI)",
        vmm: VmmSupport {
            kicks: KickService::Userspace,
            ..KERNEL
        },
        outcome: Outcome::Kept,
        reason: Reason::HostReports,
        ..CASE
    },
    Case {
        what: "both in userspace",
        vmm: USERSPACE,
        outcome: Outcome::Kept,
        reason: Reason::HostReports,
        ..CASE
    },
    Case {
        what: "hosted: no KVM at all, the VMM implements the bit",
        host: KvmFeatures::empty(),
        vmm: VmmSupport {
            implements: KvmFeatures::PV_UNHALT,
            ..USERSPACE
        },
        outcome: Outcome::Added,
        reason: Reason::VmmServes,
        ..CASE
    },
    Case {
        what: "one vCPU",
        vmm: VmmSupport {
            vcpus: Some(1),
            ..KERNEL
        },
        outcome: Outcome::Kept,
        reason: Reason::UnusedByOneVcpu,
        ..CASE
    },
    Case {
        what: "no word of how many vCPUs",
        vmm: VmmSupport {
            vcpus: None,
            ..KERNEL
        },
        outcome: Outcome::Kept,
        reason: Reason::HostReports,
        ..CASE
    },
    Case {
        what: "left out by the VMM",
        vmm: VmmSupport {
            excludes: &[OF_A_TEST],
            ..KERNEL
        },
        outcome: Outcome::Dropped,
        reason: Reason::Excluded(&OF_A_TEST),
        ..CASE
    },
    Case {
        what: "left out, though the VMM serves it",
        vmm: VmmSupport {
            implements: KvmFeatures::PV_UNHALT,
            excludes: &[OF_A_TEST],
            ..KERNEL
        },
        outcome: Outcome::Dropped,
        reason: Reason::Excluded(&OF_A_TEST),
        ..CASE
    },
    Case {
        what: "one vCPU, IPI",
        vmm: VmmSupport {
            vcpus: Some(1),
            ..KERNEL
        },
        bit: KvmFeatures::PV_SEND_IPI,
        outcome: Outcome::Kept,
        reason: Reason::UnusedByOneVcpu,
        ..CASE
    },
    Case {
        what: "one vCPU, steal time",
        vmm: VmmSupport {
            vcpus: Some(1),
            ..KERNEL
        },
        bit: KvmFeatures::STEAL_TIME,
        outcome: Outcome::Kept,
        reason: Reason::HostReports,
        ..CASE
    },
    Case {
        what: "realtime hint",
        want: "+realtime",
        outcome: Outcome::Kept,
        reason: Reason::UnusedUnderHint(KvmHints::REALTIME),
        ..CASE
    },
    Case {
        what: "TLB flush without steal time",
        want: "-steal-time",
        bit: KvmFeatures::PV_TLB_FLUSH,
        reason: Reason::Needs(KvmFeatures::STEAL_TIME),
        ..CASE
    },
    Case {
        what: "yield without steal time",
        host: FULL.difference(KvmFeatures::STEAL_TIME),
        bit: KvmFeatures::PV_SCHED_YIELD,
        reason: Reason::Needs(KvmFeatures::STEAL_TIME),
        ..CASE
    },
    Case {
        what: "async pf without its interrupt",
        want: "-async-pf-int",
        bit: KvmFeatures::ASYNC_PF,
        reason: Reason::Needs(KvmFeatures::ASYNC_PF_INT),
        ..CASE
    },
    Case {
        what: "and what needed async pf in turn",
        want: "-async-pf-int",
        bit: KvmFeatures::ASYNC_PF_VMEXIT,
        reason: Reason::Needs(KvmFeatures::ASYNC_PF),
        ..CASE
    },
    Case {
        what: "deprecated",
        host: FULL.union(KvmFeatures::MMU_OP),
        bit: KvmFeatures::MMU_OP,
        reason: Reason::Removed,
        ..CASE
    },
    Case {
        what: "unknown bit of a newer kernel",
        host: FULL.union(KvmFeatures::from_bits_retain(1 << 18)),
        bit: KvmFeatures::from_bits_retain(1 << 18),
        outcome: Outcome::Kept,
        reason: Reason::UnknownToThisCrate,
        ..CASE
    },
    Case {
        what: "unknown bit, no LAPIC in the kernel",
        host: FULL.union(KvmFeatures::from_bits_retain(1 << 18)),
        vmm: USERSPACE,
        bit: KvmFeatures::from_bits_retain(1 << 18),
        reason: Reason::UnknownWithoutLapic,
        ..CASE
    },
    Case {
        what: "map gpa range, capability on",
        vmm: VmmSupport {
            exit_hypercall: true,
            ..KERNEL
        },
        bit: KvmFeatures::HC_MAP_GPA_RANGE,
        outcome: Outcome::Added,
        reason: Reason::VmmServes,
        ..CASE
    },
    Case {
        what: "extended destination ids, translated",
        vmm: VmmSupport {
            msi_ext_dest_id: true,
            ..KERNEL
        },
        bit: KvmFeatures::MSI_EXT_DEST_ID,
        outcome: Outcome::Added,
        reason: Reason::VmmServes,
        ..CASE
    },
    Case {
        what: "migration control, served",
        vmm: VmmSupport {
            migration_control: true,
            ..KERNEL
        },
        bit: KvmFeatures::MIGRATION_CONTROL,
        outcome: Outcome::Added,
        reason: Reason::VmmServes,
        ..CASE
    },
    Case {
        what: "hypercalls go to a VMM that does not know this one",
        vmm: VmmSupport {
            kicks: KickService::Userspace,
            ..KERNEL
        },
        bit: KvmFeatures::PV_SEND_IPI,
        reason: Reason::HypercallNotServed,
        ..CASE
    },
    Case {
        what: "a VMM that does",
        vmm: VmmSupport {
            implements: KvmFeatures::PV_SEND_IPI,
            ..USERSPACE
        },
        bit: KvmFeatures::PV_SEND_IPI,
        outcome: Outcome::Kept,
        reason: Reason::VmmServes,
        ..CASE
    },
    Case {
        what: "steal time needs no LAPIC",
        vmm: USERSPACE,
        bit: KvmFeatures::STEAL_TIME,
        outcome: Outcome::Kept,
        reason: Reason::HostReports,
        ..CASE
    },
];

fn parse(list: &str) -> Selection {
    list.parse().unwrap()
}

#[test]
fn every_rule_gives_its_reason() {
    for case in CASES {
        let negotiated = negotiate(case.host, &case.vmm, &parse(case.want))
            .unwrap_or_else(|error| panic!("{}: {error}", case.what));
        let decision = negotiated.reason(case.bit).unwrap();
        assert_eq!(decision.outcome, case.outcome, "{}", case.what);
        assert_eq!(decision.reason, case.reason, "{}", case.what);
        let offered = matches!(case.outcome, Outcome::Kept | Outcome::Added);
        assert_eq!(
            negotiated.features.contains(case.bit),
            offered,
            "{}",
            case.what
        );
    }
}

/// Asking by name for each bit that a rule drops is an error with the same
/// reason.
#[test]
fn asking_for_what_is_dropped_is_refused() {
    for case in CASES {
        let mut want = parse(case.want);
        if want.off.contains(case.bit) {
            continue;
        }
        want.on |= case.bit;
        let result = negotiate(case.host, &case.vmm, &want);
        match case.outcome {
            Outcome::Kept | Outcome::Added => {
                assert!(result.is_ok(), "{}", case.what);
            }
            _ => {
                let error = result.unwrap_err();
                assert_eq!(error.refused, case.bit, "{}", case.what);
                assert_eq!(error.decision.bit, Bit::Feature(case.bit), "{}", case.what);
                assert_eq!(error.decision.outcome, Outcome::Refused, "{}", case.what);
                assert_eq!(error.decision.reason, case.reason, "{}", case.what);
            }
        }
    }
}

/// Without a local APIC in the kernel, what remains is clocks, I/O delay,
/// steal time with its TLB flush, and the kick that the VMM serves.
#[test]
fn without_a_kernel_lapic() {
    let negotiated = negotiate(FULL, &USERSPACE, &Selection::default()).unwrap();
    assert_eq!(
        negotiated.features,
        KvmFeatures::CLOCKSOURCE
            | KvmFeatures::NOP_IO_DELAY
            | KvmFeatures::CLOCKSOURCE2
            | KvmFeatures::STEAL_TIME
            | KvmFeatures::PV_UNHALT
            | KvmFeatures::PV_TLB_FLUSH
            | KvmFeatures::CLOCKSOURCE_STABLE_BIT
    );
    let lapic_gone = [
        KvmFeatures::ASYNC_PF,
        KvmFeatures::PV_EOI,
        KvmFeatures::ASYNC_PF_VMEXIT,
        KvmFeatures::PV_SEND_IPI,
        KvmFeatures::POLL_CONTROL,
        KvmFeatures::PV_SCHED_YIELD,
        KvmFeatures::ASYNC_PF_INT,
    ];
    for bit in lapic_gone {
        let reason = negotiated.reason(bit).unwrap().reason;
        assert!(
            matches!(reason, Reason::NoKernelLapic(_)),
            "{bit}: {reason}"
        );
    }
}

#[test]
fn userspace_only_bits_say_what_the_vmm_must_do() {
    let negotiated = negotiate(FULL, &KERNEL, &Selection::default()).unwrap();
    for bit in [
        KvmFeatures::MSI_EXT_DEST_ID,
        KvmFeatures::HC_MAP_GPA_RANGE,
        KvmFeatures::MIGRATION_CONTROL,
    ] {
        let decision = negotiated.reason(bit).unwrap();
        assert_eq!(decision.outcome, Outcome::Absent);
        assert!(matches!(decision.reason, Reason::NeedsVmm(_)), "{bit}");

        // Even a host that reports it leaves the work to the VMM.
        let negotiated = negotiate(FULL | bit, &KERNEL, &Selection::default()).unwrap();
        let decision = negotiated.reason(bit).unwrap();
        assert_eq!(decision.outcome, Outcome::Dropped);
        assert!(matches!(decision.reason, Reason::NeedsVmm(_)), "{bit}");
    }
}

#[test]
fn hints_are_only_what_was_asked() {
    let none = negotiate(FULL, &KERNEL, &Selection::default()).unwrap();
    assert!(none.hints.is_empty());
    assert_eq!(
        none.hint_reason(KvmHints::REALTIME).unwrap().reason,
        Reason::HintNotAsked
    );
    let asked = negotiate(FULL, &KERNEL, &parse("+realtime,+hint9")).unwrap();
    assert_eq!(asked.hints.bits(), 1 | 1 << 9);
    assert_eq!(
        asked.hint_reason(KvmHints::REALTIME).unwrap().outcome,
        Outcome::Added
    );
}

#[test]
fn refusals_print_in_one_line() {
    let disabled = VmmSupport {
        hlt_exits: false,
        ..KERNEL
    };
    let one = negotiate(FULL, &disabled, &parse("+pv-unhalt")).unwrap_err();
    assert_eq!(
        one.to_string(),
        "pv-unhalt cannot be had: HLT exits are disabled, so no halt can be woken and KVM \
         clears the bit"
    );
    let several = negotiate(FULL, &disabled, &parse("+pv-unhalt,+bit19,+mmu-op")).unwrap_err();
    assert_eq!(
        several.to_string(),
        "mmu-op cannot be had: deprecated: the code behind it has been removed from KVM \
         (refused in all: mmu-op,pv-unhalt,bit19)"
    );
}

#[test]
fn both_on_and_off_is_refused() {
    let want = Selection {
        on: KvmFeatures::PV_EOI,
        off: KvmFeatures::PV_EOI,
        hints_on: KvmHints::REALTIME,
        hints_off: KvmHints::REALTIME,
    };
    let NegotiateError {
        decision,
        refused,
        refused_hints,
    } = negotiate(FULL, &KERNEL, &want).unwrap_err();
    assert_eq!(decision.reason, Reason::OnAndOff);
    assert_eq!(refused, KvmFeatures::PV_EOI);
    assert_eq!(refused_hints, KvmHints::REALTIME);
}

/// What the VMM leaves out is refused with the VMM's reason, not the user's.
#[test]
fn what_is_left_out_is_refused_with_the_reason() {
    let vmm = VmmSupport {
        excludes: &[Exclusion {
            features: KvmFeatures::STEAL_TIME,
            why: "of a test",
            source: "",
        }],
        ..KERNEL
    };
    let want: Selection = "+steal-time".parse().unwrap();
    let error = negotiate(FULL, &vmm, &want).unwrap_err();
    assert_eq!(
        error.to_string(),
        "steal-time cannot be had: the VMM leaves it out: of a test"
    );
    // And what needs it goes with it.
    let offered = offer(FULL, &vmm);
    assert_eq!(
        offered.reason(KvmFeatures::PV_TLB_FLUSH).unwrap().reason,
        Reason::Needs(KvmFeatures::STEAL_TIME)
    );
}
