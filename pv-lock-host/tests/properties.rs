//! Random sequences of operations, against a model of the promises that knows
//! nothing of words and bits.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that panics is a test that fails"
)]

use std::mem::take;
use std::time::Instant;

use proptest::prelude::*;
use pv_lock_host::{
    ApicId, AttachError, HaltScheduler, Interruption, KickOutcome, Resumed, SavedError,
    SavedScheduler, SavedVcpu, VcpuParker, WakeReason,
};

/// Ids of the vCPUs; the last one is nobody's.
const IDS: [u32; 4] = [0, 300, u32::MAX, 7];
const VCPUS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Op {
    Kick(usize),
    /// The first one's guest kicks the second.
    KickByGuest(usize, usize),
    Notify(usize),
    Interrupt(usize),
    KickAll,
    Enter(usize),
    /// A halt that does not wait, if there is nothing to end it.
    Halt(usize),
    TakeEvent(usize),
    Leave(usize),
    /// Its parker is dropped.
    Detach(usize),
    Attach(usize),
    Pause,
    Resume,
    /// Of a vCPU that would not sleep in it.
    WaitResumed(usize),
    Stop,
    Reset,
    /// What a snapshot would hold goes into a new scheduler, which goes on.
    Migrate,
}

#[derive(Clone, Copy, Debug)]
struct Vcpu {
    kick: bool,
    event: bool,
    interrupt: bool,
    halted: bool,
    /// It has not begun, or has left, and has not come back.
    away: bool,
    attached: bool,
}

const NEW: Vcpu = Vcpu {
    kick: false,
    event: false,
    interrupt: false,
    halted: false,
    away: true,
    attached: true,
};

#[derive(Debug)]
struct Model {
    vcpus: [Vcpu; VCPUS],
    paused: bool,
    stopped: bool,
}

impl Model {
    fn signal(&mut self, who: usize, which: fn(&mut Vcpu) -> &mut bool) -> KickOutcome {
        let refused = self.paused || self.stopped;
        let Some(vcpu) = self.vcpus.get_mut(who) else {
            return KickOutcome::NoSuchVcpu;
        };
        let woken = vcpu.kick || vcpu.event || vcpu.interrupt || refused;
        let asleep = vcpu.halted && !vcpu.away && !woken;
        match (std::mem::replace(which(vcpu), true), asleep) {
            (true, _) => KickOutcome::AlreadyLatched,
            (false, false) => KickOutcome::Latched,
            (false, true) => KickOutcome::Woke,
        }
    }

    /// Why `who` must not run.
    fn pending(&self, who: usize) -> Option<Interruption> {
        match () {
            () if self.stopped => Some(Interruption::Stopped),
            () if self.paused => Some(Interruption::Paused),
            () if self.vcpus[who].interrupt => Some(Interruption::Interrupted),
            () => None,
        }
    }

    fn enter(&mut self, who: usize) -> Result<(), Interruption> {
        match self.pending(who) {
            Some(why) => {
                self.vcpus[who].interrupt &= why != Interruption::Interrupted;
                Err(why)
            }
            None => {
                (self.vcpus[who].halted, self.vcpus[who].away) = (false, false);
                Ok(())
            }
        }
    }

    fn halt(&mut self, who: usize) -> WakeReason {
        if let Err(why) = self.enter(who) {
            self.vcpus[who].halted = true;
            why.into()
        } else if take(&mut self.vcpus[who].kick) {
            WakeReason::Kicked
        } else if take(&mut self.vcpus[who].event) {
            WakeReason::Event
        } else {
            WakeReason::TimedOut
        }
    }

    fn at_rest(&self, who: usize) -> bool {
        (self.paused || self.stopped) && self.vcpus[who].away
    }

    fn saved(&self) -> Result<SavedScheduler, SavedError> {
        if let Some(who) = (0..VCPUS).find(|&who| !self.at_rest(who)) {
            return Err(SavedError::NotPaused(ApicId(IDS[who])));
        }
        Ok(SavedScheduler {
            vcpus: self.content(),
        })
    }

    fn content(&self) -> Vec<SavedVcpu> {
        let vcpus = self.vcpus.iter().zip(IDS);
        let saved = vcpus.map(|(vcpu, id)| SavedVcpu {
            apic_id: ApicId(id),
            halted: vcpu.halted,
            kicked: vcpu.kick,
            event: vcpu.event,
        });
        saved.collect()
    }
}

fn new() -> (HaltScheduler, Vec<Option<VcpuParker>>) {
    let ids: Vec<ApicId> = IDS[..VCPUS].iter().map(|&id| ApicId(id)).collect();
    let (scheduler, parkers) = HaltScheduler::new(&ids).unwrap();
    (scheduler, parkers.into_iter().map(Some).collect())
}

/// What a vCPU's own thread does, if it has one.
fn own(op: Op, parker: &mut VcpuParker, model: &mut Model) {
    match op {
        Op::KickByGuest(_, to) => assert_eq!(
            parker.kick_by_guest(ApicId(IDS[to])),
            model.signal(to, |vcpu| &mut vcpu.kick)
        ),
        Op::Enter(who) => assert_eq!(parker.enter(), model.enter(who)),
        Op::Halt(who) => assert_eq!(parker.halt_until(Instant::now()), model.halt(who)),
        Op::TakeEvent(who) => {
            assert_eq!(parker.take_event(), take(&mut model.vcpus[who].event));
        }
        Op::Leave(who) => {
            parker.leave();
            model.vcpus[who].away = true;
        }
        Op::WaitResumed(who) if !model.paused || model.stopped => {
            let expected = match (model.stopped, model.vcpus[who].halted) {
                (true, _) => Resumed::Stopped,
                (_, true) => Resumed::Halted,
                (_, false) => Resumed::Running,
            };
            assert_eq!(parker.wait_resumed(), expected);
            // It may not come back into a VM that is stopped.
            model.vcpus[who].away &= model.stopped;
        }
        _ => {}
    }
}

