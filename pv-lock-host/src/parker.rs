//! The half that a vCPU's own thread holds.

use core::cell::Cell;
use core::marker::PhantomData;
use std::time::Instant;

use crate::apic_id::ApicId;
use crate::outcome::{Resumed, WakeReason};
use crate::scheduler::Shared;
use crate::slot::Slot;
use crate::state::{Action, Event, State};
use crate::sync::{Arc, FutexWait};

/// Puts one vCPU's thread to sleep while its guest is halted. `Send`, so that
/// it can be moved to that thread, but not `Sync`: a vCPU halts once at a time.
#[derive(Debug)]
pub struct VcpuParker {
    shared: Arc<Shared>,
    index: usize,
    _not_sync: PhantomData<Cell<()>>,
}

impl VcpuParker {
    pub(crate) fn new(shared: Arc<Shared>, index: usize) -> Self {
        Self {
            shared,
            index,
            _not_sync: PhantomData,
        }
    }

    #[inline]
    fn slot(&self) -> &Slot {
        self.shared.slot(self.index)
    }

    /// Whose parker this is.
    pub fn apic_id(&self) -> ApicId {
        self.slot().apic_id()
    }

    /// HLT: sleeps until a reason to go on, or returns at once if there is one.
    #[inline]
    pub fn halt(&mut self) -> WakeReason {
        self.halt_for(None)
    }

    /// [`VcpuParker::halt`], but not beyond `deadline` (a guest timer).
    #[inline]
    pub fn halt_until(&mut self, deadline: Instant) -> WakeReason {
        self.halt_for(Some(deadline))
    }

    fn halt_for(&mut self, deadline: Option<Instant>) -> WakeReason {
        let slot = self.slot();
        loop {
            let (_, state, action) = slot.apply(Event::Park);
            if let Action::Leave(reason) = action {
                return reason;
            }
            if slot.sleep(state, deadline) == FutexWait::DeadlinePassed
                && let (_, _, Action::Leave(reason)) = slot.apply(Event::Expire)
            {
                return reason;
            }
        }
    }

    /// Whether the VM is being paused or stopped; looked at before each run of
    /// the guest and whenever a signal ended one. One relaxed load.
    #[inline]
    pub fn pending(&self) -> Option<WakeReason> {
        let state = self.slot().peek();
        if state.has(State::STOP) {
            Some(WakeReason::Stopped)
        } else if state.has(State::PAUSE) {
            Some(WakeReason::Paused)
        } else {
            None
        }
    }

    /// Sleeps while the VM is paused.
    pub fn wait_resumed(&mut self) -> Resumed {
        let slot = self.slot();
        loop {
            let (_, state, action) = slot.apply(Event::AwaitResume);
            if let Action::Resume(resumed) = action {
                return resumed;
            }
            slot.sleep(state, None);
        }
    }

    /// Whether the vCPU is halted: after a restore or a pause, halt again
    /// instead of running it.
    pub fn is_halted(&self) -> bool {
        self.slot().peek().has(State::HALTED)
    }

    /// Clears a latched event; to be called before the interrupt controller is
    /// read for something to inject, so that an announcement after the reading
    /// is not lost and one before it does not end a halt for nothing.
    #[inline]
    pub fn take_event(&mut self) -> bool {
        let slot = self.slot();
        slot.peek().has(State::EVENT) && slot.apply(Event::Acknowledge).0.has(State::EVENT)
    }

    /// To be called right before the guest runs.
    #[inline]
    pub fn enter(&mut self) {}

    /// To be called right after the guest ran.
    #[inline]
    pub fn exit(&mut self) {}
}

impl Drop for VcpuParker {
    fn drop(&mut self) {
        self.slot().apply(Event::Detach);
    }
}
