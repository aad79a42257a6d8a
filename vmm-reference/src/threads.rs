//! What is done to a VM's vCPU threads from outside: a nudge makes one leave the
//! guest, for stop and pause, and for the scheduler when a vCPU has run its
//! slice; the scheduler's places bind them to host CPUs.
//!
//! A nudge says nothing but "look": what for is in the vCPU's slot. One that
//! falls between the vCPU's look and its entry into the guest has no effect, so
//! whoever depends on it sends it again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pv_lock_host::{ApicId, RunCap};
use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};
use vmm_sys_util::signal::Killable as _;

use crate::signals;

/// One vCPU's thread.
#[derive(Debug)]
pub(crate) struct VcpuThread {
    pub(crate) handle: JoinHandle<()>,
    pub(crate) tid: Pid,
}

/// Reaches all vCPU threads of one VM, once they are there.
#[derive(Clone, Debug, Default)]
pub struct VcpuThreads(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    threads: OnceLock<Vec<VcpuThread>>,
    /// The hosted backend's signal; empty for KVM.
    flags: Vec<Arc<AtomicBool>>,
}

impl VcpuThreads {
    /// For KVM: nudged by [`signals::vcpu_signal`].
    pub fn by_signal() -> Self {
        Self::default()
    }

    /// For hosted vCPUs: nudged by a flag each.
    pub fn by_flag(flags: Vec<Arc<AtomicBool>>) -> Self {
        Self(Arc::new(Inner {
            threads: OnceLock::new(),
            flags,
        }))
    }

    /// The threads, in order. Only the first call counts.
    pub(crate) fn attach(&self, threads: Vec<VcpuThread>) {
        let _ = self.0.threads.set(threads);
    }

    fn get(&self, index: usize) -> Option<&VcpuThread> {
        self.0.threads.get()?.get(index)
    }

    /// Makes the vCPU with this index leave the guest, if it is in it.
    pub fn nudge(&self, index: usize) {
        if let Some(flag) = self.0.flags.get(index) {
            // Relaxed: the vCPU's slot says why.
            flag.store(true, Ordering::Relaxed);
        } else if let Some(thread) = self.get(index) {
            // It fails only for a thread that has ended.
            let _ = thread.handle.kill(signals::vcpu_signal());
        }
    }

    /// A cap for vCPUs whose APIC IDs are their indexes: one whose time is up is
    /// nudged, and each place is one of the CPUs that the calling thread may use.
    pub fn cap(&self) -> RunCap {
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
            preempt: Some(Arc::new(move |id: ApicId| preempt.nudge(id.0 as usize))),
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
        if let Some(thread) = self.get(index) {
            // It fails if the thread has ended, or the CPU was taken from this
            // process meanwhile: the host's scheduler places it then.
            let _ = sched_setaffinity(Some(thread.tid), &set);
        }
    }

    /// Waits until every thread is gone: they have reported their ends, so that
    /// nothing but the return is left.
    pub(crate) fn wait_gone(&self, limit: Duration) {
        let limit = Instant::now() + limit;
        for thread in self.0.threads.get().into_iter().flatten() {
            while !thread.handle.is_finished() && Instant::now() < limit {
                std::thread::yield_now();
            }
        }
    }
}
