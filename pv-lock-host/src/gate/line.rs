//! The rules of who runs and who waits: a value, without threads or clock.
//!
//! A lock whose waiters outnumber the host's CPUs is a convoy: each of them
//! halts before its turn comes, so each acquisition costs a halt and a kick.
//! Fewer waiters, no halts: those that run hand the lock to each other while
//! they spin. So a vCPU that was kicked and has kicked the next one in its turn
//! *steps back*: it waits, holding no lock and queueing for none, until those
//! that run have had their slice. What it leaves free is reserved, for a short
//! while, for the next vCPU to be kicked. (Dice, "Malthusian Locks", EuroSys
//! 2017, does inside a lock what is done here around any lock.)

use core::time::Duration;
use std::collections::VecDeque;
use std::time::Instant;

#[derive(Debug)]
pub(super) struct Line {
    /// Places that nobody has, by number.
    free: Vec<usize>,
    /// How many have lost patience and run beside those that have places. There
    /// is no free place then.
    beside: usize,
    /// vCPUs that were woken by others and wait for a place.
    kicked: VecDeque<usize>,
    /// vCPUs that have stepped back, had their slice, or just come: who has run
    /// least is first.
    back: VecDeque<usize>,
    /// What the last one of these had run when it was let run.
    floor: Duration,
    /// The last one whose slice was over. It may well hold what others wait
    /// for, so it has the place of the next one that halts.
    preempted: Option<usize>,
    vcpus: Box<[Vcpu]>,
    /// A free place waits for a kick until then.
    reserved: Option<Instant>,
    /// From one kick of a convoy to the next, on average.
    link: Duration,
    /// When the first in line looks again by itself.
    alarm: Option<Instant>,
    slice: Duration,
    /// What the change that is being made has others do.
    calls: Calls,
}

/// A checker's executions must be alike, so no time passes in them.
const TIMELESS: bool = cfg!(any(loom, shuttle));

/// What a convoy's [`Line::link`] is taken for before one was seen.
const FIRST_LINK: Duration = Duration::from_micros(if TIMELESS { 0 } else { 50 });
/// The least that it is taken for.
const SHORTEST_LINK: Duration = Duration::from_micros(25);
/// A waiting vCPU looks at the clock every slice: one of nothing would have it
/// look, and others preempted, without end.
const SHORTEST_SLICE: Duration = Duration::from_micros(100);

fn elapsed(since: Instant, now: Instant) -> Duration {
    if TIMELESS {
        Duration::ZERO
    } else {
        now.saturating_duration_since(since)
    }
}

#[derive(Clone, Copy, Default, Debug)]
struct Vcpu {
    /// Since when it may run.
    since: Option<Instant>,
    /// For how long it ran before; what it slept does not count.
    ran: Duration,
    /// Of that, before it last came out of the line.
    ran_before_turn: Duration,
    /// It does so without a place.
    beside: bool,
    /// The place that it has, or had last.
    place: Option<usize>,
    /// It is in line.
    waits: bool,
}

/// What one who would run does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Turn {
    /// Runs.
    Run,
    /// Waits, until then if it is the first in line.
    Wait(Option<Instant>),
    /// The same, and this one's time is up.
    Overdue(usize, Option<Instant>),
}

/// What a change has others do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[must_use]
pub(super) struct Calls {
    /// vCPUs that have another place, of this number, than they had last.
    pub(super) moved: [Option<(usize, usize)>; 2],
    /// vCPUs that sleep in line and have a reason to look again: two at most may
    /// run now, and one is the first to wait.
    pub(super) look: [Option<usize>; 3],
}

impl Line {
    pub(super) fn new(places: usize, vcpus: usize, slice: Duration) -> Self {
        Self {
            free: (0..places).rev().collect(),
            beside: 0,
            kicked: VecDeque::new(),
            back: VecDeque::with_capacity(vcpus),
            floor: Duration::ZERO,
            preempted: None,
            vcpus: vec![Vcpu::default(); vcpus].into_boxed_slice(),
            reserved: None,
            link: FIRST_LINK,
            alarm: None,
            slice: slice.max(SHORTEST_SLICE),
            calls: Calls::default(),
        }
    }

