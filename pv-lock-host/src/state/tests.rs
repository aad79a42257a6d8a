//! The step function against a model written from the promises, not from it.

use super::*;

/// A vCPU as its documentation describes it: named truths, no bits, and no
/// notion of how they are stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Model {
    halted: bool,
    asleep: bool,
    kick: bool,
    event: bool,
    paused: bool,
    stopped: bool,
    gone: bool,
}

fn model(bits: u32) -> Model {
    let bit = |n: u32| (bits >> n) % 2 == 1;
    Model {
        halted: bit(0),
        asleep: bit(1),
        kick: bit(2),
        event: bit(3),
        paused: bit(4),
        stopped: bit(5),
        gone: bit(6),
    }
}

const EVENTS: [Event; 11] = [
    Event::Poll,
    Event::Park,
    Event::Expire,
    Event::AwaitResume,
    Event::Acknowledge,
    Event::Detach,
    Event::Kick,
    Event::Notify,
    Event::Pause,
    Event::Resume,
    Event::Stop,
];

impl Model {
    /// HLT, looked at once; what to do if there is no reason to go on is the
    /// caller's.
    fn halt(&mut self) -> Option<WakeReason> {
        self.halted = true;
        let reason = match () {
            () if self.stopped => WakeReason::Stopped,
            () if self.paused => WakeReason::Paused,
            () if self.kick => WakeReason::Kicked,
            () if self.event => WakeReason::Event,
            () => return None,
        };
        match reason {
            WakeReason::Kicked => (self.kick, self.halted) = (false, false),
            WakeReason::Event => (self.event, self.halted) = (false, false),
            _ => {}
        }
        self.asleep = false;
        Some(reason)
    }

    fn step(mut self, event: Event) -> (Self, Action) {
        let was = self;
        // Is someone already responsible for the wake-up of a sleeper?
        let being_woken = was.kick || was.event || was.paused || was.stopped;
        let action = match event {
            Event::Poll => match self.halt() {
                Some(reason) => Action::Leave(reason),
                None => {
                    self.asleep = false;
                    Action::Wait
                }
            },
            Event::Park => match self.halt() {
                Some(reason) => Action::Leave(reason),
                None => {
                    self.asleep = true;
                    Action::Wait
                }
            },
            Event::Expire => Action::Leave(self.halt().unwrap_or_else(|| {
                (self.halted, self.asleep) = (false, false);
                WakeReason::TimedOut
            })),
            Event::AwaitResume => {
                self.asleep = was.paused && !was.stopped;
                match (was.stopped, was.paused, was.halted) {
                    (true, _, _) => Action::Resume(Resumed::Stopped),
                    (_, true, _) => Action::Wait,
                    (_, _, true) => Action::Resume(Resumed::Halted),
                    (_, _, false) => Action::Resume(Resumed::Running),
                }
            }
            Event::Acknowledge => {
                self.event = false;
                Action::Nothing
            }
            Event::Detach => {
                (self.gone, self.asleep) = (true, false);
                Action::Nothing
            }
            Event::Kick | Event::Notify => {
                let latch = match event {
                    Event::Kick => &mut self.kick,
                    _ => &mut self.event,
                };
                let again = std::mem::replace(latch, true);
                let outcome = match () {
                    () if again => KickOutcome::AlreadyLatched,
                    () if was.halted && !being_woken => KickOutcome::Woke,
                    () => KickOutcome::Latched,
                };
                let wake = outcome == KickOutcome::Woke && was.asleep;
                Action::Signal { outcome, wake }
            }
            Event::Pause => {
                self.paused = true;
                signal_all(was.asleep && !being_woken)
            }
            Event::Resume => {
                self.paused = false;
                signal_all(was.asleep && was.paused)
            }
            Event::Stop => {
                self.stopped = true;
                signal_all(was.asleep && !was.stopped)
            }
        };
        (self, action)
    }
}

fn signal_all(wake: bool) -> Action {
    let outcome = if wake {
        KickOutcome::Woke
    } else {
        KickOutcome::Latched
    };
    Action::Signal { outcome, wake }
}

fn all_states() -> impl Iterator<Item = State> {
    (0..=State::ALL).map(State)
}

#[test]
fn every_state_and_event_is_as_in_the_model() {
    for state in all_states() {
        for event in EVENTS {
            let (next, action) = step(state, event);
            let expected = model(state.0).step(event);
            assert_eq!((model(next.0), action), expected, "{state:?} {event:?}");
            assert_eq!(next.0 & !State::ALL, 0, "{state:?} {event:?}");
        }
    }
}

