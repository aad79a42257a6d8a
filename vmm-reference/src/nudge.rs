//! Making a vCPU leave the guest from another thread: for stop and pause, and
//! for the scheduler when a vCPU has run its slice.
//!
//! A nudge says nothing but "look": what for is in the vCPU's slot. One that
//! falls between the vCPU's look and its entry into the guest has no effect, so
//! whoever depends on it sends it again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vmm_sys_util::signal::Killable as _;

use crate::signals;

/// Reaches all vCPU threads of one VM, once they are there.
#[derive(Clone, Debug, Default)]
pub struct Nudger(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    threads: OnceLock<Vec<JoinHandle<()>>>,
    /// The hosted backend's signal; empty for KVM.
    flags: Vec<Arc<AtomicBool>>,
}

impl Nudger {
    /// For KVM: by [`signals::vcpu_signal`].
    pub fn by_signal() -> Self {
        Self::default()
    }

    /// For hosted vCPUs: by a flag each.
    pub fn by_flag(flags: Vec<Arc<AtomicBool>>) -> Self {
        Self(Arc::new(Inner {
            threads: OnceLock::new(),
            flags,
        }))
    }

    /// The vCPUs' threads, in order. Only the first call counts.
    pub(crate) fn attach(&self, threads: Vec<JoinHandle<()>>) {
        let _ = self.0.threads.set(threads);
    }

    /// Makes the vCPU with this index leave the guest, if it is in it.
    pub fn nudge(&self, index: usize) {
        if let Some(flag) = self.0.flags.get(index) {
            // Relaxed: the vCPU's slot says why.
            flag.store(true, Ordering::Relaxed);
        } else if let Some(thread) = self.0.threads.get().and_then(|t| t.get(index)) {
            // It fails only for a thread that has ended.
            let _ = thread.kill(signals::vcpu_signal());
        }
    }

    /// Waits until every thread is gone: they have reported their ends, so that
    /// nothing but the return is left.
    pub(crate) fn wait_gone(&self, limit: Duration) {
        let limit = Instant::now() + limit;
        for thread in self.0.threads.get().into_iter().flatten() {
            while !thread.is_finished() && Instant::now() < limit {
                std::thread::yield_now();
            }
        }
    }
}
