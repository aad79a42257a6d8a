//! The clock of the local APICs, and the timer that ends a run of the guest.
//!
//! While its vCPU is halted, a deadline is that of its sleep. While it runs, a
//! POSIX timer sends its thread the signal that ends KVM_RUN; the handler sets
//! `immediate_exit` too, so that a signal in front of KVM_RUN is not lost. It is
//! armed lazily: one that fires too early costs an exit, one for nothing new costs
//! no system call.

#![expect(unsafe_code, reason = "timers have no safe wrapper")]

use std::mem::MaybeUninit;
use std::ptr::null_mut;

use rustix::time::{ClockId, clock_gettime};

use crate::signals;

const NANOS: u64 = 1_000_000_000;

/// Now, in nanoseconds of the clock that [`std::time::Instant`] uses too.
pub(super) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // Neither is ever negative, and 64 bits last for centuries.
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(NANOS).saturating_add(nanos)
}

/// Ends a run of the guest at a time. Used by the vCPU's thread alone, and made
/// at its first use there.
#[derive(Debug, Default)]
pub(super) struct RunTimer {
    timer: Option<PosixTimer>,
    /// It fires then, if it has not.
    armed: Option<u64>,
}

impl RunTimer {
    /// The next run ends at `deadline`, or before.
    pub(super) fn arm(&mut self, deadline: Option<u64>) {
        let Some(deadline) = deadline else {
            return;
        };
        if self.armed.is_some_and(|at| at <= deadline && at > now()) {
            return;
        }
        if self.timer.is_none() {
            self.timer = PosixTimer::for_this_thread();
        }
        // Without a timer the guest's ticks are late until its next exit: the
        // system has no room for one timer more, and the guest runs on.
        if let Some(timer) = &self.timer {
            timer.set(deadline);
            self.armed = Some(deadline);
        }
    }
}

/// A timer of the kernel.
#[derive(Debug)]
struct PosixTimer(libc::timer_t);

// SAFETY: the identifier is one of the process's, and any thread may use it.
unsafe impl Send for PosixTimer {}

impl PosixTimer {
    /// One that sends the calling thread the vCPUs' signal.
    fn for_this_thread() -> Option<Self> {
        let mut event = MaybeUninit::<libc::sigevent>::zeroed();
        // SAFETY: a sigevent is integers and a pointer, for which zeroes are valid.
        let event = unsafe { event.assume_init_mut() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signals::vcpu_signal();
        event.sigev_notify_thread_id = rustix::thread::gettid().as_raw_nonzero().get();
        let mut timer: libc::timer_t = null_mut();
        // SAFETY: both pointers are to live values of the right types.
        let ret = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, event, &raw mut timer) };
        (ret == 0).then_some(Self(timer))
    }

    /// Fires at `deadline`, at once if that has passed; an earlier setting is
    /// gone.
    fn set(&self, deadline: u64) {
        // 0 would disarm it.
        let deadline = deadline.max(1);
        let part = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let zero = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = libc::itimerspec {
            it_interval: zero,
            it_value: libc::timespec {
                tv_sec: part(deadline / NANOS),
                tv_nsec: part(deadline % NANOS),
            },
        };
        // SAFETY: the timer exists until it is dropped, and the value is live.
        // It fails for no valid time.
        let _ = unsafe { libc::timer_settime(self.0, libc::TIMER_ABSTIME, &value, null_mut()) };
    }
}

impl Drop for PosixTimer {
    fn drop(&mut self) {
        // SAFETY: the timer exists, and nobody uses it afterwards.
        let _ = unsafe { libc::timer_delete(self.0) };
    }
}
