//! The convoy rule: who is held back, when, and for how long. Values without
//! threads and without a clock: times are arguments, in ns.
//!
//! More waiters for a lock than pCPUs form a *convoy*: each waiter halts before
//! its turn comes, so each acquisition costs a halt, a kick and two switches of
//! threads. As many waiters as pCPUs do not: they hand the lock over while they
//! spin. From outside a convoy is visible, for a vCPU that was kicked out of a
//! halt kicks the next one: a *link*. A link has just released the lock and has
//! not yet queued for it again: the one moment at which holding it back delays
//! nobody. (Dice, "Malthusian Locks", EuroSys 2017, does inside a lock what is
//! done here around any lock.)
//!
//! The numbers in brackets are those of docs/SCHEDULER.md.

use core::sync::atomic::Ordering::Relaxed;
use core::sync::atomic::{AtomicU32, AtomicU64};

use crate::load::Counts;
use crate::polling::nanos;
use crate::yielding::HoldPolicy;

const US: u64 = 1_000;

/// What one link of a convoy takes, before any was seen.
const FIRST_LINK: u64 = 40 * US;
/// A halt that lasted longer says nothing of links.
const LONGEST_LINK: u64 = 200 * US;
/// See [`Convoy::look`].
const LOOK: u64 = 200 * US;
const INTERRUPT_LOOK: u64 = 4_000 * US;
/// Links that may go on although the convoy is one too long, so that the vCPU
/// which has had its turn is held, not the one that has just come.
const PASSES: u32 = 4;
/// Most times that a vCPU is let pass for holds that did harm: 2^6 links.
const MOST_DISTRUST: u32 = 6;

/// What the vCPUs of one VM share. All of it is Relaxed: estimates and times,
/// which publish nothing; who is held is in the vCPUs' own words.
#[derive(Debug)]
pub(crate) struct Convoy {
    slice: u64,
    longest: u64,
    /// When a held vCPU was last let go.
    last_turn: AtomicU64,
    /// How long a halt lasts that the next link of the convoy ends, on average.
    link: AtomicU64,
    /// Links that were let pass since the last hold.
    passed: AtomicU32,
}

/// One hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hold {
    /// When it began.
    pub(crate) since: u64,
    /// The longest that it lasts.
    pub(crate) longest: u64,
}

/// Whether a held vCPU goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Turn {
    /// It goes on.
    Go,
    /// It looks again then.
    Wait(u64),
}

impl Convoy {
    pub(crate) fn new(policy: &HoldPolicy) -> Self {
        let slice = nanos(policy.slice).max(HoldPolicy::SHORTEST_SLICE);
        Self {
            slice,
            longest: nanos(policy.longest).max(slice),
            last_turn: AtomicU64::new(0),
            link: AtomicU64::new(FIRST_LINK),
            passed: AtomicU32::new(0),
        }
    }

    /// [3] Whether a link that would be held is, or may pass.
    pub(crate) fn holds(&self, link: &Link, counts: Counts, pcpus: usize, now: u64) -> bool {
        let one_too_many = counts.running == pcpus + 1;
        let just_came = now.saturating_sub(link.free_since) < self.slice;
        if one_too_many && just_came && self.passed.fetch_add(1, Relaxed) < PASSES {
            return false;
        }
        self.passed.store(0, Relaxed);
        true
    }

    /// A hold of this vCPU that begins now. As long as it is not known that its
    /// holds do no harm, they last for a slice at most.
    pub(crate) const fn hold(&self, link: &Link, now: u64) -> Hold {
        Hold {
            since: now,
            longest: if link.proven {
                self.longest
            } else {
                self.slice
            },
        }
    }

