//! What all handles of one VM share, and what is done on behalf of whoever
//! changes a word.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use alloc::boxed::Box;

use crate::apic_id::ApicId;
use crate::convoy::Convoy;
use crate::load::Load;
use crate::outcome::KickOutcome;
use crate::platform::{Place, Platform};
use crate::slot::{Signalled, Slot};
use crate::state::{Demand, Event, State};
use crate::table::ApicTable;

/// Immutable but for the atomics.
#[derive(Debug)]
pub(crate) struct Shared<P: Platform> {
    pub(crate) slots: Box<[Slot<P>]>,
    pub(crate) table: ApicTable,
    /// Kicks and notifications for ids that no vCPU has.
    pub(crate) no_such_vcpu: AtomicU64,
    /// Whether kicks and halts are counted.
    pub(crate) counting: bool,
    /// Whether a kicker's thread yields after a kick, if it is crowded.
    pub(crate) sched_yield: bool,
    /// The convoy rule, unless it is off.
    pub(crate) convoy: Option<Convoy>,
    pub(crate) load: Load<P>,
}

impl<P: Platform> Shared<P> {
    #[inline]
    #[expect(
        clippy::indexing_slicing,
        reason = "an index comes from the table or from build, and slots never change"
    )]
    pub(crate) fn slot(&self, index: usize) -> &Slot<P> {
        &self.slots[index]
    }

    /// A kick by the host, or by whoever is not a vCPU.
    #[inline]
    pub(crate) fn kick(&self, id: ApicId) -> KickOutcome {
        match self.table.get(id) {
            Some(index) => self.kick_slot(self.slot(index)),
            None => self.no_such_vcpu(),
        }
    }

    #[inline]
    pub(crate) fn kick_slot(&self, slot: &Slot<P>) -> KickOutcome {
        let signalled = slot.kick();
        self.follow(slot, signalled);
        self.count_kick(slot, signalled.outcome);
        signalled.outcome
    }

    /// Behind the wake-up: the sleeper need not wait for it.
    #[inline]
    pub(crate) fn count_kick(&self, slot: &Slot<P>, outcome: KickOutcome) {
        if self.counting {
            slot.kicks.count(outcome);
        }
    }

    /// An event from outside for one vCPU.
    pub(crate) fn signal(&self, slot: &Slot<P>, event: Event) -> Signalled {
        let signalled = slot.signal(event);
        self.follow(slot, signalled);
        signalled
    }

    /// What a change of another's word owes, once it is made.
    #[inline]
    pub(crate) fn follow(&self, slot: &Slot<P>, signalled: Signalled) {
        // One that is not asleep is owed nothing, and wants what it wanted.
        if signalled.before.has(State::PARKED) {
            self.load.account(signalled.before, signalled.after);
            if signalled.wake {
                if self.counting {
                    slot.kicks.stamp(P::now);
                }
                slot.wake();
            }
        }
    }

    #[cold]
    pub(crate) fn no_such_vcpu(&self) -> KickOutcome {
        // Relaxed: a statistic.
        self.no_such_vcpu.fetch_add(1, Relaxed);
        KickOutcome::NoSuchVcpu
    }

    /// How many vCPUs are held for longer than `me`, since `since`.
    pub(crate) fn ahead_of(&self, me: usize, since: u64) -> usize {
        let mine = (since, me);
        self.held().filter(|&theirs| theirs < mine).count()
    }

    /// Since when which vCPUs are held.
    fn held(&self) -> impl Iterator<Item = (u64, usize)> {
        (self.slots.iter().zip(0..))
            .filter(|(slot, _)| slot.look().demand() == Demand::Held)
            .map(|(slot, index)| (slot.since(), index))
    }

    /// [7] Lets the vCPU go that is held for longest. To be called by a thread
    /// whose pCPU would idle.
    pub(crate) fn release_one(&self, convoy: &Convoy) {
        // Each turn finds one that somebody else has let go meanwhile, so there
        // are at most as many turns as vCPUs.
        for _ in 0..self.slots.len() {
            let Some((_, index)) = self.held().min() else {
                return;
            };
            let slot = self.slot(index);
            let signalled = self.signal(slot, Event::Release);
            if signalled.before.demand() == Demand::Held {
                convoy.let_go(P::now());
                return;
            }
        }
    }

    /// [8] For a thread that is about to sleep: if the other vCPUs that want to
    /// run are as many as there are pCPUs, and two of them are on one, brings one
    /// of these two here.
    pub(crate) fn pull(&self, me: usize) {
        let counts = self.load.counts();
        if counts.held == 0 || counts.running < self.load.pcpus() {
            return;
        }
        let Some(Place { pcpu: here, .. }) = P::here() else {
            return;
        };
        let mut seen = Pcpus::default();
        let (mut woken, mut second) = (None, None);
        for (slot, index) in self.slots.iter().zip(0..) {
            let state = slot.peek();
            if index == me || state.demand() != Demand::Run {
                continue;
            }
            let Some(Place { pcpu, thread }) = slot.place() else {
                continue;
            };
            if state.has(State::PARKED) {
                // It has been woken and does not run yet: it waits for a pCPU,
                // and where it ran before says nothing.
                woken = Some((slot, thread));
            } else if pcpu == here {
                return;
            } else if seen.insert(pcpu) {
                second = Some((slot, thread));
            }
        }
        if let Some((slot, thread)) = woken.or(second) {
            P::pull(thread);
            slot.set_place(Place { pcpu: here, thread });
        }
    }
}

/// A set of the first 1,024 pCPUs.
#[derive(Default)]
struct Pcpus([u64; 16]);

impl Pcpus {
    /// Whether it was there already.
    fn insert(&mut self, pcpu: u32) -> bool {
        let Some(bits) = self.0.get_mut(pcpu as usize / 64) else {
            return false;
        };
        let bit = 1 << (pcpu % 64);
        let was = *bits & bit != 0;
        *bits |= bit;
        was
    }
}
