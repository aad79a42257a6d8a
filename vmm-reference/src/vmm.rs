//! A VM's threads and the loop that watches them.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use event_manager::{
    EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps as _,
};
use pv_lock_host::Kicker;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::backend::{BackendError, VcpuBackend};
use crate::signals;
use crate::threads::{VcpuThread, VcpuThreads};
use crate::vcpu::{Ended, Vcpu, Whereabouts};

/// How long an ordered stop may take before a vCPU is given up.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// A signal that arrives between a vCPU's look at its slot and KVM_RUN has no
/// effect: it is sent again after this time.
const NUDGE_INTERVAL: Duration = Duration::from_millis(5);

/// How long a pause may take to reach every vCPU.
const PAUSE_LIMIT: Duration = Duration::from_secs(1);

/// Why the VM's threads could not be started, watched or stopped.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// The system refused a thread, an event or a signal handler.
    #[error("can't {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The event loop failed.
    #[error("event loop: {0}")]
    Events(#[from] event_manager::Error),
    /// A vCPU thread is lost.
    #[error("vCPU {index} did not stop within {} s", STOP_LIMIT.as_secs())]
    Stuck {
        /// Its index.
        index: usize,
    },
}

fn system(what: &'static str) -> impl Fn(io::Error) -> VmmError {
    move |source| VmmError::System { what, source }
}

/// Why [`Vmm::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Every vCPU has ended.
    AllEnded,
    /// At least one vCPU has ended.
    Ended,
    /// At least one vCPU failed.
    Failed,
    /// The deadline came.
    Deadline,
    /// SIGINT or SIGTERM.
    Interrupted,
}

/// What the loop watches for itself.
#[derive(Debug)]
struct Watch {
    vcpu_ended: EventFd,
    stop_request: &'static EventFd,
    stop: Arc<AtomicBool>,
}