    /// `me` would run.
    pub(super) fn enter(&mut self, me: usize, now: Instant) -> (Turn, Calls) {
        let turn = self.turn(me, now);
        (turn, self.told())
    }

    /// `me`, whose time is up, passes its place on, if anybody waits for it.
    pub(super) fn expire(&mut self, me: usize, now: Instant) -> Calls {
        let next = self.first();
        if next.is_none() {
            self.begin_turn(me, now);
        } else if self.runs(me) {
            self.give_up(me, next, now);
            self.preempted = Some(me);
        }
        self.told()
    }

    /// `me` sleeps, pauses or ends.
    pub(super) fn leave(&mut self, me: usize, now: Instant) -> Calls {
        self.unqueue(me);
        if self.preempted == Some(me) {
            self.preempted = None;
        }
        let preempted = self.preempted.filter(|&vcpu| self.waits(vcpu));
        let next = self.kicked.front().copied().or(preempted);
        self.give_up(me, next, now);
        self.told()
    }

    /// `target` was asleep and will be woken. `kicker`: the vCPU that kicked it,
    /// and whether that is a link of a convoy: was kicked out of its own halt,
    /// and leaves others halted.
    pub(super) fn kick(
        &mut self,
        target: usize,
        kicker: Option<(usize, bool)>,
        now: Instant,
    ) -> Calls {
        if self.runs(target) {
            return self.told();
        }
        if self.waits(target) {
            self.calls.look[0] = Some(target);
        }
        let kicker = kicker.filter(|&(me, _)| self.runs(me));
        let convoy = kicker.is_some_and(|(me, link)| link && self.convoy(me, now));
        self.reserve(now);
        if let Some(place) = self.free_place(target) {
            self.seat(target, Some(place), now);
            match kicker {
                // It holds no lock now, so this is the time to go.
                Some((me, _)) if self.is_over(me, now) => {
                    self.give_up(me, self.first(), now);
                }
                Some((me, _)) if convoy => self.give_up(me, None, now),
                _ => {}
            }
        } else if let Some((me, _)) = kicker {
            // The directed yield.
            self.hand_over(me, target, now);
        } else {
            self.unqueue(target);
            self.kicked.push_back(target);
            if let Some(target) = self.vcpus.get_mut(target) {
                target.waits = true;
            }
        }
        self.told()
    }

    /// `me` has waited too long: it runs beside those that have places.
    pub(super) fn squeeze(&mut self, me: usize, now: Instant) -> Calls {
        self.beside += 1;
        self.seat(me, None, now);
        self.told()
    }

    fn told(&mut self) -> Calls {
        core::mem::take(&mut self.calls)
    }

    fn turn(&mut self, me: usize, now: Instant) -> Turn {
        if self.runs(me) {
            return Turn::Run;
        }
        if !self.waits(me) {
            self.enqueue(me);
        }
        let first = self.first() == Some(me);
        let longest = self.longest().filter(|_| first);
        let overdue = longest.is_some_and(|(due, _)| due <= now);
        let may = first && (overdue || self.reserved <= Some(now));
        if (may || self.preempted == Some(me))
            && let Some(place) = self.free_place(me)
        {
            self.seat(me, Some(place), now);
            return Turn::Run;
        }
        if !first {
            return Turn::Wait(None);
        }
        let turn = match longest {
            Some((_, vcpu)) if overdue => Turn::Overdue(vcpu, now.checked_add(self.slice)),
            // Whoever runs will be due some time, or never.
            longest => {
                let due = longest.map(|(due, _)| due);
                Turn::Wait(match self.reserved.filter(|&until| until > now) {
                    Some(until) => Some(due.map_or(until, |due| due.min(until))),
                    None => due,
                })
            }
        };
        let (Turn::Wait(alarm) | Turn::Overdue(_, alarm)) = turn else {
            return turn;
        };
        self.alarm = alarm;
        turn
    }

