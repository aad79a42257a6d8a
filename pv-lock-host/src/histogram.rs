//! Durations by power of two, as KVM's own halt histograms are.

use core::fmt;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;

/// Number of buckets, KVM's own (`HALT_POLL_HIST_COUNT`): the last one begins
/// at 2^31 ns, a little over two seconds, and is open.
pub(crate) const BUCKETS: usize = 32;

/// How many durations fell between which powers of two nanoseconds.
///
/// ```
/// use std::time::{Duration, Instant};
/// use pv_lock_host::{ApicId, HaltScheduler, WakeReason};
///
/// let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
/// let timer = Instant::now() + Duration::from_millis(1);
/// assert_eq!(parkers[0].halt_until(timer), WakeReason::TimedOut);
/// let mut times = scheduler.counters().total().halt_time;
/// assert_eq!((times.count(), times.buckets().len()), (1, 32));
/// assert!(times.quantile(0.5) > Some(Duration::from_micros(500))); // the median
/// times.merge(&times.clone()); // those of another VM
/// assert_eq!(times.count(), 2);
/// # Ok::<(), pv_lock_host::BuildError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Histogram {
    buckets: [u64; BUCKETS],
}

impl Histogram {
    /// Count by bucket: number `n` holds 2^n ns up to, not including, 2^(n+1);
    /// the first also holds zero and the last everything longer.
    pub fn buckets(&self) -> &[u64] {
        &self.buckets
    }

    /// How many durations there are in all buckets.
    pub fn count(&self) -> u64 {
        self.buckets.iter().fold(0, |sum, &n| sum.saturating_add(n))
    }

    /// An upper bound of the `q` quantile (0.5: the median), exact to a factor
    /// of two; `None` if there is nothing, or it is in the open last bucket.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let total = self.count();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank need not be exact beyond 2^52, and `as` saturates"
        )]
        let rank = {
            // Rounded up, by hand: core has no `ceil`.
            let exact = total as f64 * q;
            let down = exact as u64;
            let up = u64::from((down as f64) < exact);
            down.saturating_add(up).clamp(1, total.max(1))
        };
        let mut seen = 0;
        for (n, count) in (0u32..).zip(&self.buckets[..BUCKETS - 1]) {
            seen = count.saturating_add(seen);
            if seen >= rank {
                return Some(Duration::from_nanos(1 << (n + 1)));
            }
        }
        None
    }

    /// Adds another's counts to these.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine = mine.saturating_add(*theirs);
        }
    }
}

impl fmt::Debug for Histogram {
    /// Only what is not empty: `{2^10: 3, 2^12: 1}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (n, count) in self.buckets.iter().enumerate().filter(|(_, c)| **c != 0) {
            map.entry(&format_args!("2^{n}"), count);
        }
        map.finish()
    }
}

/// A histogram with one writer and any number of readers.
#[derive(Debug)]
pub(crate) struct LiveHistogram {
    buckets: [AtomicU64; BUCKETS],
}

impl LiveHistogram {
    pub(crate) const fn new() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }

    /// For the one writer only.
    #[inline]
    pub(crate) fn record(&self, ns: u64) {
        let bucket = (ns | 1).ilog2() as usize;
        if let Some(cell) = self.buckets.get(bucket.min(BUCKETS - 1)) {
            add_owned(cell, 1);
        }
    }

    pub(crate) fn snapshot(&self) -> Histogram {
        let mut copy = Histogram::default();
        for (to, from) in copy.buckets.iter_mut().zip(&self.buckets) {
            *to = from.load(Relaxed);
        }
        copy
    }
}

/// Adds to a counter that only the calling thread writes: no RMW, and no
/// reader sees a torn or a decreasing value.
#[inline]
pub(crate) fn add_owned(cell: &AtomicU64, n: u64) {
    // Relaxed: a statistic, which publishes nothing.
    cell.store(cell.load(Relaxed).wrapping_add(n), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_powers_of_two() {
        let live = LiveHistogram::new();
        for ns in [0, 1, 2, 3, 4, 1023, 1024, u64::from(u32::MAX), u64::MAX] {
            live.record(ns);
        }
        let h = live.snapshot();
        assert_eq!(h.count(), 9);
        assert_eq!(&h.buckets()[..3], &[2, 2, 1]);
        assert_eq!(
            (h.buckets()[9], h.buckets()[10], h.buckets()[31]),
            (1, 1, 2)
        );
        assert_eq!(h.quantile(0.0), Some(Duration::from_nanos(2)));
        assert_eq!(h.quantile(0.5), Some(Duration::from_nanos(8)));
        assert_eq!(h.quantile(1.0), None, "in the open bucket");
        assert_eq!(Histogram::default().quantile(0.5), None);
    }
}
