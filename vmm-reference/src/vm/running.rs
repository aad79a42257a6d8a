//! A VM's threads and the loop that watches them.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use event_manager::{
    EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberOps as _,
};
use pv_lock_host::HaltScheduler;
use rustix::fd::AsRawFd as _;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::VmError;
use super::handle::{Bell, BellOf, VmHandle};
use super::jailed_threads::JailedThreads;
use super::vm_error::{STOP_LIMIT, system};
use crate::backend::{BackendError, VcpuBackend};
use crate::jail::JailError;
use crate::signals;
use crate::threads::VcpuThreads;
use crate::vcpu::{Ended, Vcpu};

/// Why a wait returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// Every vCPU has ended.
    AllEnded,
    /// At least one vCPU has ended.
    Ended,
    /// At least one vCPU failed.
    Failed,
    /// The deadline has passed.
    Deadline,
    /// A request to stop: SIGINT or SIGTERM to the process, or
    /// [`VmHandle::ask_to_stop`] for this VM.
    Interrupted,
}

/// What the loop watches for itself.
#[derive(Debug)]
struct Watch {
    vcpu_ended: Arc<EventFd>,
    /// To this VM.
    stop_request: Arc<EventFd>,
    /// To the process: stays readable, for there may be other VMs.
    stop_signal: &'static EventFd,
    stop: Arc<AtomicBool>,
}

