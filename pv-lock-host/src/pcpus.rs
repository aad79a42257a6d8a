//! How many pCPUs this process has: its affinity and its quota, told apart.

use core::num::NonZeroUsize;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use rustix::thread::{Pid, sched_getaffinity};

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
    /// The values now. Reads the cgroups' files, some ten microseconds.
    ///
    /// ```
    /// let pcpus = pv_lock_host::Pcpus::read();
    /// assert!(pcpus.usable() >= 1);
    /// assert!(pcpus.usable() <= pcpus.affinity);
    /// ```
    pub fn read() -> Self {
        let affinity = affinity();
        // std reads the quota of cgroup v1 and v2 and the affinity of the calling
        // thread, and gives the lesser; a thread that is bound says nothing of
        // the process.
        let both = std::thread::available_parallelism().map_or(affinity, NonZeroUsize::get);
        let bound = sched_getaffinity(None).map_or(both, |set| set.count() as usize);
        Self {
            affinity,
            quota: (both < affinity && both < bound).then_some(both),
        }
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

fn affinity() -> usize {
    // The first thread's: vCPU threads may be bound one by one. It fails if that
    // thread is gone, and then the calling thread's is what there is.
    let first = i32::try_from(std::process::id())
        .ok()
        .and_then(Pid::from_raw);
    let set = sched_getaffinity(first).or_else(|_| sched_getaffinity(None));
    set.map_or(1, |set| (set.count() as usize).max(1))
}

#[cfg(test)]
mod tests;
