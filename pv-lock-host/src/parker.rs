//! The half that a vCPU's own thread holds.

use core::cell::Cell;
use core::marker::PhantomData;
use std::time::Instant;

use crate::apic_id::ApicId;
use crate::counters::HaltCounters;
use crate::kicker::By;
use crate::outcome::{KickOutcome, Resumed, WakeReason};
use crate::polling::Window;
use crate::scheduler::Shared;
use crate::slot::Slot;
use crate::state::{Action, Event, State};
use crate::sync::{Arc, FutexWait, POLL_ROUNDS, poll_pause};

/// Puts one vCPU's thread to sleep while its guest is halted. `Send`, so that
/// it can be moved to that thread, but not `Sync`: a vCPU halts once at a time.
///
/// ```compile_fail,E0277
/// fn shared<T: Sync>() {}
/// shared::<pv_lock_host::VcpuParker>();
/// ```
#[derive(Debug)]
pub struct VcpuParker {
    shared: Arc<Shared>,
    index: usize,
    window: Window,
    /// The last halt slept and was ended by a kick, and no kick came of it yet.
    was_kicked: bool,
    _not_sync: PhantomData<Cell<()>>,
}

impl VcpuParker {
    pub(crate) fn new(shared: Arc<Shared>, index: usize, window: Window) -> Self {
        Self {
            shared,
            index,
            window,
            was_kicked: false,
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

    #[inline]
    fn halt_for(&mut self, deadline: Option<Instant>) -> WakeReason {
        let shared = &*self.shared;
        let slot = shared.slot(self.index);
        let poll_ns = match self.window.begin() {
            ns if ns > 0 && !shared.load.crowded() => ns,
            _ => 0,
        };
        let first = if poll_ns > 0 {
            Event::Poll
        } else {
            Event::Park
        };
        let (before, state, action) = slot.apply(first);
        shared.load.account(before, state);
        let reason = match action {
            Action::Leave(reason) => reason,
            _ => self.wait(state, deadline, poll_ns),
        };
        if self.shared.counting {
            self.slot().halt_counters().count(reason);
        }
        reason
    }

    /// The rest of a halt that does not return at once.
    #[inline(never)]
    fn wait(&mut self, state: State, deadline: Option<Instant>, poll_ns: u64) -> WakeReason {
        let shared = &*self.shared;
        let slot = shared.slot(self.index);
        let counters = shared.counting.then(|| slot.halt_counters());
        let timed = counters.filter(|counters| counters.times_this_one());
        let adapts = self.window.adapts() && !shared.load.crowded();
        let began = match poll_ns > 0 || adapts || timed.is_some() {
            true => shared.now(),
            false => 0,
        };

        let mut state = state;
        let reason = 'halt: {
            if poll_ns > 0 {
                let won = poll(shared, slot, began + poll_ns, deadline);
                if let Some(counters) = counters {
                    counters.count_poll(won);
                }
                let (before, after, action) = slot.apply(Event::Park);
                shared.load.account(before, after);
                if let Action::Leave(reason) = action {
                    break 'halt reason;
                }
                state = after;
            }
            if let Some(counters) = counters {
                counters.count_sleep();
                slot.kicks.time_next_wake(timed.is_some());
            }
            sleep(shared, self.index, state, deadline, counters)
        };

        if adapts || timed.is_some() {
            let now = shared.now();
            let halted = now.saturating_sub(began);
            if let Some(timed) = timed {
                timed.halt_time.record(halted);
                if let Some(woken_at) = slot.kicks.woken_at(began) {
                    timed.kick_to_run.record(now.saturating_sub(woken_at));
                }
            }
            if adapts {
                self.window.end(halted);
            }
        }
        self.was_kicked = reason == WakeReason::Kicked;
        reason
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
        let shared = &*self.shared;
        let slot = self.slot();
        loop {
            let (before, state, action) = slot.apply(Event::AwaitResume);
            shared.load.account(before, state);
            if let Action::Resume(resumed) = action {
                return resumed;
            }
            if let Some(gate) = &shared.gate {
                gate.leave(self.index, &self.shared.slots);
            }
            slot.sleep(state, None);
        }
    }

    /// For a VMM with nothing of its own to do in a pause: sleeps through it if
    /// that is the `reason`, and halts again if the vCPU was halted. Says
    /// whether to go on; if not, the VM was stopped.
    pub fn go_on(&mut self, reason: WakeReason) -> bool {
        let mut reason = reason;
        loop {
            match reason {
                WakeReason::Stopped => return false,
                WakeReason::Paused => match self.wait_resumed() {
                    Resumed::Running => return true,
                    Resumed::Halted => reason = self.halt(),
                    Resumed::Stopped => return false,
                },
                WakeReason::Kicked | WakeReason::Event | WakeReason::TimedOut => return true,
            }
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

    /// `KVM_HC_KICK_CPU` by this vCPU's guest: as [`Kicker::kick`], and what
    /// the policy has the kicker do for the vCPU that it woke
    /// ([`Yielding`](crate::Yielding)) is done by this one.
    ///
    /// [`Kicker::kick`]: crate::Kicker::kick
    #[inline]
    pub fn kick(&mut self, id: ApicId) -> KickOutcome {
        let by = By {
            index: self.index,
            was_kicked: self.was_kicked,
        };
        let outcome = self.shared.kick(id, Some(by));
        if outcome == KickOutcome::Woke {
            self.was_kicked = false;
        }
        outcome
    }

    /// To be called right before each run of the guest: takes a place among
    /// those that run, if their number is capped
    /// ([`Yielding::Cap`](crate::Yielding::Cap)), and then answers as
    /// [`VcpuParker::pending`] does: if there is something, do not run.
    ///
    /// Without a cap, or with no more vCPUs than it allows, it is that one
    /// relaxed load.
    #[inline]
    pub fn enter(&mut self) -> Option<WakeReason> {
        if let Some(gate) = &self.shared.gate
            && !gate.admits(self.index)
        {
            while self.pending().is_none()
                && !gate.enter(self.index, self.slot(), &self.shared.slots)
            {}
        }
        self.pending()
    }
}

impl Drop for VcpuParker {
    fn drop(&mut self) {
        let (before, after, _) = self.slot().apply(Event::Detach);
        self.shared.load.account(before, after);
        if let Some(gate) = &self.shared.gate {
            gate.leave(self.index, &self.shared.slots);
        }
    }
}

/// Looks for a reason to leave until `end` (ns) or `deadline`, or until the
/// CPUs are wanted by others; says whether there is one.
fn poll(shared: &Shared, slot: &Slot, end: u64, deadline: Option<Instant>) -> bool {
    loop {
        for _ in 0..POLL_ROUNDS {
            if slot.peek().leaves_halt() {
                return true;
            }
            poll_pause();
        }
        let over = shared.load.crowded()
            || shared.now() >= end
            || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if over || cfg!(any(loom, shuttle)) {
            return false;
        }
        // KVM ends a poll when another task wants this CPU. That cannot be
        // seen from here, and the other may be the very kicker: let it run.
        std::thread::yield_now();
    }
}

/// Sleeps, in `state`, which has PARKED, until there is a reason to leave.
fn sleep(
    shared: &Shared,
    index: usize,
    state: State,
    deadline: Option<Instant>,
    counters: Option<&HaltCounters>,
) -> WakeReason {
    let slot = shared.slot(index);
    let mut state = state;
    loop {
        if let Some(gate) = &shared.gate {
            gate.leave(index, &shared.slots);
        }
        let event = match slot.sleep(state, deadline) {
            FutexWait::LookAgain => Event::Park,
            FutexWait::DeadlinePassed => Event::Expire,
        };
        let (before, after, action) = slot.apply_awake(event, state);
        shared.load.account(before, after);
        if let Action::Leave(reason) = action {
            return reason;
        }
        if let Some(counters) = counters {
            counters.count_spurious();
        }
        state = after;
    }
}
