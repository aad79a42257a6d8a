//! One vCPU's word, alone in its cache lines.

use std::time::Instant;

use crate::apic_id::ApicId;
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
}

#[cfg(not(any(loom, shuttle)))]
const _: () = assert!(size_of::<Slot>() <= 128);

impl Slot {
    pub(crate) fn new(apic_id: ApicId) -> Self {
        Self {
            futex: Futex::new(State::RUNNING.0),
            apic_id,
        }
    }

    pub(crate) fn apic_id(&self) -> ApicId {
        self.apic_id
    }

    /// A glance, for decisions that a later [`Slot::apply`] confirms.
    #[inline]
    pub(crate) fn peek(&self) -> State {
        // Relaxed: nothing is read on the strength of this.
        State(self.futex.word().load(Ordering::Relaxed))
    }

    /// Applies `event`; gives the states around it and the action.
    #[inline]
    pub(crate) fn apply(&self, event: Event) -> (State, State, Action) {
        let word = self.futex.word();
        let mut before = self.peek();
        loop {
            let (after, action) = step(before, event);
            // AcqRel. Acquire: partner of the Release in every other's RMW on
            // this word, so what a kicker wrote before its kick is seen by the
            // vCPU that leaves its halt for it. Release: a change by one side
            // must not cut the release sequence that an earlier kick heads, and
            // what the VMM wrote before a pause or stop is seen by the owner.
            match word.compare_exchange_weak(before.0, after.0, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return (before, after, action),
                Err(now) => before = State(now),
            }
        }
    }

    /// [`Event::Kick`] or [`Event::Notify`]: each only sets its bit, whatever
    /// the state, so it is one `fetch_or` and no loop.
    #[inline]
    fn signal(&self, event: Event, bit: u32) -> (State, KickOutcome, bool) {
        // An RMW even if the bit is known to be set: the owner's Acquire must
        // find this very write, or one after it, for what the kicker wrote to
        // be visible. Release: partner of the Acquire in `apply`.
        let before = State(self.futex.word().fetch_or(bit, Ordering::Release));
        match step(before, event).1 {
            Action::Signal { outcome, wake } => (before, outcome, wake),
            _ => (before, KickOutcome::Latched, false),
        }
    }

    #[inline]
    pub(crate) fn kick(&self) -> (State, KickOutcome, bool) {
        self.signal(Event::Kick, State::KICKED)
    }

    #[inline]
    pub(crate) fn notify(&self) -> (State, KickOutcome, bool) {
        self.signal(Event::Notify, State::EVENT)
    }

    /// Owner only: sleeps until the word is no longer `expected`.
    pub(crate) fn sleep(&self, expected: State, deadline: Option<Instant>) -> FutexWait {
        self.futex.wait(expected.0, deadline)
    }

    /// The wake that a [`Action::Signal`] with `wake` asks for.
    #[inline]
    pub(crate) fn wake(&self) {
        self.futex.wake_one();
    }
}
