//! [`RunCap`] at work: who of a VM's vCPUs runs, and who waits for a place.
//!
//! The rules are in [`Line`], a plain value under one lock; here are the
//! threads: a word for each vCPU that says whether it has a place, and on which
//! its thread sleeps while it has none. The lock is taken when a vCPU halts, is
//! woken, or waits; an exit that is neither costs one load of the vCPU's word.

mod line;

use core::num::NonZeroUsize;
use std::sync::PoisonError;
use std::time::Instant;

use crate::slot::Slot;
use crate::state::State;
use crate::sync::{Futex, Mutex, MutexGuard, Ordering};
use crate::yielding::RunCap;
use line::{Calls, Line, Turn};

/// It may run. Its owner's to set and to clear, under the lock.
const GRANTED: u32 = 1 << 0;
/// Its time is up and another waits: it is to come by at its next exit.
const DUE: u32 = 1 << 1;
/// Look again: it may run now, it is the first to wait now, or the VM has been
/// paused, resumed or stopped.
const NUDGED: u32 = 1 << 2;

/// A vCPU's word, alone in its cache line: its owner reads it at each exit.
#[derive(Debug)]
#[repr(align(64))]
struct Place(Futex);

/// Places, and a line of those who wait for one.
#[derive(Debug)]
pub(crate) struct Gate {
    cap: RunCap,
    line: Mutex<Line>,
    places: Box<[Place]>,
}

impl Gate {
    pub(crate) fn new(cap: RunCap, running: NonZeroUsize, vcpus: usize) -> Self {
        Self {
            line: Mutex::new(Line::new(running.get(), vcpus, cap.slice)),
            places: (0..vcpus).map(|_| Place(Futex::new(0))).collect(),
            cap,
        }
    }

    /// Owner: whether it may run (on). If not, it must [`Gate::enter`].
    #[inline]
    pub(crate) fn admits(&self, me: usize) -> bool {
        // Relaxed: GRANTED is this thread's own, and DUE a request.
        let word = |place: &Place| place.0.word().load(Ordering::Relaxed);
        (self.places.get(me).map(word)).is_none_or(|word| word & (GRANTED | DUE) == GRANTED)
    }

    /// Owner: takes a place, waiting for it if need be; `false` if the VM was
    /// paused or stopped meanwhile.
    pub(crate) fn enter(&self, me: usize, slot: &Slot, slots: &[Slot]) -> bool {
        let Some(Place(place)) = self.places.get(me) else {
            return true;
        };
        let mut told = None;
        loop {
            // Acquire: partner of the Release in `nudge`, so that the pause or
            // stop that it announces is seen below.
            let word = place.word().fetch_and(!(NUDGED | DUE), Ordering::AcqRel);
            let mut line = self.lock();
            let now = Instant::now();
            if word & DUE != 0 {
                let calls = line.expire(me, now);
                self.disown(me);
                self.tell(line, calls, slots);
                continue;
            }
            if slot.peek().has(State::PAUSE | State::STOP) {
                let calls = line.leave(me, now);
                self.disown(me);
                self.tell(line, calls, slots);
                return false;
            }
            let (turn, calls) = line.enter(me, now);
            let (until, overdue) = match turn {
                Turn::Run => {
                    // Relaxed: it is this thread that reads it; what the vCPU
                    // before did in its turn is seen by way of the lock.
                    place.word().fetch_or(GRANTED, Ordering::Relaxed);
                    self.tell(line, calls, slots);
                    return true;
                }
                Turn::Wait(until) => (until, None),
                Turn::Overdue(vcpu, until) => (until, Some(vcpu)),
            };
            if let Some(vcpu) = overdue {
                self.demand(vcpu);
                // Told a slice ago, and still there: the host's scheduler
                // shares the CPUs then, as it does without a cap.
                if told.replace(vcpu) == Some(vcpu) && self.cap.preempt.is_none() {
                    let calls = line.squeeze(me, now);
                    self.tell(line, calls, slots);
                    continue;
                }
            }
            self.tell(line, calls, slots);
            if let (Some(vcpu), Some(preempt)) = (overdue, &self.cap.preempt)
                && let Some(slot) = slots.get(vcpu)
            {
                preempt(slot.apic_id());
            }
            // Whoever lets it run nudges it, so nothing has happened if the
            // word is as it was.
            place.wait(0, until);
        }
    }

    /// Owner: is about to sleep, or is gone.
    pub(crate) fn leave(&self, me: usize, slots: &[Slot]) {
        let mut line = self.lock();
        let calls = line.leave(me, Instant::now());
        self.disown(me);
        self.tell(line, calls, slots);
    }

    /// `target` has been kicked out of a sleep and will be woken: it is given a
    /// place, or is the next to have one. `kicker`: the vCPU whose guest kicks,
    /// if it is one, as its owner says, and whether it is a link of a convoy.
    pub(crate) fn kicked(&self, target: usize, kicker: Option<(usize, bool)>, slots: &[Slot]) {
        let mut line = self.lock();
        // While the kick is still latched, or it waits, the owner is sure to come
        // by here again before it sleeps, and gives back what it is given now.
        let latched = |slot: &Slot| slot.peek().has(State::KICKED | State::EVENT);
        if !line.waits(target) && !slots.get(target).is_some_and(latched) {
            return;
        }
        let calls = line.kick(target, kicker, Instant::now());
        if let Some((me, _)) = kicker
            && !line.runs(me)
        {
            self.disown(me);
        }
        self.tell(line, calls, slots);
    }

    /// Look again, at the line and at the slot's word.
    pub(crate) fn nudge(&self, vcpu: usize) {
        if let Some(Place(place)) = self.places.get(vcpu) {
            // Release: of the slot's change, partner of the Acquire in `enter`.
            place.word().fetch_or(NUDGED, Ordering::Release);
            place.wake_one();
        }
    }

    /// Tells those whom a change of the line concerns, and lets go of it.
    fn tell(&self, line: MutexGuard<'_, Line>, calls: Calls, slots: &[Slot]) {
        if let Some(bind) = &self.cap.bind {
            for (vcpu, place) in calls.moved.into_iter().flatten() {
                if let Some(slot) = slots.get(vcpu) {
                    bind(slot.apic_id(), place);
                }
            }
        }
        drop(line);
        for vcpu in calls.look.into_iter().flatten() {
            self.nudge(vcpu);
        }
    }

    /// Owner, under the lock: may run no more.
    fn disown(&self, me: usize) {
        if let Some(Place(place)) = self.places.get(me) {
            // Relaxed: only this thread acts on either.
            place.word().fetch_and(!(GRANTED | DUE), Ordering::Relaxed);
        }
    }

    /// Asks for the place of one whose time is up.
    fn demand(&self, vcpu: usize) {
        if let Some(Place(place)) = self.places.get(vcpu) {
            // Relaxed: publishes nothing; what its owner then does, it does
            // under the lock.
            place.word().fetch_or(DUE, Ordering::Relaxed);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        // No code that can panic runs under the lock but the allocator's.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
