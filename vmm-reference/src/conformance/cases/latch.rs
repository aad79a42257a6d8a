//! Halts and kicks: what wakes whom, and what a kick leaves behind.

use hypercall_abi::{KVM_HC_KICK_CPU, KickCpu};

use super::{DONE, GO, KICKED, READY, kick, slot};
use crate::conformance::case::{Case, CaseHost, Expect, NO_APICS, Plan, Step, Trace};
use crate::halt_mode::HaltMode;
use crate::payload::ABSENT_APIC_ID;
use crate::payload::script::Op;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "halt with IF = 0, then kick",
        expects: "the kick answers 0 and the HLT returns, interrupts off or not",
        plan: |_| Ok(halt_then(kick(1, 0))),
    },
    Case {
        name: "kick, then halt",
        expects: "a kick of a running vCPU is remembered: its next HLT returns",
        plan: |_| {
            Ok(Plan {
                vcpus: vec![
                    vec![kick(1, 0), Op::Set(GO, 1)],
                    vec![Op::Wait(GO, 1), Op::Halt],
                ],
                expect: vec![slot(0, 0, 0)],
                ..Plan::default()
            })
        },
    },
    Case {
        name: "kick twice, halt twice",
        expects: "kicks coalesce: of two HLTs the first returns, the second sleeps",
        plan: |_| {
            Ok(Plan {
                vcpus: vec![
                    vec![
                        kick(1, 0),
                        kick(1, 1),
                        Op::Set(KICKED, 1),
                        Op::Wait(GO, 1),
                        Op::Load(DONE, 2),
                        kick(1, 3),
                    ],
                    vec![
                        Op::Wait(KICKED, 1),
                        Op::Halt,
                        Op::Set(READY, 1),
                        Op::Halt,
                        Op::Set(DONE, 1),
                    ],
                ],
                steps: vec![
                    Step::Await(READY, 1),
                    Step::Asleep(1),
                    Step::Linger,
                    Step::Set(GO, 1),
                ],
                expect: vec![slot(0, 0, 0), slot(0, 1, 0), slot(0, 2, 0), slot(0, 3, 0)],
                ..Plan::default()
            })
        },
    },
    Case {
        name: "a wake-up uses the kick up",
        expects: "a HLT that a kick has ended leaves nothing: the next HLT sleeps",
        plan: |_| {
            Ok(Plan {
                vcpus: vec![
                    vec![
                        Op::Wait(GO, 1),
                        kick(1, 0),
                        Op::Wait(GO, 2),
                        Op::Load(DONE, 1),
                        kick(1, 2),
                    ],
                    vec![
                        Op::Set(READY, 1),
                        Op::Halt,
                        Op::Set(READY, 2),
                        Op::Halt,
                        Op::Set(DONE, 1),
                    ],
                ],
                steps: vec![
                    Step::Await(READY, 1),
                    Step::Asleep(1),
                    Step::Set(GO, 1),
                    Step::Await(READY, 2),
                    Step::Asleep(1),
                    Step::Linger,
                    Step::Set(GO, 2),
                ],
                expect: vec![slot(0, 0, 0), slot(0, 1, 0), slot(0, 2, 0)],
                ..Plan::default()
            })
        },
    },
    Case {
        name: "kick self, then halt",
        expects: "a vCPU may kick itself: its next HLT returns",
        plan: |_| {
            Ok(Plan {
                vcpus: vec![vec![kick(0, 0), Op::Halt]],
                expect: vec![slot(0, 0, 0)],
                ..Plan::default()
            })
        },
    },
    Case {
        name: "kick for an absent APIC ID",
        expects: "answers 0 and wakes nobody",
        plan: |_| Ok(wakes_nobody(kick(ABSENT_APIC_ID as u64, 0), 0)),
    },
    Case {
        name: "kick with flags",
        expects: "any flags: they are ignored",
        plan: |_| {
            Ok(halt_then(Op::Call {
                nr: KVM_HC_KICK_CPU,
                args: [u64::MAX, 1, 0, 0],
                slot: 0,
            }))
        },
    },
    Case {
        name: "APIC ID with bits above 31",
        expects: "the kick goes by the low 32 bits, and answers 0",
        plan: |host| {
            host.answers()?;
            Ok(halt_then(kick(0xabcd_0000_0001, 0)))
        },
    },
    Case {
        name: "kick for APIC ID 0xff",
        expects: "0xff is everyone: all sleepers wake",
        plan: |_| {
            let sleeper = |ready| vec![Op::Set(READY + ready, 1), Op::Halt];
            // Words of their own: both must be asleep.
            let (one, two) = (10, 11);
            Ok(Plan {
                vcpus: vec![
                    vec![Op::Wait(GO, 1), kick(u64::from(KickCpu::BROADCAST), 0)],
                    sleeper(one),
                    sleeper(two),
                ],
                steps: vec![
                    Step::Await(READY + one, 1),
                    Step::Await(READY + two, 1),
                    Step::Asleep(1),
                    Step::Asleep(2),
                    Step::Set(GO, 1),
                ],
                expect: vec![slot(0, 0, 0)],
                ..Plan::default()
            })
        },
    },
    Case {
        name: "kick from the host",
        expects: "the VMM can end a HLT itself, without a hypercall",
        plan: |_| {
            Ok(Plan {
                vcpus: vec![vec![Op::Set(READY, 1), Op::Halt]],
                steps: vec![Step::Await(READY, 1), Step::Asleep(0), Step::Kick(0)],
                ..Plan::default()
            })
        },
    },
    Case {
        name: "kicks without a reason",
        expects: "spurious wake-ups are allowed: a waiter looks again and sleeps on",
        plan: |_| {
            Ok(Plan {
                vcpus: vec![vec![
                    Op::Set(READY, 1),
                    Op::HaltUntil(GO, 1),
                    Op::Set(DONE, 1),
                ]],
                steps: vec![
                    Step::Await(READY, 1),
                    Step::Asleep(0),
                    Step::Kick(0),
                    Step::Kick(0),
                    Step::Linger,
                    Step::Kick(0),
                    Step::Asleep(0),
                    Step::Set(GO, 1),
                    Step::Kick(0),
                ],
                ..Plan::default()
            })
        },
    },
    Case {
        name: "IF = 1: kick, then interrupt",
        expects: "a kick wakes with interrupts on too, and is none itself",
        plan: |host| {
            interrupts(host)?;
            Ok(Plan {
                vcpus: vec![vec![Op::Set(READY, 1), Op::HaltInterrupts(1)]],
                steps: vec![
                    Step::Await(READY, 1),
                    Step::Asleep(0),
                    Step::Kick(0),
                    Step::Halts(0, 2),
                    Step::Asleep(0),
                    Step::Interrupt(0),
                ],
                expect: vec![
                    Expect {
                        vcpu: 0,
                        what: Trace::Interrupts,
                        is: 1,
                    },
                    Expect {
                        vcpu: 0,
                        what: Trace::Halts,
                        is: 2,
                    },
                ],
                ..Plan::default()
            })
        },
    },
    Case {
        name: "interrupt and kick together",
        expects: "the interrupt is taken, once; the sleeper goes on",
        plan: |host| {
            interrupts(host)?;
            Ok(Plan {
                vcpus: vec![vec![
                    Op::Set(READY, 1),
                    Op::HaltInterrupts(1),
                    Op::Set(DONE, 1),
                    Op::HaltUntil(GO, 1),
                ]],
                steps: vec![
                    Step::Await(READY, 1),
                    Step::Asleep(0),
                    Step::Kick(0),
                    Step::Interrupt(0),
                    Step::Await(DONE, 1),
                    Step::Linger,
                    Step::Set(GO, 1),
                    Step::Kick(0),
                ],
                expect: vec![Expect {
                    vcpu: 0,
                    what: Trace::Interrupts,
                    is: 1,
                }],
                ..Plan::default()
            })
        },
    },
    Case {
        name: "announcement and kick together",
        expects: "neither swallows the other: two HLTs return",
        plan: |host| {
            if host.halt_kick.halt == HaltMode::Kernel {
                return Err(
                    "KVM forgets the kick on any wake-up; who waits for both must look again",
                );
            }
            if host.apics {
                return Err("a vector ends no HLT with interrupts off");
            }
            Ok(Plan {
                vcpus: vec![vec![Op::Set(READY, 1), Op::Wait(GO, 1), Op::Halt, Op::Halt]],
                steps: vec![
                    Step::Await(READY, 1),
                    Step::Kick(0),
                    Step::Interrupt(0),
                    Step::Set(GO, 1),
                ],
                ..Plan::default()
            })
        },
    },
];