    /// [5] Whether a held vCPU goes on now, behind `ahead` others that are held for
    /// longer. One does each slice, the first first;
    /// and whoever has been held for its longest.
    pub(crate) fn turn(&self, hold: Hold, ahead: usize, now: u64) -> Turn {
        let longest = hold.since.saturating_add(hold.longest);
        let last = self.last_turn.load(Relaxed);
        let due = match u64::try_from(ahead) {
            Ok(0) => last.max(hold.since).saturating_add(self.slice),
            // Its turn may come earlier, if others are let go before theirs: it
            // looks again at the latest when it would be first.
            ahead => {
                let slices = ahead.map_or(u64::MAX, |n| n.saturating_add(1));
                let turn = last.saturating_add(self.slice.saturating_mul(slices));
                turn.max(now.saturating_add(self.slice))
            }
        };
        let due = due.min(longest);
        if now >= due {
            Turn::Go
        } else {
            Turn::Wait(due)
        }
    }

    /// One that was held goes on.
    pub(crate) fn let_go(&self, now: u64) {
        self.last_turn.store(now, Relaxed);
    }

    /// [6] How long a vCPU that halts while others are held polls for a kick
    /// before it takes its pCPU for idle: two links.
    pub(crate) fn poll_ns(&self) -> u64 {
        self.link.load(Relaxed).saturating_mul(2)
    }

    /// [9] After what time a held vCPU looks, where halts and interrupts are not
    /// seen: the first for an idle pCPU, the others for an interrupt only.
    pub(crate) const fn look(&self, ahead: usize) -> u64 {
        if ahead == 0 { LOOK } else { INTERRUPT_LOOK }
    }

    /// A halt that polled for that long, or for a part of it, ended by a kick after
    /// `halted`.
    pub(crate) fn learn(&self, halted: u64) {
        let link = self.link.load(Relaxed);
        let halted = halted.min(LONGEST_LINK);
        // An eighth of it counts. Two that learn at once: one of them does.
        self.link.store((link * 7 + halted) / 8, Relaxed);
    }
}

/// What a vCPU's own thread knows of its part in a convoy.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    /// When a kick ended the last halt, if one did and nobody was kicked since.
    kicked_at: Option<u64>,
    /// Since when it is not held.
    free_since: u64,
    /// The last hold, from when to when, until it is known whether it did harm.
    judge: Option<(u64, u64)>,
    /// How often holds did harm lately.
    distrust: u32,
    /// Links for which it is not held.
    spared: u32,
    /// Its last hold that was judged did no harm.
    proven: bool,
}

impl Link {
    /// [1] A halt in which the vCPU slept is over.
    pub(crate) fn woke(&mut self, by_kick: bool, now: u64) {
        self.kicked_at = by_kick.then_some(now);
    }

    /// Whether [`Link::kicks`] would have anything to find out.
    #[inline]
    pub(crate) const fn watches_kicks(&self) -> bool {
        self.kicked_at.is_some() || self.judge.is_some()
    }

    /// [2] Its guest has kicked a vCPU that had been halted since `target_since`
    /// (if that is known): whether that makes it a link that is to be held.
    pub(crate) fn kicks(&mut self, convoy: &Convoy, target_since: Option<u64>, now: u64) -> bool {
        if let Some((from, to)) = self.judge.take() {
            // In a lock's queue nobody waits for long while it moves on. One that
            // has waited through half of the hold waited for this vCPU: it held
            // another lock.
            let harmed = target_since.is_some_and(|since| since < from + (to - from) / 2);
            self.distrust = match harmed {
                true => (self.distrust + 1).min(MOST_DISTRUST),
                false => self.distrust.saturating_sub(1),
            };
            self.proven = !harmed;
            if harmed {
                self.spared = 1 << self.distrust;
            }
        }
        let link = (self.kicked_at.take()).is_some_and(|at| now.saturating_sub(at) < convoy.slice);
        if link && self.spared > 0 {
            self.spared -= 1;
            return false;
        }
        link
    }

    /// A hold is over. One that was as short as some links did no harm.
    pub(crate) fn was_held(&mut self, convoy: &Convoy, from: u64, to: u64) {
        self.free_since = to;
        let short = convoy.poll_ns().saturating_mul(2);
        self.judge = (to.saturating_sub(from) > short).then_some((from, to));
    }
}

#[cfg(test)]
mod tests;
