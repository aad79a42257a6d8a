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
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Yielding {
    /// Nothing: the host's scheduler knows best.
    #[default]
    Nothing,
    /// The kicker's thread yields its CPU (`sched_yield`), if more vCPUs want
    /// to run than there are host CPUs.
    SchedYield,
    /// Only so many vCPUs run guest code at once; the others wait in line, and
    /// one that was kicked goes to the head of it.
    Cap(RunCap),
}

/// How many vCPUs of a VM may run at once, and for how long while others wait.
///
/// A vCPU takes its place in [`VcpuParker::enter`](crate::VcpuParker::enter),
/// and gives it up when it sleeps, when it is paused, and in
/// [`VcpuParker::exit`](crate::VcpuParker::exit) if its time is up.
#[derive(Clone)]
pub struct RunCap {
    /// At most this many run; the number of host CPUs is the natural choice.
    pub running: NonZeroUsize,
    /// How long one may run while another waits.
    pub slice: Duration,
    /// Whether the kicker gives its own place to the vCPU that it kicked when
    /// no other is free: a directed yield.
    pub hand_over: bool,
    /// Called, from a waiting vCPU's thread, for a vCPU whose time is up:
    /// makes it leave guest mode (by a signal to its thread). Without it, a
    /// vCPU that never exits keeps its place.
    pub preempt: Option<Arc<dyn Fn(ApicId) + Send + Sync>>,
}

impl RunCap {
    /// This many at once, slices of 3 ms, and no way to preempt.
    pub fn new(running: NonZeroUsize) -> Self {
        Self {
            running,
            slice: Duration::from_millis(3),
            hand_over: false,
            preempt: None,
        }
    }
}

impl fmt::Debug for RunCap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunCap")
            .field("running", &self.running)
            .field("slice", &self.slice)
            .field("hand_over", &self.hand_over)
            .field("preempt", &self.preempt.is_some())
            .finish()
    }
}