impl MutEventSubscriber for Watch {
    fn init(&mut self, ops: &mut EventOps) {
        for fd in [&self.vcpu_ended, self.stop_request] {
            // Both are fresh, valid and added once; should it fail all the
            // same, the deadline still ends the wait.
            let _ = ops.add(Events::new(fd, EventSet::IN));
        }
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps) {
        // An empty event reads as EAGAIN: not the one that fired. A vCPU's end
        // only wakes the loop, which then looks for reports.
        let _ = self.vcpu_ended.read();
        if self.stop_request.read().is_ok() {
            // Relaxed: set and read by the thread that runs the loop.
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Pauses, resumes and stops a running VM; for its loop's subscribers.
#[derive(Clone, Debug)]
pub struct VmHandle {
    kicker: Kicker,
    threads: VcpuThreads,
    whereabouts: Vec<Arc<Whereabouts>>,
}

impl VmHandle {
    /// Pauses every vCPU; returns when none runs guest code any more. The index
    /// of one that does after a second (its output has stalled, for one) is the
    /// error; then all go on.
    pub fn pause(&self) -> Result<(), usize> {
        self.kicker.pause_all();
        let limit = Instant::now() + PAUSE_LIMIT;
        loop {
            let mut running = (0..)
                .zip(&self.whereabouts)
                .filter(|(_, place)| !place.is_quiet())
                .map(|(index, _)| index)
                .peekable();
            let Some(&first) = running.peek() else {
                return Ok(());
            };
            if Instant::now() > limit {
                self.resume();
                return Err(first);
            }
            running.for_each(|index| self.threads.nudge(index));
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.kicker.resume_all();
    }

    /// Asks the VM's loop to end the VM, as SIGTERM does.
    pub fn ask_to_stop(&self) {
        signals::ask_to_stop();
    }

    /// `running`, `paused` or `ended`, a word a vCPU.
    pub fn states(&self) -> Vec<&'static str> {
        self.whereabouts.iter().map(|w| w.name()).collect()
    }
}

/// The running threads of one VM.
pub struct Vmm {
    ended: Vec<Option<Ended>>,
    reports: Receiver<(usize, Ended)>,
    handle: VmHandle,
    events: EventManager<Box<dyn MutEventSubscriber>>,
    stop: Arc<AtomicBool>,
    started: Instant,
}

impl std::fmt::Debug for Vmm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vmm")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Vmm {
    /// Starts one thread a vCPU; none enters the guest before all are there.
    pub fn start<B: VcpuBackend>(
        vcpus: Vec<Vcpu<B>>,
        kicker: Kicker,
        threads: VcpuThreads,
    ) -> Result<Self, VmmError> {
        let stop_request = signals::install().map_err(system("install signal handlers"))?;
        let event = EventFd::new(EFD_NONBLOCK).map_err(system("make an event"))?;
        let mut events = EventManager::<Box<dyn MutEventSubscriber>>::new()?;
        let (report, reports) = channel();
        let gate = Arc::new(Barrier::new(vcpus.len() + 1));
        let stop = Arc::new(AtomicBool::new(false));
        events.add_subscriber(Box::new(Watch {
            vcpu_ended: event.try_clone().map_err(system("copy an event"))?,
            stop_request,
            stop: Arc::clone(&stop),
        }));
        let mut vmm = Self {
            ended: vcpus.iter().map(|_| None).collect(),
            reports,
            handle: VmHandle {
                kicker,
                threads,
                whereabouts: vcpus.iter().map(Vcpu::whereabouts).collect(),
            },
            events,
            stop,
            started: Instant::now(),
        };
        let (ready, started) = channel();
        let mut handles = Vec::with_capacity(vcpus.len());
        for (index, vcpu) in vcpus.into_iter().enumerate() {
            let (report, gate) = (report.clone(), Arc::clone(&gate));
            let event = event.try_clone().map_err(system("copy an event"))?;
            let ready = ready.clone();
            let handle = std::thread::Builder::new()
                .name(format!("vcpu{index}"))
                .spawn(move || {
                    // The receiver is there until all have sent.
                    let _ = ready.send((index, rustix::thread::gettid()));
                    gate.wait();
                    // Nothing of the vCPU is looked at after a panic.
                    let ended = catch_unwind(AssertUnwindSafe(|| vcpu.run()))
                        .unwrap_or(Ended::Failed(BackendError::Panicked, None));
                    // The receiver is gone only when nobody asks any more.
                    let _ = report.send((index, ended));
                    let _ = event.write(1);
                })
                .map_err(system("start a vCPU thread"))?;
            handles.push(handle);
        }
        let mut tids: Vec<_> = started.iter().take(handles.len()).collect();
        tids.sort_unstable_by_key(|&(index, _)| index);
        let threads = handles.into_iter().zip(tids);
        let threads = threads.map(|(handle, (_, tid))| VcpuThread { handle, tid });
        vmm.handle.threads.attach(threads.collect());
        gate.wait();
        vmm.started = Instant::now();
        Ok(vmm)
    }

    /// When the guest was let go.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// The scheduler's shared half.
    pub fn kicker(&self) -> &Kicker {
        &self.handle.kicker
    }

    /// For those who pause, resume or stop the VM while its loop runs.
    pub fn handle(&self) -> VmHandle {
        self.handle.clone()
    }

    /// Adds a subscriber to the loop: it is called while [`Vmm::wait`] or
    /// [`Vmm::wait_first`] waits.
    pub fn subscribe(&mut self, subscriber: Box<dyn MutEventSubscriber>) {
        self.events.add_subscriber(subscriber);
    }

    /// Watches until every vCPU has ended, one failed, `deadline` or a request
    /// to stop.
    pub fn wait(&mut self, deadline: Instant) -> Result<Waited, VmmError> {
        self.wait_until(Some(deadline), |ended| {
            let failed =
                |e: &Option<Ended>| matches!(e, Some(Ended::Failed(..) | Ended::TripleFault(_)));
            if ended.iter().any(failed) {
                Some(Waited::Failed)
            } else {
                let all = ended.iter().all(Option::is_some);
                all.then_some(Waited::AllEnded)
            }
        })
    }

    /// Watches until any vCPU has ended or a request to stop: the way of a
    /// guest that ends as a whole.
    pub fn wait_first(&mut self) -> Result<Waited, VmmError> {
        self.wait_until(None, |ended| {
            let any = ended.iter().any(Option::is_some);
            any.then_some(Waited::Ended)
        })
    }

    fn wait_until(
        &mut self,
        deadline: Option<Instant>,
        done: impl Fn(&[Option<Ended>]) -> Option<Waited>,
    ) -> Result<Waited, VmmError> {
        loop {
            self.collect();
            if let Some(waited) = done(&self.ended) {
                return Ok(waited);
            }
            // Relaxed: set by this thread, in the loop below.
            if self.stop.swap(false, Ordering::Relaxed) {
                return Ok(Waited::Interrupted);
            }
            let ms = match deadline {
                None => -1,
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(Waited::Deadline);
                    }
                    // Rounded up: a wait of 0 ms would spin through the last one.
                    i32::try_from(left.as_millis().saturating_add(1)).unwrap_or(i32::MAX)
                }
            };
            self.events.run_with_timeout(ms)?;
        }
    }

    fn collect(&mut self) {
        while let Ok((index, ended)) = self.reports.try_recv() {
            if let Some(slot) = self.ended.get_mut(index) {
                *slot = Some(ended);
            }
        }
    }

    /// Stops what still runs and returns how each vCPU ended. Bounded: a thread
    /// that does not come back is an error, not a wait.
    pub fn stop(mut self) -> Result<Vec<Ended>, VmmError> {
        self.handle.kicker.stop_all();
        let limit = Instant::now() + STOP_LIMIT;
        loop {
            self.collect();
            let Some(index) = self.ended.iter().position(Option::is_none) else {
                break;
            };
            if Instant::now() > limit {
                return Err(VmmError::Stuck { index });
            }
            self.nudge_running();
            if let Ok((index, ended)) = self.reports.recv_timeout(NUDGE_INTERVAL)
                && let Some(slot) = self.ended.get_mut(index)
            {
                *slot = Some(ended);
            }
        }
        self.handle.threads.wait_gone(STOP_LIMIT);
        Ok(self.ended.into_iter().flatten().collect())
    }

    fn nudge_running(&self) {
        for (index, ended) in self.ended.iter().enumerate() {
            if ended.is_none() {
                self.handle.threads.nudge(index);
            }
        }
    }
}
