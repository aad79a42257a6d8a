//! What is done to a VM's vCPU threads from outside: one is made to leave the
//! guest, for pause and stop.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use vmm_sys_util::signal::Killable as _;

use crate::backend::ExitRequest;
use crate::signals;

/// One vCPU's thread.
#[derive(Debug)]
pub(crate) struct VcpuThread {
    /// None once it is joined. Locked for a signal: a thread that is joined
    /// meanwhile must not be signalled.
    handle: Mutex<Option<JoinHandle<()>>>,
}

impl VcpuThread {
    pub(crate) fn new(handle: JoinHandle<()>) -> Self {
        Self {
            handle: Mutex::new(Some(handle)),
        }
    }
}

/// Reaches all vCPU threads of one VM.
#[derive(Clone, Debug)]
pub struct VcpuThreads(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    exit_requests: Vec<Arc<ExitRequest>>,
    /// There once all threads have started.
    threads: OnceLock<Vec<VcpuThread>>,
}

impl VcpuThreads {
    /// For the vCPUs that these requests make leave the guest, by index.
    pub fn new(exit_requests: Vec<Arc<ExitRequest>>) -> Self {
        Self(Arc::new(Inner {
            exit_requests,
            threads: OnceLock::new(),
        }))
    }

    /// The threads, by index. Only the first call counts.
    pub(crate) fn attach(&self, threads: Vec<VcpuThread>) {
        let _ = self.0.threads.set(threads);
    }

    fn get(&self, index: usize) -> Option<&VcpuThread> {
        self.0.threads.get()?.get(index)
    }

    /// Makes the vCPU with this index leave the guest, or not enter it: its
    /// thread looks at its slot before it runs the guest again. Whoever calls has
    /// changed the slot before.
    pub fn make_leave(&self, index: usize) {
        let Some(request) = self.0.exit_requests.get(index) else {
            return;
        };
        request.set();
        if request.needs_signal()
            && let Some(thread) = self.get(index)
        {
            let handle = thread.handle.lock();
            if let Some(handle) = handle.unwrap_or_else(PoisonError::into_inner).as_ref() {
                // It fails only for a thread that has ended.
                let _ = handle.kill(signals::vcpu_signal());
            }
        }
    }

    /// [`VcpuThreads::make_leave`] for all of them.
    pub fn make_all_leave(&self) {
        (0..self.0.exit_requests.len()).for_each(|index| self.make_leave(index));
    }

    /// Waits for the end of every thread. To be called when each has reported
    /// how its vCPU ended, so that nothing but its return is left.
    pub(crate) fn join(&self) {
        for thread in self.0.threads.get().into_iter().flatten() {
            let mut handle = thread.handle.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(handle) = handle.take() {
                // A panic has been reported as an end.
                let _ = handle.join();
            }
        }
    }
}
