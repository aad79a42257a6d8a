//! How many vCPUs want to run, how many are held back, and how many pCPUs there
//! are for them.

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::{AcqRel, Relaxed};

use crate::platform::{Platform, Word};
use crate::state::{Demand, State};

/// The counts of one VM, in one word, so that a decision sees both as they were
/// at one moment.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Load<P: Platform> {
    counts: P::Word,
    /// How many pCPUs there are, with [`GIVEN`] if the VMM has said so.
    pcpus: AtomicUsize,
    /// Whether any policy asks.
    tracked: bool,
    elsewhere: Option<HaltedElsewhere>,
}

/// Counts the vCPUs of a VM that sleep in a halt which this crate does not see.
#[derive(Clone)]
pub(crate) struct HaltedElsewhere(pub(crate) Arc<dyn Fn() -> usize + Send + Sync>);

impl fmt::Debug for HaltedElsewhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HaltedElsewhere")
    }
}

/// One vCPU that wants to run, in the word's lower half.
const RUN: u32 = 1;
/// One that is held, in the upper half.
const HELD: u32 = 1 << 16;
/// Added to the lower half: a change of a vCPU's word is accounted a moment after
/// it is made, so a halt may be before the kick that it follows, and the sum
/// below zero for that moment. It borrows nothing from the upper half.
const BIAS: u32 = 1 << 15;

/// More vCPUs than any kernel knows (KVM: 4,096), and half of what the lower
/// half holds on each side of [`BIAS`].
pub(crate) const MAX_VCPUS: usize = 1 << 14;

/// In [`Load`]'s number of pCPUs: what the platform says does not matter.
const GIVEN: usize = 1 << (usize::BITS - 1);

/// The counts at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Counts {
    /// vCPUs that want to run and may.
    pub(crate) running: usize,
    /// vCPUs that are held.
    pub(crate) held: usize,
}

impl Counts {
    const fn of(word: u32) -> Self {
        Self {
            running: (word & (HELD - 1)).saturating_sub(BIAS) as usize,
            held: (word / HELD) as usize,
        }
    }
}

const fn share(demand: Demand) -> u32 {
    match demand {
        Demand::Run => RUN,
        Demand::Held => HELD,
        Demand::Nothing => 0,
    }
}

impl<P: Platform> Load<P> {
    /// With so many pCPUs `given`, or else with what the platform says.
    pub(crate) fn new(
        given: Option<usize>,
        tracked: bool,
        elsewhere: Option<HaltedElsewhere>,
    ) -> Self {
        let pcpus = match given {
            Some(n) => number(n) | GIVEN,
            None => number(P::pcpus()),
        };
        Self {
            counts: P::Word::new(BIAS),
            pcpus: AtomicUsize::new(pcpus),
            tracked,
            elsewhere,
        }
    }

    /// Takes notice of a change of one slot's word.
    #[inline]
    pub(crate) fn account(&self, before: State, after: State) {
        let (before, after) = (before.demand(), after.demand());
        if self.tracked && before != after {
            let change = share(after).wrapping_sub(share(before));
            // AcqRel: see `settle`. The sum is exact, since every change of every
            // word is accounted once; it may lag behind a word by an instruction.
            self.counts.fetch_add(change, AcqRel);
        }
    }

    /// Counts one vCPU that runs as held, if more want to run than there are
    /// pCPUs.
    pub(crate) fn try_hold(&self) -> bool {
        let halted = self.halted_elsewhere();
        // The one that was just kicked may still be counted among them.
        let halted = halted.saturating_sub(usize::from(self.halts_elsewhere()));
        let mut word = self.counts.load(Relaxed);
        loop {
            if Counts::of(word).running <= self.pcpus().saturating_add(halted) {
                return false;
            }
            let held = word.wrapping_sub(RUN).wrapping_add(HELD);
            // AcqRel: see `settle`.
            match (self.counts).compare_exchange_weak(word, held, AcqRel, Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
    }

    /// Takes [`Load::try_hold`] back.
    pub(crate) fn unhold(&self) {
        self.counts.fetch_add(RUN.wrapping_sub(HELD), AcqRel);
    }

    /// The counts, for one who has just set its word to HELD and must know
    /// whether a pCPU has become idle since it was counted.
    ///
    /// An RMW, as are the changes: if it comes before the change that made the
    /// pCPU idle, then whoever made that change sees, by way of this write, the
    /// word that says HELD, and lets go of it; if it comes after, it sees the
    /// change. So an idle pCPU and a held vCPU do not miss each other.
    pub(crate) fn settle(&self) -> Counts {
        Counts::of(self.counts.fetch_add(0, AcqRel))
    }

    /// The counts, a moment ago, of what this crate sees.
    #[inline]
    pub(crate) fn counts(&self) -> Counts {
        Counts::of(self.counts.load(Relaxed))
    }

    /// The counts, a moment ago, without those that sleep in a halt elsewhere.
    pub(crate) fn true_counts(&self) -> Counts {
        let counts = self.counts();
        Counts {
            running: counts.running.saturating_sub(self.halted_elsewhere()),
            ..counts
        }
    }

    fn halted_elsewhere(&self) -> usize {
        self.elsewhere.as_ref().map_or(0, |count| (count.0)())
    }

    /// Whether vCPUs halt where this crate does not see it.
    pub(crate) const fn halts_elsewhere(&self) -> bool {
        self.elsewhere.is_some()
    }

    /// Whether a pCPU idles, as far as this VM goes, and somebody is held.
    #[inline]
    pub(crate) fn idles(&self, counts: Counts) -> bool {
        counts.held > 0 && counts.running < self.pcpus()
    }

    /// Whether a pCPU would idle, as far as this VM goes, if one of those that run
    /// slept, and somebody is held.
    #[inline]
    pub(crate) fn would_idle(&self) -> bool {
        let counts = self.counts();
        counts.held > 0 && counts.running <= self.pcpus()
    }

    /// Whether more vCPUs want to run than there are pCPUs.
    #[inline]
    pub(crate) fn crowded(&self) -> bool {
        self.counts().running > self.pcpus()
    }

    #[inline]
    pub(crate) fn pcpus(&self) -> usize {
        // Relaxed, here and below: a number, which publishes nothing.
        self.pcpus.load(Relaxed) & !GIVEN
    }

    /// From now on there are so many, whatever the platform says.
    pub(crate) fn set_pcpus(&self, n: usize) {
        self.pcpus.store(number(n) | GIVEN, Relaxed);
    }

    /// Asks the platform how many there are now, unless the VMM has said so.
    pub(crate) fn follow_pcpus(&self) {
        let before = self.pcpus.load(Relaxed);
        if before & GIVEN != 0 {
            return;
        }
        let now = number(P::pcpus());
        if now != before {
            // It fails if somebody else has changed it meanwhile: the VMM, whose
            // word counts, or another one that has asked as well.
            let _ = (self.pcpus).compare_exchange(before, now, Relaxed, Relaxed);
        }
    }
}

/// A number of pCPUs without the bit that [`GIVEN`] takes; one at least.
fn number(n: usize) -> usize {
    n.clamp(1, GIVEN - 1)
}

#[cfg(test)]
mod tests;
