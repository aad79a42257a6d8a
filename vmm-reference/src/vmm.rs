//! A VM's threads and the loop that watches them.

use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use event_manager::{
    EventManager, EventOps, EventSet, Events, MutEventSubscriber, SubscriberId, SubscriberOps as _,
};
use pv_lock_host::Kicker;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::backend::VcpuBackend;
use crate::nudge::Nudger;
use crate::signals;
use crate::vcpu::{Ended, Vcpu};

/// How long an ordered stop may take before a vCPU is given up.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// A signal that arrives between a vCPU's look at its slot and KVM_RUN has no
/// effect: it is sent again after this time.
const NUDGE_INTERVAL: Duration = Duration::from_millis(5);

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
    /// At least one vCPU failed.
    Failed,
    /// The deadline came.
    Deadline,
    /// SIGINT or SIGTERM.
    Interrupted,
}

/// What the loop watches.
#[derive(Debug)]
struct Watch {
    vcpu_ended: EventFd,
    stop_request: &'static EventFd,
    ended: bool,
    stop: bool,
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
        // An empty event reads as EAGAIN: not the one that fired.
        self.ended |= self.vcpu_ended.read().is_ok();
        self.stop |= self.stop_request.read().is_ok();
    }
}

/// The running threads of one VM.
pub struct Vmm {
    ended: Vec<Option<Ended>>,
    reports: Receiver<(usize, Ended)>,
    kicker: Kicker,
    nudger: Nudger,
    events: EventManager<Watch>,
    watch: SubscriberId,
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
        nudger: Nudger,
    ) -> Result<Self, VmmError> {
        let stop_request = signals::install().map_err(system("install signal handlers"))?;
        let event = EventFd::new(EFD_NONBLOCK).map_err(system("make an event"))?;
        let mut events = EventManager::new()?;
        let (report, reports) = channel();
        let gate = Arc::new(Barrier::new(vcpus.len() + 1));
        let mut vmm = Self {
            ended: vcpus.iter().map(|_| None).collect(),
            reports,
            kicker,
            nudger,
            watch: events.add_subscriber(Watch {
                vcpu_ended: event.try_clone().map_err(system("copy an event"))?,
                stop_request,
                ended: false,
                stop: false,
            }),
            events,
            started: Instant::now(),
        };
        let mut threads = Vec::with_capacity(vcpus.len());
        for (index, vcpu) in vcpus.into_iter().enumerate() {
            let (report, gate) = (report.clone(), Arc::clone(&gate));
            let event = event.try_clone().map_err(system("copy an event"))?;
            let thread = std::thread::Builder::new()
                .name(format!("vcpu{index}"))
                .spawn(move || {
                    gate.wait();
                    let ended = vcpu.run();
                    // The receiver is gone only when nobody asks any more.
                    let _ = report.send((index, ended));
                    let _ = event.write(1);
                })
                .map_err(system("start a vCPU thread"))?;
            threads.push(thread);
        }
        vmm.nudger.attach(threads);
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
        &self.kicker
    }

    /// Orders every vCPU out of the guest, and keeps it out. It may still run
    /// for a moment: a signal that comes before KVM_RUN is lost on it.
    pub fn pause(&self) {
        self.kicker.pause_all();
        self.nudge_running();
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.kicker.resume_all();
    }

    /// Watches until every vCPU has ended, one failed, `deadline` or a request
    /// to stop.
    pub fn wait(&mut self, deadline: Instant) -> Result<Waited, VmmError> {
        loop {
            self.collect();
            if self
                .ended
                .iter()
                .any(|e| matches!(e, Some(Ended::Failed(_) | Ended::TripleFault)))
            {
                return Ok(Waited::Failed);
            }
            if self.ended.iter().all(Option::is_some) {
                return Ok(Waited::AllEnded);
            }
            let watch = self.events.subscriber_mut(self.watch)?;
            if std::mem::take(&mut watch.stop) {
                return Ok(Waited::Interrupted);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Waited::Deadline);
            }
            // Rounded up: a wait of 0 ms would spin through the last one.
            let ms = i32::try_from(left.as_millis().saturating_add(1)).unwrap_or(i32::MAX);
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
        self.kicker.stop_all();
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
        self.nudger.wait_gone(STOP_LIMIT);
        Ok(self.ended.into_iter().flatten().collect())
    }

    fn nudge_running(&self) {
        for (index, ended) in self.ended.iter().enumerate() {
            if ended.is_none() {
                self.nudger.nudge(index);
            }
        }
    }
}