    pub(super) fn runs(&self, vcpu: usize) -> bool {
        (self.vcpus.get(vcpu)).is_some_and(|vcpu| vcpu.since.is_some())
    }

    pub(super) fn waits(&self, vcpu: usize) -> bool {
        self.vcpus.get(vcpu).is_some_and(|vcpu| vcpu.waits)
    }

    fn first(&self) -> Option<usize> {
        self.kicked.front().or(self.back.front()).copied()
    }

    /// Takes a free place, if there is one: the one that `vcpu` had last, or any.
    fn free_place(&mut self, vcpu: usize) -> Option<usize> {
        let last = self.vcpus.get(vcpu).and_then(|vcpu| vcpu.place);
        match self.free.iter().position(|&place| Some(place) == last) {
            Some(at) => Some(self.free.swap_remove(at)),
            None => self.free.pop(),
        }
    }

    /// `me` may run no more; its place goes to one who runs beside, to `next`,
    /// or is free.
    fn give_up(&mut self, me: usize, next: Option<usize>, now: Instant) {
        let Some(place) = self.unseat(me, now) else {
            return;
        };
        let Some(place) = place else {
            self.beside -= 1;
            return;
        };
        if self.beside > 0 {
            self.beside -= 1;
            if let Some(vcpu) = self.vcpus.iter().position(|vcpu| vcpu.beside) {
                self.put(vcpu, Some(place));
            }
        } else if let Some(next) = next {
            self.seat(next, Some(place), now);
            self.calls.look[1] = Some(next);
        } else {
            self.free.push(place);
            self.reserve(now);
            // The first in line may sleep until somebody's slice is over.
            if self.alarm.is_none_or(|alarm| Some(alarm) > self.reserved) {
                self.calls.look[2] = self.first();
            }
        }
    }

    /// `target` runs in the place of `me`, or beside others as `me` did.
    fn hand_over(&mut self, me: usize, target: usize, now: Instant) {
        if let Some(place) = self.unseat(me, now) {
            self.seat(target, place, now);
        }
    }

    /// Lets `vcpu` run, in `place` or beside the others.
    fn seat(&mut self, vcpu: usize, place: Option<usize>, now: Instant) {
        let in_line = self.waits(vcpu);
        if self.back.front() == Some(&vcpu) {
            self.floor = self.floor.max(self.ran(vcpu));
        }
        self.unqueue(vcpu);
        if in_line {
            self.begin_turn(vcpu, now);
        }
        if self.preempted == Some(vcpu) {
            self.preempted = None;
        }
        if let Some(vcpu) = self.vcpus.get_mut(vcpu) {
            vcpu.since = Some(now);
        }
        self.put(vcpu, place);
    }

    fn put(&mut self, index: usize, place: Option<usize>) {
        let Some(vcpu) = self.vcpus.get_mut(index) else {
            return;
        };
        vcpu.beside = place.is_none();
        if let Some(place) = place
            && vcpu.place.replace(place) != Some(place)
        {
            let [first, second] = &mut self.calls.moved;
            *(if first.is_none() { first } else { second }) = Some((index, place));
        }
    }

    /// Lets `vcpu` run no more; gives the place that it had, if it ran, and if it
    /// had one.
    fn unseat(&mut self, vcpu: usize, now: Instant) -> Option<Option<usize>> {
        let state = self.vcpus.get_mut(vcpu)?;
        let since = state.since.take()?;
        state.ran += elapsed(since, now);
        let place = state.place.filter(|_| !state.beside);
        state.beside = false;
        Some(place)
    }

