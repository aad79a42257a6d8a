//! What is done to a VM's vCPU threads from outside: one is made to leave the
//! guest, for pause and stop, and for the scheduler when a vCPU has run its time
//! slice; the scheduler binds them to pCPUs.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use pv_lock_host::{ApicId, RunCap};
use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};
use vmm_sys_util::signal::Killable as _;

use crate::backend::ExitRequest;
use crate::signals;

/// Reaches all vCPU threads of one VM.
#[derive(Clone, Debug)]
pub struct VcpuThreads(Arc<[VcpuThread]>);

/// Reaches one of them.
#[derive(Debug)]
struct VcpuThread {
    exit_request: Arc<ExitRequest>,
    /// None before it has started, and once it is joined. Locked for a signal: a
    /// thread that is joined meanwhile must not be signalled.
    handle: Mutex<Option<JoinHandle<()>>>,
    /// Set by the thread itself before it runs its vCPU.
    tid: OnceLock<Pid>,
}

impl VcpuThread {
    // Whoever panicked with the lock left a handle or none.
    fn handle(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VcpuThreads {
    /// For the vCPUs that these requests make leave the guest, by index.
    pub fn new(exit_requests: impl IntoIterator<Item = Arc<ExitRequest>>) -> Self {
        let threads = exit_requests.into_iter().map(|exit_request| VcpuThread {
            exit_request,
            handle: Mutex::new(None),
            tid: OnceLock::new(),
        });
        Self(threads.collect())
    }

    /// The thread of the vCPU with this index has started. It must not run its
    /// vCPU before this.
    pub(crate) fn attach(&self, index: usize, handle: JoinHandle<()>) {
        if let Some(thread) = self.0.get(index) {
            *thread.handle() = Some(handle);
        }
    }

    /// The calling thread is that of the vCPU with this index.
    pub(crate) fn identify(&self, index: usize) {
        if let Some(thread) = self.0.get(index) {
            // A vCPU has one thread.
            let _ = thread.tid.set(rustix::thread::gettid());
        }
    }

    /// Makes the vCPU with this index leave the guest, or not enter it: its
    /// thread looks at its slot before it runs the guest again. Whoever calls has
    /// changed the slot before.
    pub fn make_leave(&self, index: usize) {
        let Some(thread) = self.0.get(index) else {
            return;
        };
        thread.exit_request.set();
        if thread.exit_request.needs_signal()
            && let Some(handle) = thread.handle().as_ref()
        {
            // It fails only for a thread that has ended.
            let _ = handle.kill(signals::vcpu_signal());
        }
    }

    /// [`VcpuThreads::make_leave`] for all of them.
    pub fn make_all_leave(&self) {
        (0..self.0.len()).for_each(|index| self.make_leave(index));
    }

    /// A cap for vCPUs whose APIC IDs are their indexes: one whose time slice is
    /// over is made to leave the guest, and each place is one of the pCPUs that
    /// the calling thread may use.
    pub(crate) fn cap(&self) -> RunCap {
        let (preempt, bind) = (self.clone(), self.clone());
        let cpus: Vec<usize> = sched_getaffinity(None)
            .map(|set| {
                (0..CpuSet::MAX_CPU)
                    .filter(|&cpu| set.is_set(cpu))
                    .collect()
            })
            // Without an answer there is nothing to bind to.
            .unwrap_or_default();
        RunCap {
            preempt: Some(Arc::new(move |id: ApicId| {
                preempt.make_leave(id.0 as usize);
            })),
            bind: Some(Arc::new(move |id: ApicId, place| {
                if let Some(&cpu) = cpus.get(place) {
                    bind.bind(id.0 as usize, cpu);
                }
            })),
            ..RunCap::default()
        }
    }

    fn bind(&self, index: usize, cpu: usize) {
        let mut set = CpuSet::new();
        set.set(cpu);
        if let Some(&tid) = self.0.get(index).and_then(|thread| thread.tid.get()) {
            // It fails if the thread has ended, or the pCPU was taken from this
            // process meanwhile: the host's scheduler places it then.
            let _ = sched_setaffinity(Some(tid), &set);
        }
    }

    /// Waits for the end of every thread. To be called when nothing but its return
    /// is left of each.
    pub(crate) fn join(&self) {
        for thread in self.0.iter() {
            let handle = thread.handle().take();
            // A panic has been reported as an end.
            let _ = handle.map(JoinHandle::join);
        }
    }
}
