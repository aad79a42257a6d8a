//! One vCPU's word, alone in its cache lines.

use std::sync::OnceLock;
use std::time::Instant;

use crate::apic_id::ApicId;
use crate::counters::{HaltCounters, KickCounters};
use crate::outcome::KickOutcome;
use crate::state::{Action, Event, State, step};
use crate::sync::{Futex, FutexWait, Ordering};

/// A vCPU as the kickers see it. 128 bytes: x86 fetches lines in pairs, so a
/// smaller one would have two vCPUs slow each other down.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Slot {
    futex: Futex,
    apic_id: ApicId,
    pub(crate) kicks: KickCounters,
    /// Made by the owner at its first halt, if halts are counted.
    pub(crate) halts: OnceLock<Box<HaltCounters>>,
}

#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(size_of::<Slot>() == 128);

/// What a signal (kick, notification, pause, resume, stop) came upon.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signalled {
    pub(crate) before: State,
    pub(crate) after: State,
    pub(crate) outcome: KickOutcome,
    /// The owner sleeps, and the caller is the one who must wake it.
    pub(crate) wake: bool,
}

impl Slot {
    pub(crate) fn new(apic_id: ApicId) -> Self {
        Self {
            futex: Futex::new(State::RUNNING.0),
            apic_id,
            kicks: KickCounters::new(),
            halts: OnceLock::new(),
        }
    }

    pub(crate) const fn apic_id(&self) -> ApicId {
        self.apic_id
    }

    /// A glance, for decisions that a later [`Slot::apply`] confirms.
    #[inline]
    pub(crate) fn peek(&self) -> State {
        // Relaxed: nothing is read on the strength of this.
        State(self.futex.word().load(Ordering::Relaxed))
    }

    /// Changes the word by `next`; gives the states around the change and what
    /// else `next` said.
    #[inline]
    pub(crate) fn update<R>(&self, next: impl Fn(State) -> (State, R)) -> (State, State, R) {
        self.update_from(self.peek(), next)
    }

    /// [`Slot::update`], with a guess at the word in place of a look at it.
    #[inline]
    fn update_from<R>(
        &self,
        guess: State,
        next: impl Fn(State) -> (State, R),
    ) -> (State, State, R) {
        let mut before = guess;
        loop {
            let (after, result) = next(before);
            // AcqRel. Acquire: partner of the Release in every other's RMW on
            // this word, so what a kicker wrote before its kick is seen by the
            // vCPU that leaves its halt for it. Release: what the VMM wrote
            // before a pause or stop is seen by the owner, and what the owner
            // wrote before it slept by whoever finds it asleep.
            match self.futex.word().compare_exchange_weak(
                before.0,
                after.0,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return (before, after, result),
                Err(now) => before = State(now),
            }
        }
    }

    /// An event of the owner's.
    #[inline]
    pub(crate) fn apply(&self, event: Event) -> (State, State, Action) {
        self.update(|state| step(state, event))
    }

    /// An event of the owner's, right after a sleep in `asleep`: most likely a
    /// kick came, and the word is taken over from the kicker's cache by one
    /// exchange, not by a load and an exchange.
    #[inline]
    pub(crate) fn apply_awake(&self, event: Event, asleep: State) -> (State, State, Action) {
        let kicked = State(asleep.0 | State::KICKED);
        self.update_from(kicked, |state| step(state, event))
    }

    /// An event from outside, other than the two below.
    pub(crate) fn signal(&self, event: Event) -> Signalled {
        let (before, after, action) = self.apply(event);
        Signalled::new(before, after, action)
    }

    #[inline]
    pub(crate) fn kick(&self) -> Signalled {
        self.latch(Event::Kick, State::KICKED)
    }

    #[inline]
    pub(crate) fn notify(&self) -> Signalled {
        self.latch(Event::Notify, State::EVENT)
    }

    /// A kick or a notification only sets its bit, whatever the state: one
    /// `fetch_or`, no loop.
    #[inline]
    fn latch(&self, event: Event, bit: u32) -> Signalled {
        // An RMW even if the bit is already set: the owner's Acquire must find
        // this very write, or one after it, for what this kicker wrote to be
        // visible. Release: partner of the Acquire in `update`.
        let before = State(self.futex.word().fetch_or(bit, Ordering::Release));
        let (after, action) = step(before, event);
        Signalled::new(before, after, action)
    }

    /// Owner only: sleeps if the word is still `expected`.
    pub(crate) fn sleep(&self, expected: State, deadline: Option<Instant>) -> FutexWait {
        self.futex.wait(expected.0, deadline)
    }

    /// The wake that [`Signalled::wake`] asks for.
    #[inline]
    pub(crate) fn wake(&self) {
        self.futex.wake_one();
    }

    /// Owner only: its counters, made at the first use.
    #[inline]
    pub(crate) fn halt_counters(&self) -> &HaltCounters {
        self.halts.get_or_init(|| Box::new(HaltCounters::new()))
    }
}

impl Signalled {
    #[inline]
    fn new(before: State, after: State, action: Action) -> Self {
        let (outcome, wake) = match action {
            Action::Signal { outcome, wake } => (outcome, wake),
            _ => (KickOutcome::Latched, false),
        };
        Self {
            before,
            after,
            outcome,
            wake,
        }
    }
}
