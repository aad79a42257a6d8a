//! What hypercalls answer, and whom.

use cpuid_features::KvmFeatures;
use hypercall_abi::{
    KVM_EINVAL, KVM_ENOSYS, KVM_EPERM, KVM_HC_KICK_CPU, KVM_HC_MAP_GPA_RANGE, KVM_HC_SCHED_YIELD,
    KVM_HC_SEND_IPI, KVM_HC_VAPIC_POLL_IRQ,
};

use super::latch::{halt_then, wakes_nobody};
use super::{GO, kick, minus, slot};
use crate::conformance::case::{Case, CaseHost, CodeKind, NO_APICS, Plan};
use crate::payload::ABSENT_APIC_ID;
use crate::payload::script::{Op, VECTOR};

/// A number that no kernel has.
const UNKNOWN: u64 = 0x63;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "masked PV_UNHALT",
        expects: "with enforcement a kick answers -1000 (-KVM_ENOSYS) and wakes nobody",
        plan: |host| {
            host.answers()?;
            Ok(Plan {
                mask: KvmFeatures::PV_UNHALT,
                ..wakes_nobody(kick(1, 0), minus(KVM_ENOSYS))
            })
        },
    },
    Case {
        name: "masked, not enforced",
        expects: "without enforcement a kick works whatever CPUID shows",
        plan: |host| {
            host.answers()?;
            Ok(Plan {
                mask: KvmFeatures::PV_UNHALT,
                lenient: true,
                ..halt_then(kick(1, 0))
            })
        },
    },
    Case {
        name: "call from CPL 3",
        expects: "-1 (-KVM_EPERM), before the number is looked at",
        plan: |host| {
            host.answers()?;
            Ok(Plan {
                vcpus: vec![vec![kick(0, 0), call(UNKNOWN, [0; 4], 1)]],
                expect: vec![slot(0, 0, minus(KVM_EPERM)), slot(0, 1, minus(KVM_EPERM))],
                code: CodeKind::User64,
                ..Plan::default()
            })
        },
    },
    Case {
        name: "call from 32-bit code",
        expects: "low halves count; -1000 reads 0xfffffc18",
        plan: |host| {
            host.answers()?;
            Ok(Plan {
                vcpus: vec![vec![kick(0, 0)], vec![call(UNKNOWN, [0; 4], 0)]],
                expect: vec![slot(0, 0, 0), slot(1, 0, minus(KVM_ENOSYS) & 0xffff_ffff)],
                code: CodeKind::Kernel32,
                ..Plan::default()
            })
        },
    },
    Case {
        name: "unknown numbers",
        expects: "-1000, for those of other architectures and for 5 + 2^32 too",
        plan: |host| {
            host.answers()?;
            let numbers = [
                0,
                2,
                3,
                4,
                13,
                UNKNOWN,
                KVM_HC_KICK_CPU | (1 << 32),
                u64::MAX,
            ];
            Ok(Plan {
                vcpus: vec![
                    (0u64..)
                        .zip(numbers)
                        .map(|(i, nr)| call(nr, [0, 0, 0, 0], i))
                        .collect(),
                ],
                expect: (0u64..)
                    .zip(numbers)
                    .map(|(i, _)| slot(0, i, minus(KVM_ENOSYS)))
                    .collect(),
                ..Plan::default()
            })
        },
    },
    Case {
        name: "VAPIC_POLL_IRQ",
        expects: "0, with no feature to ask for",
        plan: |host| {
            host.answers()?;
            Ok(Plan {
                vcpus: vec![vec![call(KVM_HC_VAPIC_POLL_IRQ, [1, 2, 3, 4], 0)]],
                expect: vec![slot(0, 0, 0)],
                ..Plan::default()
            })
        },
    },
    Case {
        name: "SCHED_YIELD",
        expects: "0, to a vCPU that runs, to itself and to nobody",
        plan: |host| {
            host.answers()?;
            let to = |id, s| call(KVM_HC_SCHED_YIELD, [id, 0, 0, 0], s);
            Ok(Plan {
                vcpus: vec![
                    vec![
                        to(1, 0),
                        to(0, 1),
                        to(ABSENT_APIC_ID as u64, 2),
                        Op::Set(GO, 1),
                    ],
                    vec![Op::Wait(GO, 1)],
                ],
                expect: vec![slot(0, 0, 0), slot(0, 1, 0), slot(0, 2, 0)],
                // Its bit needs steal time, which not every host reports.
                lenient: true,
                ..Plan::default()
            })
        },
    },
    Case {
        name: "SEND_IPI counts",
        expects: "how many vCPUs accepted; -22 for a logical destination; -1000 without an APIC",
        plan: |host| {
            host.answers()?;
            let send = |bitmap, icr, s| call(KVM_HC_SEND_IPI, [bitmap, 0, 0, icr], s);
            let vector = VECTOR as u64;
            kvm_has_send_ipi(host)?;
            let answers = match host.apics {
                // vCPUs 0 and 1 are there, 2 and 63 are not.
                true => [2, 1, 0, minus(KVM_EINVAL)],
                false => [minus(KVM_ENOSYS); 4],
            };
            Ok(Plan {
                vcpus: vec![
                    vec![
                        send(0b111 | (1 << 63), vector, 0),
                        send(0b10, vector + 1, 1),
                        send(0b100, vector, 2),
                        send(0b11, vector | 0x800, 3),
                        Op::Set(GO, 1),
                    ],
                    vec![Op::Wait(GO, 1)],
                ],
                expect: (0u64..)
                    .zip(answers)
                    .map(|(i, is)| slot(0, i, is))
                    .collect(),
                ..Plan::default()
            })
        },
    },
    Case {
        name: "SEND_IPI, delivery mode 3",
        expects: "a remote read wakes as a kick does, and counts",
        plan: |host| {
            host.answers()?;
            if !host.apics {
                return Err(NO_APICS);
            }
            kvm_has_send_ipi(host)?;
            let remote_read = Op::Call {
                nr: KVM_HC_SEND_IPI,
                args: [0b10, 0, 0, 0x300],
                slot: 0,
            };
            let mut plan = halt_then(remote_read);
            plan.expect = vec![slot(0, 0, 1)];
            Ok(plan)
        },
    },
    Case {
        name: "MAP_GPA_RANGE, enabled",
        expects: "comes to the VMM, which answers 0; -22 for what is no range of pages",
        plan: |host| {
            host.answers()?;
            Ok(Plan {
                map_gpa_range: true,
                expect: vec![
                    slot(0, 0, 0),
                    slot(0, 1, minus(KVM_EINVAL)),
                    slot(0, 2, minus(KVM_EINVAL)),
                    slot(0, 3, minus(KVM_EINVAL)),
                ],
                ..map_gpa_range()
            })
        },
    },
    Case {
        name: "MAP_GPA_RANGE, not enabled",
        expects: "-1000, good arguments or bad",
        plan: |host| {
            host.answers()?;
            Ok(Plan {
                expect: (0..4).map(|i| slot(0, i, minus(KVM_ENOSYS))).collect(),
                ..map_gpa_range()
            })
        },
    },
];

/// Where KVM serves the call it does so if it says so.
fn kvm_has_send_ipi(host: &CaseHost) -> Result<(), &'static str> {
    match host.kvm_serves() && !host.features.contains(KvmFeatures::PV_SEND_IPI) {
        true => Err("this KVM does not report PV_SEND_IPI"),
        false => Ok(()),
    }
}

const fn call(nr: u64, args: [u64; 4], slot: u64) -> Op {
    Op::Call { nr, args, slot }
}

/// A good range, a misaligned one, one of no pages, and one that wraps.
fn map_gpa_range() -> Plan {
    let map = |gpa, pages, s| call(KVM_HC_MAP_GPA_RANGE, [gpa, pages, 0, 0], s);
    Plan {
        vcpus: vec![vec![
            map(0x10_0000, 1, 0),
            map(0x10_0001, 1, 1),
            map(0x10_0000, 0, 2),
            map(0x10_0000, u64::MAX, 3),
        ]],
        ..Plan::default()
    }
}
