//! The step function against the promises, which are stated here without it:
//! over all bits and events, and then along every path that a vCPU's thread and
//! the others can take.

use std::collections::HashSet;

use super::*;

/// What the vCPU's own thread does.
const OWN: [Event; 11] = [
    Event::Enter,
    Event::Poll,
    Event::Park,
    Event::Expire,
    Event::Hold,
    Event::HoldLook { over: false },
    Event::HoldLook { over: true },
    Event::AwaitResume,
    Event::Acknowledge,
    Event::Leave,
    Event::Detach,
];

/// What others do.
const OTHERS: [Event; 7] = [
    Event::Kick,
    Event::Notify,
    Event::Interrupt,
    Event::Release,
    Event::Pause,
    Event::Resume,
    Event::Stop,
];

fn all_states() -> impl Iterator<Item = State> {
    (0..=State::ALL).map(State)
}

fn everything() -> impl Iterator<Item = (State, Event)> {
    all_states().flat_map(|state| {
        OWN.into_iter()
            .chain(OTHERS)
            .map(move |event| (state, event))
    })
}

/// The bits that an event may set, and those that it may clear.
fn reach(event: Event) -> (u32, u32) {
    use State as S;
    // A halt that ends consumes what it reports.
    let halt = S::HALTED | S::PARKED | S::AWAY | S::HELD | S::KICKED | S::EVENT | S::INTERRUPT;
    match event {
        Event::Enter => (
            0,
            S::AWAY | S::HALTED | S::PARKED | S::HELD | S::QUIET | S::INTERRUPT,
        ),
        Event::Poll | Event::Expire => (S::HALTED, halt),
        Event::Park => (S::HALTED | S::PARKED, halt),
        Event::Hold => (S::HELD | S::PARKED, 0),
        Event::HoldLook { .. } => (0, S::HELD | S::PARKED),
        Event::AwaitResume => (
            S::QUIET | S::PARKED,
            S::QUIET | S::PARKED | S::AWAY | S::HELD,
        ),
        Event::Acknowledge => (0, S::EVENT),
        Event::Leave => (S::AWAY, S::PARKED | S::HELD | S::QUIET),
        Event::Detach => (S::AWAY, S::PARKED | S::HELD | S::QUIET | S::ATTACHED),
        Event::Kick => (S::KICKED, 0),
        Event::Notify => (S::EVENT, 0),
        Event::Interrupt => (S::INTERRUPT, 0),
        Event::Release => (0, S::HELD),
        // A pause ends a hold for good.
        Event::Pause => (S::PAUSE, S::HELD),
        Event::Resume => (0, S::PAUSE),
        Event::Stop => (S::STOP, 0),
    }
}

/// The documented order of reasons to leave a halt, and the bit behind each.
const REASONS: [(u32, WakeReason); 5] = [
    (State::STOP, WakeReason::Stopped),
    (State::PAUSE, WakeReason::Paused),
    (State::INTERRUPT, WakeReason::Interrupted),
    (State::KICKED, WakeReason::Kicked),
    (State::EVENT, WakeReason::Event),
];

/// The first reason, if there is one.
fn reason(state: State) -> Option<WakeReason> {
    let found = REASONS.iter().find(|(bit, _)| state.0 & bit != 0);
    found.map(|(_, reason)| *reason)
}

/// Whether the guest goes on.
fn goes_on(action: Action) -> bool {
    match action {
        Action::Run => true,
        Action::Leave(reason) => matches!(
            reason,
            WakeReason::Kicked | WakeReason::Event | WakeReason::TimedOut
        ),
        _ => false,
    }
}

#[test]
fn an_event_changes_its_own_bits_only() {
    for (state, event) in everything() {
        let (next, _) = step(state, event);
        let (sets, clears) = reach(event);
        let (set, cleared) = (next.0 & !state.0, state.0 & !next.0);
        assert_eq!(set & !sets, 0, "{state:?} {event:?} sets");
        assert_eq!(cleared & !clears, 0, "{state:?} {event:?} clears");
    }
}

/// [`Slot::latch`](crate::slot::Slot) relies on it for kicks and notifications.
#[test]
fn an_event_from_outside_does_the_same_in_every_state() {
    for state in all_states() {
        for event in OTHERS {
            let (next, _) = step(state, event);
            let (sets, clears) = reach(event);
            assert_eq!(next.0, (state.0 | sets) & !clears, "{state:?} {event:?}");
        }
    }
}

