//! The half that everyone but the owner holds.

use std::sync::atomic::Ordering::Relaxed;

use crate::apic_id::ApicId;
use crate::outcome::KickOutcome;
use crate::scheduler::Shared;
use crate::slot::Slot;
use crate::state::{Action, Event, State};
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
        self.with(id, Slot::kick)
    }

    /// Announces an interrupt, NMI or INIT: as [`Kicker::kick`], but told apart.
    #[inline]
    pub fn notify(&self, id: ApicId) -> KickOutcome {
        self.with(id, Slot::notify)
    }

    /// Kicks every vCPU, as a kick with a broadcast destination does; gives the
    /// number of those it woke.
    pub fn kick_all(&self) -> usize {
        let mut woken = 0;
        for slot in &self.shared.slots {
            if self.signal(slot, Slot::kick) == KickOutcome::Woke {
                woken += 1;
            }
        }
        woken
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
    fn with(&self, id: ApicId, act: fn(&Slot) -> (State, KickOutcome, bool)) -> KickOutcome {
        match self.shared.table.get(id) {
            Some(index) => self.signal(self.shared.slot(index), act),
            None => {
                // Relaxed: a statistic.
                self.shared.no_such_vcpu.fetch_add(1, Relaxed);
                KickOutcome::NoSuchVcpu
            }
        }
    }

    #[inline]
    fn signal(&self, slot: &Slot, act: fn(&Slot) -> (State, KickOutcome, bool)) -> KickOutcome {
        let (_, outcome, wake) = act(slot);
        if wake {
            slot.wake();
        }
        outcome
    }

    fn all(&self, event: Event) {
        for slot in &self.shared.slots {
            let (_, _, action) = slot.apply(event);
            if let Action::Signal { wake: true, .. } = action {
                slot.wake();
            }
        }
    }
}