    /// Takes `vcpu` out of the line.
    fn unqueue(&mut self, vcpu: usize) {
        let Some(state) = self.vcpus.get_mut(vcpu).filter(|vcpu| vcpu.waits) else {
            return;
        };
        state.waits = false;
        let was_first = self.first() == Some(vcpu);
        self.kicked.retain(|&v| v != vcpu);
        self.back.retain(|&v| v != vcpu);
        if was_first {
            // Whoever is first now has to look at the clock.
            self.alarm = None;
            self.calls.look[2] = self.first();
        }
    }

    /// Puts `me` in line, before those that have run longer. One that slept for
    /// long has a slice to its credit, not more.
    fn enqueue(&mut self, me: usize) {
        let credit = self.floor.saturating_sub(self.slice);
        if let Some(vcpu) = self.vcpus.get_mut(me) {
            vcpu.ran = vcpu.ran.max(credit);
            vcpu.waits = true;
        }
        let ran = self.ran(me);
        let at = self.back.partition_point(|&vcpu| self.ran(vcpu) <= ran);
        self.back.insert(at, me);
        if at == 0 && self.kicked.is_empty() {
            self.alarm = None;
        }
    }

    fn ran(&self, vcpu: usize) -> Duration {
        self.vcpus.get(vcpu).map_or(Duration::ZERO, |vcpu| vcpu.ran)
    }

    /// Keeps free places for the next kick, which comes soon in a convoy.
    fn reserve(&mut self, now: Instant) {
        self.reserved = self.reserved.max(now.checked_add(self.link * 2));
    }

    /// Whether `me`, who was kicked, kicks now so soon after that it is a link of
    /// a convoy. If so, learns how long a link takes.
    fn convoy(&mut self, me: usize, now: Instant) -> bool {
        let since = self.vcpus.get(me).and_then(|vcpu| vcpu.since);
        let took = since.map(|since| elapsed(since, now));
        let Some(took) = took.filter(|&took| took < self.slice / 4) else {
            return false;
        };
        if !TIMELESS {
            // An eighth of it counts; of an outlier, not more than of four links.
            let took = took.clamp(SHORTEST_LINK, self.link * 4);
            self.link = (self.link * 7 + took) / 8;
        }
        true
    }

    /// `vcpu` has a whole slice before it.
    fn begin_turn(&mut self, vcpu: usize, now: Instant) {
        if let Some(vcpu) = self.vcpus.get_mut(vcpu) {
            if let Some(since) = &mut vcpu.since {
                vcpu.ran += elapsed(*since, now);
                *since = now;
            }
            vcpu.ran_before_turn = vcpu.ran;
        }
    }

    /// When `vcpu`, if it runs, will have run a slice since it came out of the
    /// line; what it slept meanwhile does not count. But whoever was kicked has a
    /// quarter of one, for it is waited for. `None`: never.
    fn due(&self, vcpu: usize) -> Option<Instant> {
        let vcpu = self.vcpus.get(vcpu)?;
        let used = vcpu.ran.saturating_sub(vcpu.ran_before_turn);
        let left = self.slice.saturating_sub(used);
        vcpu.since?.checked_add(left.max(self.slice / 4))
    }

    /// Whether `vcpu` has run for its slice.
    fn is_over(&self, vcpu: usize, now: Instant) -> bool {
        let used = |vcpu: &Vcpu| {
            let now = vcpu.since.map(|since| elapsed(since, now));
            (vcpu.ran + now.unwrap_or_default()).saturating_sub(vcpu.ran_before_turn)
        };
        self.vcpus
            .get(vcpu)
            .is_some_and(|vcpu| used(vcpu) >= self.slice)
    }

    /// The one whose time is up first, and when.
    fn longest(&self) -> Option<(Instant, usize)> {
        let due = |vcpu| self.due(vcpu).map(|due| (due, vcpu));
        (0..self.vcpus.len()).filter_map(due).min()
    }
}

#[cfg(test)]
mod tests;
