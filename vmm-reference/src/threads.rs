//! What is done to a VM's vCPU threads from outside: one is made to leave the
//! guest, for pause and stop.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

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
