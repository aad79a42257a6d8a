//! One vCPU's word, alone in its cache line, and what others note beside it.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{self, Relaxed};

use alloc::boxed::Box;
use once_cell::race::OnceBox;

use crate::apic_id::ApicId;
use crate::counters::{KickCounters, OwnCounters};
use crate::outcome::KickOutcome;
use crate::platform::{Place, Platform, Waited, Word as _};
use crate::state::{Action, Event, State, step};

/// A vCPU as the kickers see it: one line for the word, one for what kickers
/// count, so that a count does not take the word from the vCPU that wakes up.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Slot<P: Platform> {
    word: P::Word,
    apic_id: ApicId,
    /// When the vCPU's present halt or hold began, in ns of the platform's
    /// clock; zero if nobody needs to know. Written by the owner before the word
    /// says that it sleeps (Release there), read by others behind the word.
    since: AtomicU64,
    /// Where the owner ran when it was last let run: pCPU and thread, 32 bits
    /// each; [`NOWHERE`] if unknown. A hint.
    place: AtomicU64,
    /// Made by the owner at its first halt, if halts are counted.
    own: OnceBox<OwnCounters>,
    pub(crate) kicks: KickCounters,
}

const NOWHERE: u64 = u64::MAX;

/// What a signal (kick, notification, pause, resume, stop) came upon.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Signalled {
    pub(crate) before: State,
    pub(crate) after: State,
    pub(crate) outcome: KickOutcome,
    /// The owner sleeps, and the caller is the one who must wake it.
    pub(crate) wake: bool,
}

impl<P: Platform> Slot<P> {
    pub(crate) fn new(apic_id: ApicId) -> Self {
        Self {
            word: P::Word::new(State::NEW.0),
            apic_id,
            since: AtomicU64::new(0),
            place: AtomicU64::new(NOWHERE),
            own: OnceBox::new(),
            kicks: KickCounters::new(),
        }
    }

    pub(crate) const fn apic_id(&self) -> ApicId {
        self.apic_id
    }

    /// A glance, for decisions that a later [`Slot::apply`] confirms.
    #[inline]
    pub(crate) fn peek(&self) -> State {
        // Relaxed: nothing is read on the strength of this.
        State(self.word.load(Ordering::Relaxed))
    }

    /// A look that others act on: what the owner wrote before it changed the
    /// word to what is seen here is seen too.
    pub(crate) fn look(&self) -> State {
        // Acquire: partner of the Release in the owner's `update`.
        State(self.word.load(Ordering::Acquire))
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
            match self.word.compare_exchange_weak(
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
        // visible. Release: partner of the Acquire in `update`. Acquire: of the
        // owner's Release, for what it noted before it slept.
        let before = State(self.word.fetch_or(bit, Ordering::AcqRel));
        let (after, action) = step(before, event);
        Signalled::new(before, after, action)
    }

    /// Owner only: sleeps if the word is still `expected`.
    pub(crate) fn sleep(&self, expected: State, deadline: Option<u64>) -> Waited {
        P::wait(&self.word, expected.0, deadline)
    }

    /// The wake that [`Signalled::wake`] asks for.
    #[inline]
    pub(crate) fn wake(&self) {
        P::wake(&self.word);
    }

    /// Owner only: its counters, made at the first use.
    #[inline]
    pub(crate) fn own_counters(&self) -> &OwnCounters {
        self.own.get_or_init(|| Box::new(OwnCounters::new()))
    }

    /// The owner's counters, if it has begun to count.
    pub(crate) fn counted(&self) -> Option<&OwnCounters> {
        self.own.get()
    }

    /// Owner only: its halt or hold begins now; zero: at a time that nobody asks
    /// for.
    #[inline]
    pub(crate) fn begins(&self, now: u64) {
        // Relaxed: published by the RMW on the word that follows.
        self.since.store(now, Relaxed);
    }

    /// When the present halt or hold began; to be asked behind a look at the word
    /// that found one.
    #[inline]
    pub(crate) fn since(&self) -> u64 {
        self.since.load(Relaxed)
    }

    /// Owner only: where it runs.
    pub(crate) fn note_place(&self) {
        if let Some(place) = P::here() {
            self.set_place(place);
        }
    }

    /// Its owner runs there.
    pub(crate) fn set_place(&self, Place { pcpu, thread }: Place) {
        // Relaxed: a hint.
        let place = u64::from(pcpu) << 32 | u64::from(thread);
        self.place.store(place, Relaxed);
    }

    /// Where the owner ran when it was last let run.
    pub(crate) fn place(&self) -> Option<Place> {
        let place = self.place.load(Relaxed);
        #[expect(clippy::cast_possible_truncation, reason = "two halves")]
        let (pcpu, thread) = ((place >> 32) as u32, place as u32);
        (place != NOWHERE).then_some(Place { pcpu, thread })
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