/// Bits of later versions are carried along, not lost and not acted on.
#[test]
fn unknown_bits_do_not_matter() {
    for (state, event) in everything() {
        let (next, action) = step(state, event);
        let (strange, same) = step(State(state.0 | !State::ALL), event);
        assert_eq!((strange.0, same), (next.0 | !State::ALL, action));
    }
}

#[test]
fn a_halt_reports_the_first_reason() {
    for state in all_states() {
        for event in [Event::Poll, Event::Park, Event::Expire] {
            let (next, action) = step(state, event);
            let expected = match (reason(state), event) {
                (Some(reason), _) => Action::Leave(reason),
                (None, Event::Expire) => Action::Leave(WakeReason::TimedOut),
                (None, _) => Action::Wait,
            };
            assert_eq!(action, expected, "{state:?} {event:?}");
            // Halted: while it waits, and when it must come out before its time.
            assert_eq!(
                next.has(State::HALTED),
                !goes_on(action),
                "{state:?} {event:?}"
            );
            let parks = action == Action::Wait && event == Event::Park;
            assert_eq!(next.has(State::PARKED), parks, "{state:?} {event:?}");
        }
    }
}

#[test]
fn the_guest_is_entered_unless_it_must_not_run() {
    for state in all_states() {
        let (next, action) = step(state, Event::Enter);
        let expected = match reason(state) {
            Some(WakeReason::Stopped) => Action::Refuse(Interruption::Stopped),
            Some(WakeReason::Paused) => Action::Refuse(Interruption::Paused),
            Some(WakeReason::Interrupted) => Action::Refuse(Interruption::Interrupted),
            _ => Action::Run,
        };
        assert_eq!(action, expected, "{state:?}");
        if action == Action::Run {
            let rest = State::AWAY | State::HALTED | State::PARKED | State::HELD | State::QUIET;
            assert!(!next.has(rest), "{state:?}");
        }
        // What may stay latched does: a kick is for the next halt.
        let latched = State::KICKED | State::EVENT;
        assert_eq!(next.0 & latched, state.0 & latched, "{state:?}");
    }
}

#[test]
fn only_what_is_reported_is_consumed() {
    for (state, event) in everything() {
        let (next, action) = step(state, event);
        let consumed = |bit| state.has(bit) && !next.has(bit);
        if consumed(State::KICKED) {
            assert_eq!(action, Action::Leave(WakeReason::Kicked));
        }
        if consumed(State::EVENT) && event != Event::Acknowledge {
            assert_eq!(action, Action::Leave(WakeReason::Event));
        }
        if consumed(State::INTERRUPT) {
            let said = [
                Action::Leave(WakeReason::Interrupted),
                Action::Refuse(Interruption::Interrupted),
            ];
            assert!(said.contains(&action), "{state:?} {event:?}: {action:?}");
        }
    }
}

/// KVM clears `pv_unhalted` on all transitions to RUNNABLE.
#[test]
fn no_kick_is_latched_when_a_halted_guest_goes_on() {
    for (state, event) in everything() {
        if let (next, action @ Action::Leave(_)) = step(state, event)
            && goes_on(action)
        {
            let left = State::KICKED | State::HALTED | State::PARKED | State::AWAY;
            assert!(!next.has(left), "{state:?} {event:?}");
        }
    }
}

/// What ends a hold: its turn, a release, an event, and whatever refuses an
/// entry; not a kick, which is for a vCPU that halts.
#[test]
fn a_hold_ends_for_these_reasons_only() {
    let entered =
        |state: &State| matches!(step(*state, Event::Enter), (same, Action::Run) if same == *state);
    let ends = State::EVENT | State::INTERRUPT | State::PAUSE | State::STOP;
    // An end may come between the entry and the hold.
    let states = all_states().filter(|state| entered(&State(state.0 & !ends)));
    for state in states {
        let (next, action) = step(state, Event::Hold);
        let held = action == Action::Wait;
        assert_eq!(held, !state.has(ends), "{state:?}");
        if !held {
            assert_eq!((next, action), (state, Action::Run), "{state:?}");
            continue;
        }
        for after in [next, State(next.0 | State::KICKED)] {
            let look = step(after, Event::HoldLook { over: false });
            assert_eq!(look, (after, Action::Wait), "{state:?}");
        }
        let over = step(next, Event::HoldLook { over: true });
        let free = State(next.0 & !(State::HELD | State::PARKED));
        assert_eq!(over, (free, Action::Run), "{state:?}");
        for event in [
            Event::Notify,
            Event::Interrupt,
            Event::Pause,
            Event::Stop,
            Event::Release,
        ] {
            let (ended, signal) = step(next, event);
            let wakes = matches!(signal, Action::Signal { wake: true, .. });
            assert!(wakes, "{state:?} {event:?}");
            let (free, action) = step(ended, Event::HoldLook { over: false });
            assert_eq!(action, Action::Run, "{state:?} {event:?}");
            assert!(!free.has(State::HELD | State::PARKED));
        }
    }
}

