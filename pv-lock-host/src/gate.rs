//! [`RunCap`] at work: places, and a line of those who wait for one.

use core::num::NonZeroUsize;
use std::collections::VecDeque;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crate::slot::Slot;
use crate::state::State;
use crate::sync::{Futex, FutexWait, Mutex, MutexGuard, Ordering};
use crate::yielding::RunCap;

/// Waiting for a place, on a futex of one's own.
const WAITING: u32 = 0;
/// The place has been given.
const GRANTED: u32 = 1 << 0;
/// The VM has been paused, resumed or stopped.
const NUDGED: u32 = 1 << 1;

/// Who runs and who waits. One lock: it is taken when a vCPU starts or stops
/// running, never at an exit while nobody waits.
#[derive(Debug)]
pub(crate) struct Gate {
    cap: RunCap,
    line: Mutex<Line>,
    /// Length of the line, for a glance without the lock.
    waiting: AtomicUsize,
    /// Kicked vCPUs that a place is to be handed to, for a glance.
    urgent: AtomicUsize,
    /// Where each vCPU's thread sleeps while it waits.
    turns: Box<[Futex]>,
}

#[derive(Debug)]
struct Line {
    /// Places that nobody has. While there is one, nobody waits. Below zero: so
    /// many have lost patience and run beside the others.
    free: isize,
    /// vCPUs that wait: first the `kicked` ones, then the others.
    queue: VecDeque<usize>,
    kicked: usize,
    /// Since when each has its place.
    since: Box<[Option<Instant>]>,
}

impl Line {
    fn has_place(&self, vcpu: usize) -> bool {
        self.since.get(vcpu).is_some_and(Option::is_some)
    }

    fn seat(&mut self, vcpu: usize) {
        if let Some(since) = self.since.get_mut(vcpu) {
            *since = Some(Instant::now());
        }
    }

    /// Gives up `vcpu`'s place, if it has one.
    fn unseat(&mut self, vcpu: usize) -> bool {
        self.since.get_mut(vcpu).and_then(Option::take).is_some()
    }

    fn enqueue(&mut self, vcpu: usize, kicked: bool) {
        if self.queue.contains(&vcpu) {
            return;
        }
        if kicked {
            self.queue.insert(self.kicked, vcpu);
            self.kicked += 1;
        } else {
            self.queue.push_back(vcpu);
        }
    }

    fn leave(&mut self, vcpu: usize) {
        if let Some(at) = self.queue.iter().position(|&v| v == vcpu) {
            self.queue.remove(at);
            self.kicked -= usize::from(at < self.kicked);
        }
    }
}

impl Gate {
    pub(crate) fn new(cap: RunCap, running: NonZeroUsize, vcpus: usize) -> Self {
        Self {
            line: Mutex::new(Line {
                free: running.get().cast_signed(),
                queue: VecDeque::with_capacity(vcpus),
                kicked: 0,
                since: vec![None; vcpus].into_boxed_slice(),
            }),
            waiting: AtomicUsize::new(0),
            urgent: AtomicUsize::new(0),
            turns: (0..vcpus).map(|_| Futex::new(WAITING)).collect(),
            cap,
        }
    }

    /// Whether an owner that has a place must call [`Gate::enter`] all the same:
    /// a vCPU was kicked and waits for a place, and the one who enters now is,
    /// most likely, the kicker on its way back to its guest.
    #[inline]
    pub(crate) fn yields(&self) -> bool {
        // Relaxed: a glance; the lock decides.
        self.urgent.load(Relaxed) != 0
    }

    /// Owner: takes a place, waiting for it if need be; `false` if the VM was
    /// paused or stopped meanwhile.
    pub(crate) fn enter(&self, me: usize, slot: &Slot, slots: &[Slot]) -> bool {
        let mut line = self.lock();
        if line.has_place(me) {
            if line.kicked == 0 {
                return true;
            }
            // The directed yield.
            line.unseat(me);
            self.call_next(&mut line);
        } else if line.free > 0 {
            line.free -= 1;
            line.seat(me);
            return true;
        }
        let Some(turn) = self.turns.get(me) else {
            return true;
        };
        // Acquire: of a nudge that this wipes out, whose pause or stop must be
        // seen below.
        turn.word().swap(WAITING, Ordering::AcqRel);
        line.enqueue(me, false);
        self.publish(&line);
        drop(line);
        loop {
            // Acquire: partner of the Release in `grant` and in `nudge`.
            let was = turn.word().fetch_and(!NUDGED, Ordering::AcqRel);
            if was & GRANTED != 0 {
                return true;
            }
            if slot.peek().has(State::PAUSE | State::STOP) {
                let mut line = self.lock();
                line.leave(me);
                self.publish(&line);
                return line.has_place(me);
            }
            // No deadline if the slice is beyond all clocks.
            let deadline = Instant::now().checked_add(self.cap.slice);
            if turn.wait(WAITING, deadline) == FutexWait::DeadlinePassed {
                self.out_of_patience(me, slots);
            }
        }
    }