/// Unknown bits are carried along, not lost and not acted on.
#[test]
fn unknown_bits_do_not_matter() {
    for state in all_states() {
        for event in EVENTS {
            let (next, action) = step(state, event);
            let (strange, same) = step(State(state.0 | !State::ALL), event);
            assert_eq!((strange.0, same), (next.0 | !State::ALL, action));
        }
    }
}

/// [`Slot::latch`](crate::slot::Slot) relies on it.
#[test]
fn kick_and_notify_only_set_their_bit() {
    for state in all_states() {
        assert_eq!(step(state, Event::Kick).0.0, state.0 | State::KICKED);
        assert_eq!(step(state, Event::Notify).0.0, state.0 | State::EVENT);
    }
}

/// No event of the owner's consumes a latch but by reporting it.
#[test]
fn only_what_is_reported_is_consumed() {
    for state in all_states() {
        for event in EVENTS {
            let (next, action) = step(state, event);
            if state.has(State::KICKED) && !next.has(State::KICKED) {
                assert_eq!(
                    action,
                    Action::Leave(WakeReason::Kicked),
                    "{state:?} {event:?}"
                );
            }
            if state.has(State::EVENT) && !next.has(State::EVENT) {
                let reported = action == Action::Leave(WakeReason::Event);
                assert!(
                    reported || event == Event::Acknowledge,
                    "{state:?} {event:?}"
                );
            }
        }
    }
}

/// Leaving for the guest always clears the kick: KVM clears `pv_unhalted` on
/// all transitions to RUNNABLE.
#[test]
fn no_kick_is_latched_when_the_guest_goes_on() {
    for state in all_states() {
        for event in [Event::Poll, Event::Park, Event::Expire] {
            if let (next, Action::Leave(reason)) = step(state, event)
                && !matches!(reason, WakeReason::Paused | WakeReason::Stopped)
            {
                assert!(!next.has(State::KICKED | State::HALTED | State::PARKED));
            }
        }
    }
}

/// One sleeper and the wake-ups it is owed, through every sequence of events:
/// whenever it sleeps (the word is as it was when it began to) although the
/// word gives it a reason to leave, a wake-up is on its way.
#[test]
fn no_sleeper_is_left_behind() {
    #[derive(Clone, Copy, PartialEq, Eq, Hash)]
    struct Sleeper {
        state: u32,
        /// In a halt, or in a pause.
        in_halt: bool,
        /// A futex wake that was asked for and has not been done.
        owed: bool,
    }
    let others = [
        Event::Kick,
        Event::Notify,
        Event::Pause,
        Event::Resume,
        Event::Stop,
    ];
    let mut seen = std::collections::HashSet::new();
    let mut todo: Vec<Sleeper> = all_states()
        .filter(|state| !state.has(State::DETACHED))
        .flat_map(|state| [(state, Event::Park), (state, Event::AwaitResume)])
        .filter_map(|(state, event)| match step(state, event) {
            (State(state), Action::Wait) => Some(Sleeper {
                state,
                in_halt: event == Event::Park,
                owed: false,
            }),
            _ => None,
        })
        .collect();
    assert!(!todo.is_empty());
    while let Some(sleeper) = todo.pop() {
        if !seen.insert(sleeper) {
            continue;
        }
        let state = State(sleeper.state);
        let owner = if sleeper.in_halt {
            Event::Park
        } else {
            Event::AwaitResume
        };
        let (after, action) = step(state, owner);
        if action == Action::Wait {
            // Woken for nothing, it sleeps again, and owes nobody anything.
            let again = Sleeper {
                state: after.0,
                owed: false,
                ..sleeper
            };
            assert_eq!(after, state);
            todo.push(again);
        } else {
            assert!(sleeper.owed, "asleep with a reason to leave: {state:?}");
        }
        for event in others {
            if let (next, Action::Signal { wake, .. }) = step(state, event) {
                todo.push(Sleeper {
                    state: next.0,
                    in_halt: sleeper.in_halt,
                    owed: sleeper.owed || wake,
                });
            }
        }
    }
}

#[test]
fn idle_is_asleep_with_no_reason_to_leave() {
    for state in all_states() {
        let m = model(state.0);
        let sleeps_on = m.asleep && !m.stopped && (m.paused || (!m.kick && !m.event));
        assert_eq!(state.idle(), m.gone || sleeps_on, "{state:?}");
        assert_eq!(
            state.quiescent(),
            m.gone || (m.asleep && m.paused),
            "{state:?}"
        );
    }
}
