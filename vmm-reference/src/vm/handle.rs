//! Pause, resume and stop, from any thread.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pv_lock_host::{HaltScheduler, Kicker, SavedError};
use vmm_sys_util::eventfd::EventFd;

use crate::threads::VcpuThreads;
use crate::vcpu::PauseListener;

/// How long a pause may take to reach every vCPU.
const PAUSE_LIMIT: Duration = Duration::from_secs(1);
/// A vCPU's thread rings, and some instructions later its slot says that it is
/// paused. Whoever was woken in between looks again after this time, ...
const LOOK_AGAIN: Duration = Duration::from_micros(20);
/// ... and after this one while some have not rung.
const LOOK_ONCE_MORE: Duration = Duration::from_millis(1);

/// The vCPU that has not left the guest within a second; the pause was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("vCPU {index} did not pause within {} s", PAUSE_LIMIT.as_secs())]
pub struct NotPaused {
    /// The vCPU's index.
    pub index: usize,
}

/// Pauses, resumes and stops a running VM.
#[derive(Clone)]
pub struct VmHandle {
    pub(super) scheduler: Arc<HaltScheduler>,
    pub(super) kicker: Kicker,
    pub(super) threads: VcpuThreads,
    pub(super) bell: Arc<Bell>,
    pub(super) stop_request: Arc<EventFd>,
}

impl fmt::Debug for VmHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VmHandle").finish_non_exhaustive()
    }
}

impl VmHandle {
    /// Pauses every vCPU; returns when none runs guest code any more, and what
    /// their guests wrote is seen.
    ///
    /// # Errors
    /// A vCPU does not leave the guest: its output has stalled, for one. Then all
    /// run on.
    pub fn pause(&self) -> Result<(), NotPaused> {
        let limit = Instant::now() + PAUSE_LIMIT;
        self.bell.expect_all();
        self.kicker.pause_all();
        self.threads.make_all_leave();
        while !self.is_quiet() {
            if Instant::now() > limit {
                let index = self.first_running();
                self.resume();
                return Err(NotPaused { index });
            }
            self.bell.wait();
        }
        Ok(())
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.kicker.resume_all();
    }

    /// Asks the VM's loop to end the VM, as SIGTERM does.
    pub fn ask_to_stop(&self) {
        // It fails only when the counter is full, and then the loop will wake.
        let _ = self.stop_request.write(1);
    }

    /// `running`, `paused` or `ended`, a word a vCPU.
    pub fn states(&self) -> Vec<&'static str> {
        let quiet = self.is_quiet();
        let state = |&ended: &bool| match (ended, quiet) {
            (true, _) => "ended",
            (false, true) => "paused",
            (false, false) => "running",
        };
        self.bell.lock().ended.iter().map(state).collect()
    }

    /// No vCPU runs guest code, nor will one before it is resumed: the slots say
    /// so, and what the guests wrote before is seen. Whatever pauses a vCPU and whatever it answers goes through one word,
    /// so that a vCPU of an earlier pause can't be taken for one of this.
    fn is_quiet(&self) -> bool {
        self.scheduler.is_quiescent()
    }

    /// Some vCPU that is not paused.
    fn first_running(&self) -> usize {
        match self.scheduler.save() {
            // APIC IDs are indexes.
            Err(SavedError::NotPaused(id) | SavedError::Mismatch(id)) => id.0 as usize,
            // It has become quiet this instant.
            _ => 0,
        }
    }
}

/// Rung by the vCPUs' threads when they pause or end, so that nobody has to look
/// again and again. It says only when to look: what there is to see is in the
/// slots.
pub(super) struct Bell {
    state: Mutex<BellState>,
    rung_by_all: Condvar,
}

pub(super) struct BellState {
    /// vCPUs that have yet to ring, as of [`Bell::expect_all`].
    missing: usize,
    /// vCPUs that have rung and not woken since.
    asleep: usize,
    /// By index: the vCPU's thread has reported its end.
    ended: Vec<bool>,
}

impl Bell {
    pub(super) fn new(vcpus: usize) -> Self {
        Self {
            state: Mutex::new(BellState {
                missing: 0,
                asleep: 0,
                ended: vec![false; vcpus],
            }),
            rung_by_all: Condvar::new(),
        }
    }

    // Whoever panicked with the lock left a counter, no invariant.
    fn lock(&self) -> MutexGuard<'_, BellState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, every vCPU is to ring that has not ended and does not sleep:
    /// one that the last resume has not woken yet goes on sleeping.
    fn expect_all(&self) {
        let mut state = self.lock();
        let running = state.ended.iter().filter(|&&ended| !ended).count();
        state.missing = running.saturating_sub(state.asleep);
    }

    /// A vCPU has ended.
    pub(super) fn ring_ended(&self, index: usize) {
        let mut state = self.lock();
        if let Some(ended) = state.ended.get_mut(index) {
            *ended = true;
        }
        self.ring_with(state);
    }

    fn ring_with(&self, mut state: MutexGuard<'_, BellState>) {
        state.missing = state.missing.saturating_sub(1);
        let all = state.missing == 0;
        drop(state);
        if all {
            self.rung_by_all.notify_all();
        }
    }

    /// Waits until all have rung, for a bounded time: this is not the truth.
    fn wait(&self) {
        let state = self.lock();
        let wait = match state.missing {
            0 => self.rung_by_all.wait_timeout(state, LOOK_AGAIN),
            _ => self.rung_by_all.wait_timeout(state, LOOK_ONCE_MORE),
        };
        drop(wait.unwrap_or_else(PoisonError::into_inner));
    }
}

impl PauseListener for Bell {
    fn falls_asleep(&self) {
        let mut state = self.lock();
        state.asleep += 1;
        self.ring_with(state);
    }

    fn wakes(&self) {
        let mut state = self.lock();
        state.asleep = state.asleep.saturating_sub(1);
    }
}