impl MutEventSubscriber for Watch {
    fn init(&mut self, ops: &mut EventOps) {
        for fd in [&*self.vcpu_ended, &*self.stop_request, self.stop_signal] {
            // All are valid and added once; should it fail all the same, the
            // deadline still ends the wait.
            let _ = ops.add(Events::new(fd, EventSet::IN));
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        // A vCPU's end only wakes the loop, which then looks for reports. An
        // empty event reads as EAGAIN.
        let _ = self.vcpu_ended.read();
        let signalled = events.fd() == self.stop_signal.as_raw_fd();
        if signalled {
            // Once is enough; it would wake the loop for ever.
            let _ = ops.remove(events);
        }
        if signalled || self.stop_request.read().is_ok() {
            // Relaxed: set and read by the thread that runs the loop.
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// The running threads of one VM. Dropping it stops them.
pub struct RunningVm {
    ended: Vec<Option<Ended>>,
    reports: Receiver<(usize, Ended)>,
    handle: VmHandle,
    events: EventManager<Box<dyn MutEventSubscriber>>,
    stop: Arc<AtomicBool>,
    started: Instant,
}

impl fmt::Debug for RunningVm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningVm")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// What a vCPU's thread needs beside its vCPU.
#[derive(Clone)]
struct Thread {
    /// Held until all vCPUs have their threads.
    gate: Arc<RwLock<()>>,
    report: Sender<(usize, Ended)>,
    bell: Arc<Bell>,
    /// Wakes the loop.
    event: Arc<EventFd>,
}

impl Thread {
    fn run<B: VcpuBackend>(self, index: usize, vcpu: Vcpu<B>, jailed: Result<(), JailError>) {
        drop(self.gate.read().unwrap_or_else(PoisonError::into_inner));
        // Nothing of the vCPU is looked at after a panic: it is gone then, and
        // its slot says so, whatever the end was.
        let ended = match jailed {
            Ok(()) => catch_unwind(AssertUnwindSafe(|| vcpu.run(&BellOf(&self.bell, index))))
                .unwrap_or(Ended::Failed(BackendError::Panicked, None)),
            Err(e) => Ended::Failed(e.into(), None),
        };
        // The receiver is gone only when nobody asks any more.
        let _ = self.report.send((index, ended));
        self.bell.ended(index);
        let _ = self.event.write(1);
    }
}

impl RunningVm {
    /// Runs each vCPU on a thread of its own; none enters the guest before all have
    /// one. `threads` reaches them from now on.
    ///
    /// # Errors
    /// The system refused a thread or an event; none of the threads is left.
    pub fn start<B: VcpuBackend>(
        vcpus: Vec<Vcpu<B>>,
        jailed: JailedThreads,
        scheduler: Arc<HaltScheduler>,
        threads: VcpuThreads,
    ) -> Result<Self, VmError> {
        let jailed = if jailed.len() == vcpus.len() {
            jailed
        } else {
            JailedThreads::spawn(vcpus.len())?
        };
        let stop_signal = signals::install().map_err(system("install signal handlers"))?;
        let new_event =
            || EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(system("make an event"));
        let (event, stop_request) = (Arc::new(new_event()?), Arc::new(new_event()?));
        let mut events = EventManager::<Box<dyn MutEventSubscriber>>::new()?;
        let stop = Arc::new(AtomicBool::new(false));
        events.add_subscriber(Box::new(Watch {
            vcpu_ended: Arc::clone(&event),
            stop_request: Arc::clone(&stop_request),
            stop_signal,
            stop: Arc::clone(&stop),
        }));
        let bell = Arc::new(Bell::new(vcpus.len()));
        let (report, reports) = channel();
        let mut vm = Self {
            ended: vcpus.iter().map(|_| None).collect(),
            reports,
            handle: VmHandle {
                kicker: scheduler.kicker(),
                scheduler,
                threads: threads.clone(),
                bell: Arc::clone(&bell),
                stop_request,
            },
            events,
            stop,
            started: Instant::now(),
        };
        let thread = Thread {
            gate: Arc::new(RwLock::new(())),
            report,
            bell,
            event,
        };
        let gate = Arc::clone(&thread.gate);
        let shut = gate.write().unwrap_or_else(PoisonError::into_inner);
        for (index, (vcpu, jailed)) in vcpus.into_iter().zip(jailed.into_each()).enumerate() {
            let thread = thread.clone();
            let run = Box::new(move |in_jail| thread.run(index, vcpu, in_jail));
            threads.attach(index, jailed.give(run));
        }
        vm.started = Instant::now();
        drop(shut);
        Ok(vm)
    }

    /// When the guest was let go.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// For those who pause, resume or stop the VM while its loop runs.
    pub fn handle(&self) -> VmHandle {
        self.handle.clone()
    }

    /// Adds a subscriber to the loop: it is called during a wait.
    pub fn subscribe(&mut self, subscriber: Box<dyn MutEventSubscriber>) {
        self.events.add_subscriber(subscriber);
    }

    /// Watches until every vCPU has ended, one failed, `deadline` or a request
    /// to stop.
    ///
    /// # Errors
    /// The event loop failed.
    pub fn wait(&mut self, deadline: Instant) -> Result<Waited, VmError> {
        self.wait_until(Some(deadline), |ended| {
            if ended.iter().flatten().any(Ended::failed) {
                Some(Waited::Failed)
            } else {
                let all = ended.iter().all(Option::is_some);
                all.then_some(Waited::AllEnded)
            }
        })
    }

    /// Watches until any vCPU has ended or a request to stop: for a guest that
    /// ends as a whole.
    ///
    /// # Errors
    /// The event loop failed.
    pub fn wait_first(&mut self) -> Result<Waited, VmError> {
        self.wait_until(None, |ended| {
            let any = ended.iter().any(Option::is_some);
            any.then_some(Waited::Ended)
        })
    }

    fn wait_until(
        &mut self,
        deadline: Option<Instant>,
        done: impl Fn(&[Option<Ended>]) -> Option<Waited>,
    ) -> Result<Waited, VmError> {
        loop {
            while let Ok((index, ended)) = self.reports.try_recv() {
                self.book(index, ended);
            }
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

    fn book(&mut self, index: usize, ended: Ended) {
        if let Some(slot) = self.ended.get_mut(index) {
            *slot = Some(ended);
        }
    }

    /// Stops what still runs and returns how each vCPU ended, by index. Bounded:
    /// a thread that does not come back is an error, not a wait.
    ///
    /// # Errors
    /// A vCPU did not stop in time; its thread is left behind.
    pub fn stop(mut self) -> Result<Vec<Ended>, VmError> {
        let stopped = self.stop_threads();
        let ended = std::mem::take(&mut self.ended);
        stopped.map(|()| ended.into_iter().flatten().collect())
    }

    fn stop_threads(&mut self) -> Result<(), VmError> {
        self.handle.kicker.stop_all();
        self.handle.threads.make_all_leave();
        let limit = Instant::now() + STOP_LIMIT;
        while let Some(index) = self.ended.iter().position(Option::is_none) {
            let left = limit.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(left) {
                Ok((index, ended)) => self.book(index, ended),
                Err(_) => return Err(VmError::Stuck { index }),
            }
        }
        self.handle.threads.join();
        Ok(())
    }
}

impl Drop for RunningVm {
    fn drop(&mut self) {
        // After `stop` there is nothing left here: no second wait for a thread
        // that did not come back to the first.
        if self.ended.iter().any(Option::is_none) {
            // Whoever drops it has an error to report already.
            let _ = self.stop_threads();
        }
    }
}
