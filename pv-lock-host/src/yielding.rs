//! What the kicker, and the host CPUs, do for the vCPU that was kicked.
//!
//! In the kernel a kick is followed by a directed yield: the kicker's CPU is
//! given to the kicked vCPU. Userspace has no `yield_to`; these are the
//! substitutes.

use core::fmt;
use core::num::NonZeroUsize;
use core::time::Duration;
use std::sync::Arc;

use crate::apic_id::ApicId;

/// What follows a kick that woke a vCPU.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Yielding {
    /// Nothing: the host's scheduler knows best.
    Nothing,
    /// The kicker's thread yields its CPU (`sched_yield`), if more vCPUs want
    /// to run than there are host CPUs.
    SchedYield,
    /// Only so many vCPUs run guest code at once; the others wait in line. A
    /// vCPU whose guest kicks another ([`VcpuParker::kick`]) gives its own place
    /// to it: a directed yield. If there is a place for both, and the kicker
    /// was itself kicked to get where it is, it steps back all the same: so a
    /// convoy of vCPUs that halt, are kicked and kick becomes as many as have
    /// places, who hand the lock to each other without halting. The default,
    /// with the values of [`RunCap::default`].
    ///
    /// [`VcpuParker::kick`]: crate::VcpuParker::kick
    Cap(RunCap),
}

impl Default for Yielding {
    fn default() -> Self {
        Self::Cap(RunCap::default())
    }
}

/// How many vCPUs of a VM may run at once, and for how long while others wait.
///
/// A vCPU takes its place in [`VcpuParker::enter`](crate::VcpuParker::enter),
/// and gives it up there if its time is up, when it sleeps, when it is paused,
/// and to a vCPU that it kicks. A VM with no more vCPUs than places has no cap
/// at all.
#[derive(Clone)]
pub struct RunCap {
    /// At most this many run; `None`: as many as there are host CPUs.
    pub running: Option<NonZeroUsize>,
    /// How long one may run while another waits, and how long one waits before
    /// it does something about it; 100 us at least.
    pub slice: Duration,
    /// Called, from a waiting vCPU's thread, for a vCPU whose time is up:
    /// makes it leave guest mode (by a signal to its thread). Without it, one
    /// that has waited for a slice runs beside the others, above the cap.
    pub preempt: Option<Arc<dyn Fn(ApicId) + Send + Sync>>,
    /// Called when a vCPU is given another place than it had last, with the
    /// place's number (from 0): binds its thread to the host CPU that the place
    /// stands for. Without it the host's scheduler may well put two that have
    /// places on one CPU and leave another idle. Called with a lock held: it
    /// must not call into the scheduler.
    pub bind: Option<Arc<dyn Fn(ApicId, usize) + Send + Sync>>,
}

impl Default for RunCap {
    /// As many as there are host CPUs, slices of 3 ms, nobody is preempted
    /// or bound.
    fn default() -> Self {
        Self {
            running: None,
            slice: Duration::from_millis(3),
            preempt: None,
            bind: None,
        }
    }
}

impl fmt::Debug for RunCap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunCap")
            .field("running", &self.running)
            .field("slice", &self.slice)
            .field("preempt", &self.preempt.is_some())
            .field("bind", &self.bind.is_some())
            .finish()
    }
}
