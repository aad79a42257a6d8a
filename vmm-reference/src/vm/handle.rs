//! Pause, resume and stop, from any thread.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pv_lock_host::{HaltScheduler, Kicker};
use vmm_sys_util::eventfd::EventFd;

use crate::signals::ending::{self, Interrupted};
use crate::threads::VcpuThreads;
use crate::vcpu::PauseListener;

/// How long a pause may take to reach every vCPU.
const PAUSE_LIMIT: Duration = Duration::from_secs(1);
/// A vCPU's thread rings, and some instructions later its slot says that it is
/// paused. Whoever was woken in between looks again after this time, ...
const LOOK_AGAIN: Duration = Duration::from_micros(20);
/// ... and after this one while some have not arrived.
const LOOK_ONCE_MORE: Duration = Duration::from_millis(1);

/// Why a pause was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotPaused {
    /// A vCPU has not left the guest within a second.
    #[error("vCPU {index} did not pause within {} s", PAUSE_LIMIT.as_secs())]
    Running {
        /// The vCPU's index.
        index: usize,
    },
    /// A signal asked for the end of the process meanwhile.
    #[error(transparent)]
    Ending(#[from] Interrupted),
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
    /// A vCPU does not leave the guest: its output has stalled, for one. Or the
    /// process is to end. Then all run on.
    pub fn pause(&self) -> Result<(), NotPaused> {
        let limit = Instant::now() + PAUSE_LIMIT;
        self.kicker.pause_all();
        self.threads.make_all_leave();
        while !self.is_quiet() {
            if Instant::now() > limit {
                let index = self.first_running();
                self.resume();
                return Err(NotPaused::Running { index });
            }
            if let Err(interrupted) = ending::check() {
                self.resume();
                return Err(interrupted.into());
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

    /// How long its vCPUs, ready to run, were held back by the scheduler, in
    /// nanoseconds, summed. The kernel does not know: their threads slept.
    pub fn held_ns(&self) -> u64 {
        self.scheduler.counters().total().held_ns
    }

    /// `running`, `paused` or `ended`, a word a vCPU.
    pub fn states(&self) -> Vec<&'static str> {
        let quiet = self.is_quiet();
        let state = |stage: &Stage| match stage {
            Stage::Ended => "ended",
            _ if quiet => "paused",
            _ => "running",
        };
        self.bell.lock().iter().map(state).collect()
    }

    /// The first vCPU that has ended.
    pub(super) fn first_ended(&self) -> Option<usize> {
        let vcpus = self.bell.lock();
        vcpus.iter().position(|&stage| stage == Stage::Ended)
    }

    /// Whether somebody has paused it, and all have arrived.
    pub fn is_paused(&self) -> bool {
        self.is_quiet()
    }

    /// No vCPU runs guest code, nor will one before it is resumed, and what the
    /// guests wrote before is seen. The slots say so: whatever pauses a vCPU and
    /// whatever it answers goes through one word, so that a vCPU of an earlier
    /// pause can't be taken for one of this.
    fn is_quiet(&self) -> bool {
        self.scheduler.is_quiescent()
    }

    /// Some vCPU that is not paused; the first if this very instant all are.
    fn first_running(&self) -> usize {
        let under_way = |&stage: &Stage| stage == Stage::UnderWay;
        self.bell.lock().iter().position(under_way).unwrap_or(0)
    }
}

/// Rung by the vCPUs' threads when they have arrived at a pause or at their end,
/// so that nobody has to look again and again.
pub(super) struct Bell {
    vcpus: Mutex<Vec<Stage>>,
    all_arrived: Condvar,
}

/// How far a vCPU's thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It runs its guest, or sleeps while that is halted.
    UnderWay,
    /// It sleeps through a pause, or is about to.
    Arrived,
    /// It has reported its end.
    Ended,
}

impl Bell {
    pub(super) fn new(vcpus: usize) -> Self {
        Self {
            vcpus: Mutex::new(vec![Stage::UnderWay; vcpus]),
            all_arrived: Condvar::new(),
        }
    }

    // Whoever panicked with the lock left stages, no invariant.
    fn lock(&self) -> MutexGuard<'_, Vec<Stage>> {
        self.vcpus.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, index: usize, stage: Stage) {
        let mut vcpus = self.lock();
        if let Some(of) = vcpus.get_mut(index) {
            *of = stage;
        }
        let all = vcpus.iter().all(|&stage| stage != Stage::UnderWay);
        drop(vcpus);
        if all {
            self.all_arrived.notify_all();
        }
    }

    /// The vCPU's thread has reported its end.
    pub(super) fn ended(&self, index: usize) {
        self.set(index, Stage::Ended);
    }

    /// Waits until all have arrived, for a bounded time: the slots are what counts.
    fn wait(&self) {
        let vcpus = self.lock();
        let time = match vcpus.iter().all(|&stage| stage != Stage::UnderWay) {
            true => LOOK_AGAIN,
            false => LOOK_ONCE_MORE,
        };
        let wait = self.all_arrived.wait_timeout(vcpus, time);
        drop(wait.unwrap_or_else(PoisonError::into_inner));
    }
}

/// The bell, for the thread of the vCPU with this index.
pub(super) struct BellOf<'a>(pub(super) &'a Bell, pub(super) usize);

impl PauseListener for BellOf<'_> {
    fn falls_asleep(&self) {
        self.0.set(self.1, Stage::Arrived);
    }

    fn wakes(&self) {
        self.0.set(self.1, Stage::UnderWay);
    }
}
