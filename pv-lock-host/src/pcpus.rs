//! How many pCPUs this process has: its affinity and its quota, told apart.

use core::num::NonZeroUsize;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};

/// How many pCPUs the process may use.
///
/// A quota is time, not a place: a process with a quota of 2 on 64 pCPUs may run
/// on all of them, but only two of its threads can run all the time.
///
/// ```
/// use pv_lock_host::Pcpus;
///
/// let pcpus = Pcpus::read();
/// println!("{} pCPUs, a quota of {:?}", pcpus.affinity, pcpus.quota);
/// assert!(pcpus.usable() >= 1);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Pcpus {
    /// pCPUs that the process's threads may run on: the affinity of its first
    /// thread, without those that are offline (sched_getaffinity(2)).
    pub affinity: usize,
    /// How many of them its cgroups' CPU quota pays for, rounded down, one at
    /// least; `None` if that is no less than `affinity`.
    pub quota: Option<usize>,
}

impl Pcpus {
    /// The values now. Reads the cgroups' files, some ten microseconds; a thread
    /// that is bound to fewer pCPUs than the process may use starts another one for
    /// that, which takes some ten more.
    ///
    /// ```
    /// let pcpus = pv_lock_host::Pcpus::read();
    /// assert!(pcpus.usable() >= 1);
    /// assert!(pcpus.usable() <= pcpus.affinity);
    /// ```
    pub fn read() -> Self {
        let affinity = affinity();
        let quota = quota(affinity);
        Self { affinity, quota }
    }

    /// How many vCPUs can run at once all the time.
    ///
    /// ```
    /// assert!(pv_lock_host::Pcpus::read().usable() >= 1);
    /// ```
    pub fn usable(self) -> usize {
        self.quota
            .map_or(self.affinity, |quota| quota.min(self.affinity))
    }
}

/// [`Pcpus::usable`] with the quota as it was when it was first asked for: quick
/// enough to be asked again and again while affinities change.
pub(crate) fn now() -> usize {
    /// Zero: not read yet; otherwise the quota, [`usize::MAX`] without one.
    static QUOTA: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: whoever finds it unread reads it, all to the same end.
    let quota = match QUOTA.load(Relaxed) {
        0 => {
            let quota = Pcpus::read().quota.unwrap_or(usize::MAX);
            QUOTA.store(quota, Relaxed);
            quota
        }
        quota => quota,
    };
    affinity().min(quota)
}

/// How many pCPUs the process's threads may run on.
fn affinity() -> usize {
    // A kernel for more pCPUs than a set of rustix holds (1,024) refuses: std knows
    // at least how many are online.
    first_threads().map_or_else(lesser, |set| count(&set).max(1))
}

/// The first thread's pCPUs: vCPU threads may be bound one by one. If it is gone,
/// the calling thread's are what there is.
fn first_threads() -> Option<CpuSet> {
    let first = i32::try_from(std::process::id())
        .ok()
        .and_then(Pid::from_raw);
    let set = sched_getaffinity(first).or_else(|_| sched_getaffinity(None));
    set.ok()
}

fn count(set: &CpuSet) -> usize {
    set.count() as usize
}

/// The quota, if it is less than so many pCPUs.
fn quota(affinity: usize) -> Option<usize> {
    let here = || {
        (
            sched_getaffinity(None).map_or(affinity, |own| count(&own)),
            lesser(),
        )
    };
    let mut seen = here();
    if seen.0 < affinity {
        // What std says here may be the affinity of this thread, and hide a quota
        // that is no less than that.
        seen = at_large(here).unwrap_or(seen);
    }
    let (may, lesser) = seen;
    (lesser < may.min(affinity)).then_some(lesser)
}

/// What std says: the quota of the process's cgroups (v1 and v2), or how many
/// pCPUs the calling thread may run on, whichever is less.
fn lesser() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Asks in a thread that may run wherever the process's first one may; none if
/// there can be no such thread.
fn at_large<R: Send>(ask: impl FnOnce() -> R + Send) -> Option<R> {
    let everywhere = first_threads()?;
    std::thread::scope(|scope| {
        let asks = move || {
            // New threads may run where the one that starts them may.
            sched_setaffinity(None, &everywhere).ok()?;
            Some(ask())
        };
        let thread = std::thread::Builder::new().spawn_scoped(scope, asks).ok()?;
        thread.join().ok()?
    })
}

#[cfg(test)]
mod tests;