/// A second kick is one with the first; the first of several reasons to wake up
/// is the one that woke.
#[test]
fn a_kick_says_what_it_came_upon() {
    for state in all_states() {
        for (event, latch) in [
            (Event::Kick, State::KICKED),
            (Event::Notify, State::EVENT),
            (Event::Interrupt, State::INTERRUPT),
        ] {
            let halted = state.has(State::HALTED) && !state.has(State::AWAY | State::QUIET);
            let expected = match () {
                () if state.has(latch) => KickOutcome::AlreadyLatched,
                () if halted && reason(state).is_none() => KickOutcome::Woke,
                () => KickOutcome::Latched,
            };
            match step(state, event).1 {
                Action::Signal { outcome, .. } => assert_eq!(outcome, expected, "{state:?}"),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_restored_vcpu_is_as_it_was_saved_and_where_it_is() {
    let saved = State::HALTED | State::KICKED | State::EVENT;
    for state in all_states() {
        for [halted, kicked, event] in [false, true]
            .into_iter()
            .flat_map(|a| [false, true].map(|b| (a, b)))
            .flat_map(|(a, b)| [false, true].map(|c| [a, b, c]))
        {
            let restored = state.restored(halted, kicked, event);
            assert_eq!(restored.has(State::HALTED), halted);
            assert_eq!(restored.has(State::KICKED), kicked);
            assert_eq!(restored.has(State::EVENT), event);
            assert_eq!(restored.0 & !saved, state.0 & !saved);
        }
        let reset = state.reset();
        assert!(
            !reset.has(saved | State::REFUSED | State::HELD),
            "{state:?}"
        );
        let place = State::AWAY | State::ATTACHED;
        assert_eq!(reset.0 & place, state.0 & place, "{state:?}");
    }
}

/// Where a vCPU's thread is: what a path knows beside the word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Thread {
    /// Between two calls; its guest may run if the last one said so.
    Awake {
        in_guest: bool,
    },
    /// It sleeps in a halt, a hold or a pause.
    Halts,
    Held,
    Paused,
    /// There is none.
    Gone,
}

/// One vCPU along a path.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Vcpu {
    state: u32,
    thread: Thread,
    /// It has not begun, or has said that it leaves, and has not come back.
    away: bool,
    /// It waited for the end of a pause, was told that the VM is stopped, and has
    /// not left yet.
    stopped_in_pause: bool,
    /// A wake-up that was asked for and has not been done.
    owed: bool,
}

impl Vcpu {
    /// What a sleeper asks the word when it is awake for a moment.
    fn look(self) -> Option<Event> {
        match self.thread {
            Thread::Halts => Some(Event::Park),
            Thread::Held => Some(Event::HoldLook { over: false }),
            Thread::Paused => Some(Event::AwaitResume),
            Thread::Awake { .. } | Thread::Gone => None,
        }
    }

    fn sleeps_on(self) -> bool {
        self.look()
            .is_some_and(|look| step(State(self.state), look).1 == Action::Wait)
    }

    fn paused(self) -> bool {
        self.state & State::PAUSE != 0
    }

    fn stopped(self) -> bool {
        self.state & State::STOP != 0
    }

    /// What its thread may do next.
    fn own_events(self) -> Vec<Event> {
        let mut events = Vec::from_iter(self.look());
        match self.thread {
            Thread::Awake { in_guest } => {
                events.extend([
                    Event::Enter,
                    Event::Poll,
                    Event::Park,
                    Event::AwaitResume,
                    Event::Acknowledge,
                    Event::Leave,
                    Event::Detach,
                ]);
                // Held is one that has just been let enter.
                events.extend(in_guest.then_some(Event::Hold));
            }
            Thread::Halts => events.push(Event::Expire),
            Thread::Held => events.push(Event::HoldLook { over: true }),
            Thread::Paused | Thread::Gone => {}
        }
        events
    }

    fn own(self, event: Event) -> (Self, Action) {
        let (State(state), action) = step(State(self.state), event);
        let waits = match event {
            Event::Park => Thread::Halts,
            Event::Hold | Event::HoldLook { .. } => Thread::Held,
            Event::AwaitResume => Thread::Paused,
            // It polls, awake.
            _ => Thread::Awake { in_guest: false },
        };
        let thread = match action {
            _ if event == Event::Detach => Thread::Gone,
            Action::Wait => waits,
            _ => Thread::Awake {
                in_guest: goes_on(action),
            },
        };
        let comes_back = match action {
            Action::Wait => true,
            Action::Resume(resumed) => resumed != Resumed::Stopped,
            _ => goes_on(action),
        };
        let leaves = matches!(event, Event::Leave | Event::Detach);
        let told = action == Action::Resume(Resumed::Stopped);
        let vcpu = Self {
            state,
            thread,
            away: leaves || (self.away && !comes_back),
            stopped_in_pause: !leaves
                && (self.stopped_in_pause || (told && self.thread == Thread::Paused)),
            // It is awake now.
            owed: false,
        };
        (vcpu, action)
    }

    fn check(self) {
        let state = State(self.state);
        let asleep = self.look().is_some();
        assert!(
            !asleep || self.sleeps_on() || self.owed,
            "asleep with a reason to leave, and nobody wakes it: {self:?}"
        );
        let wants = match self.thread {
            _ if self.away => Demand::Nothing,
            Thread::Held if self.sleeps_on() => Demand::Held,
            _ if self.sleeps_on() => Demand::Nothing,
            _ => Demand::Run,
        };
        assert_eq!(state.demand(), wants, "{self:?}");
        let nowhere = self.away || self.stopped_in_pause;
        let rests = (self.paused() || self.stopped())
            && (nowhere || matches!(self.thread, Thread::Paused | Thread::Gone));
        assert_eq!(state.at_rest(), rests, "{self:?}");
    }
}

#[test]
fn on_every_path_sleepers_are_woken_and_the_counts_are_true() {
    let start = Vcpu {
        state: State::NEW.0,
        thread: Thread::Awake { in_guest: false },
        away: true,
        stopped_in_pause: false,
        owed: false,
    };
    let mut seen = HashSet::from([start]);
    let mut todo = vec![start];
    while let Some(vcpu) = todo.pop() {
        vcpu.check();
        let mut next = Vec::new();
        for event in vcpu.own_events() {
            let (after, action) = vcpu.own(event);
            // After a hold the word is asked again whether the guest may run.
            assert!(
                !((vcpu.paused() || vcpu.stopped())
                    && goes_on(action)
                    && !matches!(event, Event::Hold | Event::HoldLook { .. })),
                "a paused or stopped guest runs: {vcpu:?} {event:?}"
            );
            next.push((event, after));
        }
        for event in OTHERS {
            let (State(state), action) = step(State(vcpu.state), event);
            let Action::Signal { wake, .. } = action else {
                panic!("{event:?}: {action:?}");
            };
            let after = Vcpu {
                state,
                owed: vcpu.owed || wake,
                ..vcpu
            };
            let ends_sleep = vcpu.sleeps_on() && !after.sleeps_on();
            assert_eq!(wake, ends_sleep, "{vcpu:?} {event:?}");
            next.push((event, after));
        }
        if vcpu.thread == Thread::Gone {
            next.push((
                Event::Enter,
                Vcpu {
                    state: vcpu.state | State::ATTACHED,
                    thread: Thread::Awake { in_guest: false },
                    ..vcpu
                },
            ));
        }
        for (event, after) in next {
            // A VM at rest stays so until it is resumed, if it is not stopped.
            let stays = event != Event::Resume || vcpu.stopped();
            if stays && State(vcpu.state).at_rest() {
                assert!(State(after.state).at_rest(), "{vcpu:?} {event:?}");
            }
            if seen.insert(after) {
                todo.push(after);
            }
        }
    }
    // Enough to have been everywhere: each thread's place with all six bits that
    // others set.
    assert!(seen.len() > 5 << 6, "{}", seen.len());
}
