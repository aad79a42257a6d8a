//! The half that everyone but the owner holds.

use std::sync::atomic::Ordering::Relaxed;

use crate::apic_id::ApicId;
use crate::outcome::KickOutcome;
use crate::scheduler::Shared;
use crate::slot::{Signalled, Slot};
use crate::state::Event;
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
        match self.shared.table.get(id) {
            Some(index) => self.kick_slot(index, self.shared.slot(index)),
            None => self.no_such_vcpu(),
        }
    }

    /// Announces an interrupt, NMI or INIT: as [`Kicker::kick`], but told apart.
    #[inline]
    pub fn notify(&self, id: ApicId) -> KickOutcome {
        match self.shared.table.get(id) {
            Some(index) => {
                let slot = self.shared.slot(index);
                let signalled = slot.notify();
                self.after(index, slot, signalled);
                signalled.outcome
            }
            None => self.no_such_vcpu(),
        }
    }

    /// Kicks every vCPU, as a kick with a broadcast destination does (on KVM,
    /// APIC ID 0xff unless userspace turned that quirk off); gives the number
    /// of those it woke.
    pub fn kick_all(&self) -> usize {
        (0..)
            .zip(&self.shared.slots)
            .filter(|(index, slot)| self.kick_slot(*index, slot) == KickOutcome::Woke)
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

    #[inline]
    fn kick_slot(&self, index: usize, slot: &Slot) -> KickOutcome {
        let signalled = slot.kick();
        if self.shared.counting {
            slot.kicks.count(signalled.outcome);
        }
        self.after(index, slot, signalled);
        signalled.outcome
    }

    /// What a kick or a notification owes once the word is set.
    #[inline]
    fn after(&self, index: usize, slot: &Slot, signalled: Signalled) {
        let shared = &*self.shared;
        shared.load.account(signalled.before, signalled.after);
        if signalled.wake {
            self.wake(index, slot);
        }
    }

    #[inline]
    fn wake(&self, index: usize, slot: &Slot) {
        let shared = &*self.shared;
        if shared.counting {
            slot.kicks.stamp(|| shared.now());
        }
        if let Some(gate) = &shared.gate {
            gate.kicked(index, slot);
        }
        slot.wake();
        if shared.sched_yield && shared.load.crowded() {
            std::thread::yield_now();
        }
    }

    #[cold]
    fn no_such_vcpu(&self) -> KickOutcome {
        // Relaxed: a statistic.
        self.shared.no_such_vcpu.fetch_add(1, Relaxed);
        KickOutcome::NoSuchVcpu
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
