//! Random sequences of operations, against a model of the promises that knows
//! nothing of words and bits.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics is a test that fails"
)]

use std::time::Instant;

use proptest::prelude::*;
use pv_lock_host::{
    ApicId, HaltScheduler, KickOutcome, Resumed, SavedScheduler, SavedVcpu, VcpuParker, WakeReason,
};

/// Ids of the vCPUs; the last one is nobody's.
const IDS: [u32; 4] = [0, 300, u32::MAX, 7];
const VCPUS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Op {
    Kick(usize),
    Notify(usize),
    KickAll,
    /// A halt that does not wait, if there is nothing to end it.
    Halt(usize),
    TakeEvent(usize),
    Pause,
    Resume,
    /// Of a vCPU that would not sleep in it.
    WaitResumed(usize),
    Stop,
    /// What a snapshot would hold goes into a new scheduler, which goes on.
    Migrate,
}

#[derive(Clone, Copy, Default, Debug)]
struct Vcpu {
    kick: bool,
    event: bool,
    halted: bool,
}

#[derive(Default, Debug)]
struct Model {
    vcpus: [Vcpu; VCPUS],
    paused: bool,
    stopped: bool,
}

impl Model {
    fn signal(&mut self, who: usize, which: fn(&mut Vcpu) -> &mut bool) -> KickOutcome {
        let held = self.paused || self.stopped;
        let Some(vcpu) = self.vcpus.get_mut(who) else {
            return KickOutcome::NoSuchVcpu;
        };
        let awake = !vcpu.halted || vcpu.kick || vcpu.event || held;
        match (std::mem::replace(which(vcpu), true), awake) {
            (true, _) => KickOutcome::AlreadyLatched,
            (false, true) => KickOutcome::Latched,
            (false, false) => KickOutcome::Woke,
        }
    }

    fn halt(&mut self, who: usize) -> WakeReason {
        let vcpu = &mut self.vcpus[who];
        vcpu.halted = self.stopped || self.paused;
        if self.stopped {
            WakeReason::Stopped
        } else if self.paused {
            WakeReason::Paused
        } else if std::mem::take(&mut vcpu.kick) {
            WakeReason::Kicked
        } else if std::mem::take(&mut vcpu.event) {
            WakeReason::Event
        } else {
            WakeReason::TimedOut
        }
    }
}

fn new() -> (HaltScheduler, Vec<VcpuParker>) {
    let ids: Vec<ApicId> = IDS[..VCPUS].iter().map(|&id| ApicId(id)).collect();
    HaltScheduler::new(&ids).unwrap()
}

fn check(ops: &[Op]) {
    let (mut scheduler, mut parkers) = new();
    let mut model = Model::default();
    for op in ops {
        let kicker = scheduler.kicker();
        match *op {
            Op::Kick(who) => assert_eq!(
                kicker.kick(ApicId(IDS[who])),
                model.signal(who, |vcpu| &mut vcpu.kick)
            ),
            Op::Notify(who) => assert_eq!(
                kicker.notify(ApicId(IDS[who])),
                model.signal(who, |vcpu| &mut vcpu.event)
            ),
            Op::KickAll => {
                let woken = (0..VCPUS)
                    .filter(|&who| model.signal(who, |vcpu| &mut vcpu.kick) == KickOutcome::Woke)
                    .count();
                assert_eq!(kicker.kick_all(), woken);
            }
            Op::Halt(who) => {
                assert_eq!(parkers[who].halt_until(Instant::now()), model.halt(who));
            }
            Op::TakeEvent(who) => assert_eq!(
                parkers[who].take_event(),
                std::mem::take(&mut model.vcpus[who].event)
            ),
            Op::Pause => {
                kicker.pause_all();
                model.paused = true;
            }
            Op::Resume => {
                kicker.resume_all();
                model.paused = false;
            }
            Op::WaitResumed(who) => {
                if !model.paused || model.stopped {
                    let expected = match (model.stopped, model.vcpus[who].halted) {
                        (true, _) => Resumed::Stopped,
                        (_, true) => Resumed::Halted,
                        (_, false) => Resumed::Running,
                    };
                    assert_eq!(parkers[who].wait_resumed(), expected);
                }
            }
            Op::Stop => {
                kicker.stop_all();
                model.stopped = true;
            }
            Op::Migrate if !model.stopped => {
                let saved = SavedScheduler {
                    vcpus: (0..VCPUS)
                        .rev()
                        .map(|who| SavedVcpu {
                            apic_id: ApicId(IDS[who]),
                            halted: model.vcpus[who].halted,
                            kicked: model.vcpus[who].kick,
                            event: model.vcpus[who].event,
                        })
                        .collect(),
                };
                (scheduler, parkers) = new();
                scheduler.restore(&saved).unwrap();
                model.paused = true;
            }
            Op::Migrate => {}
        }
        for (parker, vcpu) in parkers.iter().zip(&model.vcpus) {
            let pending = match (model.stopped, model.paused) {
                (true, _) => Some(WakeReason::Stopped),
                (_, true) => Some(WakeReason::Paused),
                _ => None,
            };
            assert_eq!(
                (parker.pending(), parker.is_halted()),
                (pending, vcpu.halted),
                "{op:?}"
            );
        }
    }
}

proptest! {
    #[test]
    fn any_sequence_is_as_promised(
        ops in proptest::collection::vec(
            prop_oneof![
                6 => (0..VCPUS + 1).prop_map(Op::Kick),
                3 => (0..VCPUS + 1).prop_map(Op::Notify),
                1 => Just(Op::KickAll),
                8 => (0..VCPUS).prop_map(Op::Halt),
                2 => (0..VCPUS).prop_map(Op::TakeEvent),
                3 => Just(Op::Pause),
                3 => Just(Op::Resume),
                3 => (0..VCPUS).prop_map(Op::WaitResumed),
                1 => Just(Op::Migrate),
            ],
            0..80,
        ),
        stop in any::<Option<prop::sample::Index>>(),
    ) {
        let mut ops = ops;
        if let Some(stop) = stop {
            ops.insert(stop.index(ops.len() + 1), Op::Stop);
        }
        check(&ops);
    }
}