    /// A slice has passed in line: whoever runs must be told to leave, and if
    /// it cannot be, this one runs as well. The host's scheduler shares the
    /// CPUs then, as it does without a cap.
    fn out_of_patience(&self, me: usize, slots: &[Slot]) {
        if let Some(preempt) = &self.cap.preempt {
            if let Some(slot) = self.overdue().and_then(|vcpu| slots.get(vcpu)) {
                preempt(slot.apic_id());
            }
            return;
        }
        let mut line = self.lock();
        if !line.has_place(me) {
            line.leave(me);
            line.free -= 1;
            line.seat(me);
            self.publish(&line);
            self.grant(me);
        }
    }

    /// Owner: at an exit from guest mode. Gives the place up if its time is up
    /// and somebody waits; says whether it did.
    #[inline]
    pub(crate) fn exit(&self, me: usize) -> bool {
        // Relaxed: a glance; a vCPU that came just now is seen at the next exit.
        self.waiting.load(Relaxed) != 0 && self.exit_contended(me)
    }

    #[cold]
    fn exit_contended(&self, me: usize) -> bool {
        let mut line = self.lock();
        let since = line.since.get(me).copied().flatten();
        let due = since.is_some_and(|since| since.elapsed() >= self.cap.slice);
        if due {
            self.give_up(&mut line, me);
        }
        due
    }

    /// Owner: is about to sleep, or is gone.
    pub(crate) fn release(&self, me: usize) {
        let mut line = self.lock();
        line.leave(me);
        self.publish(&line);
        self.give_up(&mut line, me);
    }

    /// Kicker: `target` has been kicked out of a sleep, and will be woken.
    pub(crate) fn kicked(&self, target: usize, slot: &Slot) {
        let mut line = self.lock();
        // While the kick is still latched, the owner is sure to come by here
        // again before it sleeps, and gives back what it is given now.
        if !slot.peek().has(State::KICKED | State::EVENT) || line.has_place(target) {
            return;
        }
        if line.free > 0 {
            line.free -= 1;
            line.seat(target);
        } else {
            line.leave(target);
            line.enqueue(target, true);
            self.publish(&line);
        }
    }

    /// Pause and stop: look at the word again.
    pub(crate) fn nudge(&self, vcpu: usize) {
        if let Some(turn) = self.turns.get(vcpu) {
            // Release: of the word's change, partner of both RMWs in `enter`.
            turn.word().fetch_or(NUDGED, Ordering::Release);
            turn.wake_one();
        }
    }

    /// Gives up `me`'s place, if it has one, to the head of the line, if there
    /// is one and no more run than may.
    fn give_up(&self, line: &mut Line, me: usize) {
        if line.unseat(me) {
            if line.free < 0 || line.queue.is_empty() {
                line.free += 1;
            } else {
                self.call_next(line);
            }
        }
    }

    /// Gives a place that somebody has just left to the head of the line.
    fn call_next(&self, line: &mut Line) {
        if let Some(next) = line.queue.pop_front() {
            line.kicked = line.kicked.saturating_sub(1);
            line.seat(next);
            self.publish(line);
            self.grant(next);
        }
    }

    fn grant(&self, vcpu: usize) {
        if let Some(turn) = self.turns.get(vcpu) {
            // Release: what the one before wrote in its turn is seen by this
            // one, partner of the Acquire in `enter`. An RMW, as all changes of
            // this word are.
            turn.word().fetch_or(GRANTED, Ordering::Release);
            turn.wake_one();
        }
    }

    /// The one that has run longest, if longer than its slice.
    fn overdue(&self) -> Option<usize> {
        let line = self.lock();
        let running = (0..).zip(&line.since);
        let (since, vcpu) = running
            .filter_map(|(vcpu, since): (usize, _)| since.map(|since| (since, vcpu)))
            .min()?;
        (since.elapsed() >= self.cap.slice).then_some(vcpu)
    }

    fn publish(&self, line: &Line) {
        // Relaxed: both are only glanced at; the lock orders what matters.
        self.waiting.store(line.queue.len(), Relaxed);
        self.urgent.store(line.kicked, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        // No code that can panic runs under the lock but the allocator's.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
