//! The half that everyone but the owner holds.

use std::sync::atomic::Ordering::Relaxed;

use crate::apic_id::ApicId;
use crate::outcome::KickOutcome;
use crate::scheduler::Shared;
use crate::slot::{Signalled, Slot};
use crate::state::{Event, State};
use crate::sync::Arc;

/// Wakes, pauses and stops vCPUs, from any thread.
#[derive(Clone, Debug)]
pub struct Kicker {
    shared: Arc<Shared>,
}

impl Kicker {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// `KVM_HC_KICK_CPU`: ends the halt of the vCPU with this APIC ID, or its
    /// next one. What this thread wrote before is seen by the vCPU after it.
    #[inline]
    pub fn kick(&self, id: ApicId) -> KickOutcome {
        self.shared.kick(id, None)
    }

    /// Announces an interrupt, NMI or INIT: as [`Kicker::kick`], but told apart.
    #[inline]
    pub fn notify(&self, id: ApicId) -> KickOutcome {
        let shared = &*self.shared;
        match shared.table.get(id) {
            Some(index) => {
                let slot = shared.slot(index);
                let signalled = slot.notify();
                shared.after(index, slot, signalled, None);
                signalled.outcome
            }
            None => shared.no_such_vcpu(),
        }
    }

    /// Kicks every vCPU, as a kick with a broadcast destination does (on KVM,
    /// APIC ID 0xff unless userspace turned that quirk off); gives the number
    /// of those it woke.
    pub fn kick_all(&self) -> usize {
        (0..)
            .zip(&self.shared.slots)
            .filter(|(index, slot)| self.shared.kick_slot(*index, slot, None) == KickOutcome::Woke)
            .count()
    }

    /// Makes every halt return [`WakeReason::Paused`](crate::WakeReason::Paused)
    /// until [`Kicker::resume_all`]. Kicks go on being latched.
    ///
    /// A vCPU that runs guest code does not notice: interrupt it (by a signal)
    /// and have it look at [`VcpuParker::pending`](crate::VcpuParker::pending).
    pub fn pause_all(&self) {
        self.all(Event::Pause);
    }

    /// Ends a pause.
    pub fn resume_all(&self) {
        self.all(Event::Resume);
    }

    /// Makes every halt return [`WakeReason::Stopped`](crate::WakeReason::Stopped),
    /// from now on and for ever.
    pub fn stop_all(&self) {
        self.all(Event::Stop);
    }

    fn all(&self, event: Event) {
        for (index, slot) in (0..).zip(&self.shared.slots) {
            let signalled = slot.signal(event);
            self.shared.load.account(signalled.before, signalled.after);
            if signalled.wake {
                slot.wake();
            }
            if let Some(gate) = &self.shared.gate {
                gate.nudge(index);
            }
        }
    }
}

/// The vCPU whose guest kicks, as its own thread says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct By {
    pub(crate) index: usize,
    /// It was kicked out of a halt, and has kicked nobody since.
    pub(crate) was_kicked: bool,
}

impl Shared {
    #[inline]
    pub(crate) fn kick(&self, id: ApicId, by: Option<By>) -> KickOutcome {
        match self.table.get(id) {
            Some(index) => self.kick_slot(index, self.slot(index), by),
            None => self.no_such_vcpu(),
        }
    }

    #[inline]
    fn kick_slot(&self, index: usize, slot: &Slot, by: Option<By>) -> KickOutcome {
        let signalled = slot.kick();
        self.after(index, slot, signalled, by);
        // Behind the wake-up: the sleeper need not wait for it.
        if self.counting {
            slot.kicks.count(signalled.outcome);
        }
        signalled.outcome
    }

    /// What a kick or a notification owes once the word is set.
    #[inline]
    fn after(&self, index: usize, slot: &Slot, signalled: Signalled, by: Option<By>) {
        // Nothing is owed for one that is not asleep, and whether it wants to
        // run has not changed.
        if signalled.before.has(State::PARKED) {
            self.load.account(signalled.before, signalled.after);
            if signalled.wake {
                self.wake(index, slot, by);
            }
        }
    }

    #[inline]
    fn wake(&self, index: usize, slot: &Slot, by: Option<By>) {
        if self.counting {
            slot.kicks.stamp(|| self.now());
        }
        if let Some(gate) = &self.gate {
            let convoy = |by: By| by.was_kicked && self.load.any_idle();
            let kicker = by.map(|by| (by.index, convoy(by)));
            gate.kicked(index, kicker, &self.slots);
        }
        slot.wake();
        if self.sched_yield && self.load.crowded() {
            std::thread::yield_now();
        }
    }

    #[cold]
    fn no_such_vcpu(&self) -> KickOutcome {
        // Relaxed: a statistic.
        self.no_such_vcpu.fetch_add(1, Relaxed);
        KickOutcome::NoSuchVcpu
    }
}