/// vCPU 1 halts; as soon as it sleeps, vCPU 0 does `call`, which answers 0 into
/// its slot 0.
pub(super) fn halt_then(call: Op) -> Plan {
    Plan {
        vcpus: vec![
            vec![Op::Wait(GO, 1), call],
            vec![Op::Set(READY, 1), Op::Halt],
        ],
        steps: vec![Step::Await(READY, 1), Step::Asleep(1), Step::Set(GO, 1)],
        expect: vec![slot(0, 0, 0)],
        ..Plan::default()
    }
}

/// vCPU 1 halts; as soon as it sleeps, vCPU 0 does `call`, which answers `answer`
/// into its slot 0 and lets vCPU 1 sleep on, until the host wakes it.
pub(super) fn wakes_nobody(call: Op, answer: u64) -> Plan {
    Plan {
        vcpus: vec![
            vec![
                Op::Wait(GO, 1),
                call,
                Op::Set(KICKED, 1),
                Op::Wait(GO, 2),
                Op::Load(DONE, 1),
                Op::Set(KICKED, 2),
            ],
            vec![Op::Set(READY, 1), Op::Halt, Op::Set(DONE, 1)],
        ],
        steps: vec![
            Step::Await(READY, 1),
            Step::Asleep(1),
            Step::Set(GO, 1),
            Step::Await(KICKED, 1),
            Step::Linger,
            Step::Set(GO, 2),
            Step::Await(KICKED, 2),
            Step::Kick(1),
        ],
        expect: vec![slot(0, 0, answer), slot(0, 1, 0)],
        ..Plan::default()
    }
}

fn interrupts(host: &CaseHost) -> Result<(), &'static str> {
    match host.apics {
        true => Ok(()),
        false => Err(NO_APICS),
    }
}
