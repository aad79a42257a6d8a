//! Linux: futex(2), the monotonic clock, and where threads run.

use core::num::NonZeroU32;
use core::sync::atomic::AtomicU32;
use std::time::Instant;

use rustix::thread::futex::{self, Flags, Timespec};
use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_getcpu, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::pcpus;
use crate::platform::{Place, Platform, Waited};

/// vCPU threads on Linux: futex(2) and CLOCK_MONOTONIC. The words are private
/// to the process. It is the default platform.
///
/// ```
/// use pv_lock_host::{Linux, Platform};
///
/// let deadline = Linux::now() + 1_000_000; // in a millisecond: for halt_until_ns
/// assert!(Linux::now() < deadline + 1_000_000_000);
/// assert!(Linux::pcpus() >= 1);
/// ```
#[derive(Debug)]
pub enum Linux {}

const NS: u64 = 1_000_000_000;

/// All waiters: FUTEX_WAIT_BITSET is used for its absolute deadline.
const EVERYONE: NonZeroU32 = NonZeroU32::MAX;

impl Platform for Linux {
    type Word = AtomicU32;

    /// CLOCK_MONOTONIC.
    #[inline]
    fn now() -> u64 {
        let now = clock_gettime(ClockId::Monotonic);
        // Neither is negative, and 2^64 ns are 584 years of uptime.
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
        seconds.saturating_mul(NS).saturating_add(nanos)
    }

    /// The kernel compares and enqueues as one step with respect to
    /// [`Linux::wake`](Platform::wake).
    #[inline]
    fn wait(word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Waited {
        // Signals, a changed word and a timeout come back as errors, which the
        // caller need not tell apart: it looks at the word again.
        let Some(deadline) = deadline else {
            let _ = futex::wait(word, Flags::PRIVATE, expected, None);
            return Waited::LookAgain;
        };
        // A deadline beyond what a timespec holds is no deadline.
        let at = timespec(deadline);
        let _ = futex::wait_bitset(word, Flags::PRIVATE, expected, at.as_ref(), EVERYONE);
        if Self::now() < deadline {
            Waited::LookAgain
        } else {
            Waited::DeadlinePassed
        }
    }

    #[inline]
    fn wake(word: &AtomicU32) {
        // It fails for no address of a word that is borrowed.
        let _ = futex::wake(word, Flags::PRIVATE, 1);
    }

    #[inline]
    fn yield_now() {
        std::thread::yield_now();
    }

    fn pcpus() -> usize {
        pcpus::now()
    }

    #[inline]
    fn here() -> Option<Place> {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        Some(Place {
            pcpu: u32::try_from(sched_getcpu()).ok()?,
            thread: u32::try_from(thread).ok()?,
        })
    }

    /// Linux may leave two runnable threads on one pCPU while another idles,
    /// for milliseconds. A thread that may run here is bound to this pCPU, which
    /// moves it, and then has its own set of pCPUs back.
    ///
    /// A change of that thread's affinity by somebody else between the three
    /// calls (some microseconds) is undone by the last one.
    fn pull(thread: u32) {
        let Some(thread) = i32::try_from(thread).ok().and_then(Pid::from_raw) else {
            return;
        };
        let cpu = sched_getcpu();
        // It fails if the thread has ended: then there is nothing to move.
        let Ok(own) = sched_getaffinity(Some(thread)) else {
            return;
        };
        if cpu >= CpuSet::MAX_CPU || !own.is_set(cpu) || own.count() < 2 {
            return;
        }
        let mut here = CpuSet::new();
        here.set(cpu);
        if sched_setaffinity(Some(thread), &here).is_ok() {
            let _ = sched_setaffinity(Some(thread), &own);
        }
    }
}

/// An absolute time for the kernel; `None` if it does not fit.
fn timespec(ns: u64) -> Option<Timespec> {
    Some(Timespec {
        tv_sec: i64::try_from(ns / NS).ok()?,
        tv_nsec: i64::try_from(ns % NS).ok()?,
    })
}

/// The same moment on the clock of [`Linux::now`](Platform::now).
pub(crate) fn deadline(at: Instant) -> u64 {
    let left = at.saturating_duration_since(Instant::now());
    Linux::now().saturating_add(crate::polling::nanos(left))
}