fn check(ops: &[Op]) {
    let (mut scheduler, mut parkers) = new();
    let mut model = Model {
        vcpus: [NEW; VCPUS],
        paused: false,
        stopped: false,
    };
    for &op in ops {
        let kicker = scheduler.kicker();
        match op {
            Op::Kick(who) => assert_eq!(
                kicker.kick_by_host(ApicId(IDS[who])),
                model.signal(who, |vcpu| &mut vcpu.kick)
            ),
            Op::Notify(who) => assert_eq!(
                kicker.notify(ApicId(IDS[who])),
                model.signal(who, |vcpu| &mut vcpu.event)
            ),
            Op::Interrupt(who) => assert_eq!(
                kicker.interrupt(ApicId(IDS[who])),
                model.signal(who, |vcpu| &mut vcpu.interrupt)
            ),
            Op::KickAll => {
                let woken = (0..VCPUS)
                    .filter(|&who| model.signal(who, |vcpu| &mut vcpu.kick) == KickOutcome::Woke)
                    .count();
                assert_eq!(kicker.kick_all(), woken);
            }
            Op::Enter(who)
            | Op::KickByGuest(who, _)
            | Op::Halt(who)
            | Op::TakeEvent(who)
            | Op::Leave(who)
            | Op::WaitResumed(who) => {
                if let Some(parker) = &mut parkers[who] {
                    own(op, parker, &mut model);
                }
            }
            Op::Detach(who) => {
                parkers[who] = None;
                (model.vcpus[who].attached, model.vcpus[who].away) = (false, true);
            }
            Op::Attach(who) => match scheduler.attach(ApicId(IDS[who])) {
                Ok(parker) => {
                    assert!(!std::mem::replace(&mut model.vcpus[who].attached, true));
                    parkers[who] = Some(parker);
                }
                Err(why) if who < VCPUS => {
                    assert!(model.vcpus[who].attached);
                    assert_eq!(why, AttachError::Attached(ApicId(IDS[who])));
                }
                Err(why) => assert_eq!(why, AttachError::NoSuchVcpu(ApicId(IDS[who]))),
            },
            Op::Pause => {
                kicker.pause_all();
                model.paused = true;
            }
            Op::Resume => {
                kicker.resume_all();
                model.paused = false;
            }
            Op::Stop => {
                kicker.stop_all();
                model.stopped = true;
            }
            Op::Reset => {
                let in_the_way = (0..VCPUS).find(|&who| !model.stopped || !model.vcpus[who].away);
                let expected = in_the_way.map(|who| SavedError::NotPaused(ApicId(IDS[who])));
                assert_eq!(scheduler.reset().err(), expected);
                if in_the_way.is_none() {
                    for vcpu in &mut model.vcpus {
                        let attached = vcpu.attached;
                        *vcpu = Vcpu { attached, ..NEW };
                    }
                    (model.paused, model.stopped) = (false, false);
                }
            }
            Op::Migrate if !model.stopped => {
                let mut saved = SavedScheduler {
                    vcpus: model.content(),
                };
                saved.vcpus.reverse(); // in any order
                (scheduler, parkers) = new();
                scheduler.restore(&saved).unwrap();
                model.paused = true;
                for vcpu in &mut model.vcpus {
                    (vcpu.interrupt, vcpu.away, vcpu.attached) = (false, true, true);
                }
            }
            Op::Migrate => {}
        }
        for (who, parker) in parkers.iter().enumerate() {
            if let Some(parker) = parker {
                let halted = model.vcpus[who].halted;
                let found = (parker.pending(), parker.is_halted());
                assert_eq!(found, (model.pending(who), halted), "{op:?}");
            }
        }
        assert_eq!(scheduler.save(), model.saved(), "{op:?}");
        assert_eq!(scheduler.is_quiescent(), model.saved().is_ok(), "{op:?}");
    }
}

proptest! {
    #[test]
    fn any_sequence_is_as_promised(
        ops in proptest::collection::vec(
            prop_oneof![
                6 => (0..VCPUS + 1).prop_map(Op::Kick),
                4 => (0..VCPUS, 0..VCPUS + 1).prop_map(|(from, to)| Op::KickByGuest(from, to)),
                3 => (0..VCPUS + 1).prop_map(Op::Notify),
                2 => (0..VCPUS + 1).prop_map(Op::Interrupt),
                1 => Just(Op::KickAll),
                6 => (0..VCPUS).prop_map(Op::Enter),
                8 => (0..VCPUS).prop_map(Op::Halt),
                2 => (0..VCPUS).prop_map(Op::TakeEvent),
                2 => (0..VCPUS).prop_map(Op::Leave),
                1 => (0..VCPUS).prop_map(Op::Detach),
                2 => (0..VCPUS + 1).prop_map(Op::Attach),
                3 => Just(Op::Pause),
                3 => Just(Op::Resume),
                3 => (0..VCPUS).prop_map(Op::WaitResumed),
                1 => Just(Op::Reset),
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
