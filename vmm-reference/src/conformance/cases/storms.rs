//! Many kicks: spurious wake-ups are allowed, a lost one never. A waiter looks
//! at its word and halts, which is not atomic; a kick between the two must end
//! the HLT. One that is lost shows as a vCPU that does not come to its end.

use super::{TURN, kick};
use crate::conformance::case::{Case, Plan, Step};
use crate::payload::script::Op;

/// Enough for every order of look, HLT, write and kick to come up; few enough
/// for a host that emulates its guests.
const ROUNDS: u64 = 200;

const PING: u64 = TURN;
const PONG: u64 = TURN + 1;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "200 hand-overs, none lost",
        expects: "two vCPUs hand a turn to and fro, each halting for its turn",
        plan: |_| Ok(ping_pong()),
    },
    Case {
        name: "200 hand-overs, pausing",
        expects: "the same while the VM is paused and resumed all the time",
        plan: |_| {
            Ok(Plan {
                steps: vec![Step::PauseUntil(PONG, ROUNDS)],
                ..ping_pong()
            })
        },
    },
    Case {
        name: "200 rounds, three kickers",
        expects: "three vCPUs kick a fourth at once: it misses none of them",
        plan: |_| {
            let word = |kicker: u64| TURN + kicker;
            let all = TURN + 4;
            let kicker = |id: u64| {
                vec![
                    Op::Set(word(id), 1),
                    kick(0, 0),
                    Op::HaltUntil(all, 1),
                    Op::Loop(ROUNDS),
                ]
            };
            Ok(Plan {
                vcpus: vec![
                    vec![
                        Op::HaltUntil(word(1), 1),
                        Op::HaltUntil(word(2), 1),
                        Op::HaltUntil(word(3), 1),
                        Op::Set(all, 1),
                        kick(1, 0),
                        kick(2, 0),
                        kick(3, 0),
                        Op::Loop(ROUNDS),
                    ],
                    kicker(1),
                    kicker(2),
                    kicker(3),
                ],
                ..Plan::default()
            })
        },
    },
];

fn ping_pong() -> Plan {
    Plan {
        vcpus: vec![
            vec![
                Op::Set(PING, 1),
                kick(1, 0),
                Op::HaltUntil(PONG, 1),
                Op::Loop(ROUNDS),
            ],
            vec![
                Op::HaltUntil(PING, 1),
                Op::Set(PONG, 1),
                kick(0, 0),
                Op::Loop(ROUNDS),
            ],
        ],
        ..Plan::default()
    }
}
