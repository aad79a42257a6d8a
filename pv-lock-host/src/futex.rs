//! A 32-bit word that a thread can sleep on: `futex(2)`, private to the
//! process.

use std::sync::atomic::AtomicU32;
use std::time::Instant;

use rustix::thread::futex::{self, Flags, Timespec};

use crate::sync::FutexWait;

/// The word and its sleepers.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Futex(AtomicU32);

impl Futex {
    pub(crate) const fn new(value: u32) -> Self {
        Self(AtomicU32::new(value))
    }

    #[inline]
    pub(crate) fn word(&self) -> &AtomicU32 {
        &self.0
    }

    /// Sleeps if the word still holds `expected`; the kernel compares and
    /// enqueues as one step with respect to [`Futex::wake_one`].
    #[inline]
    pub(crate) fn wait(&self, expected: u32, deadline: Option<Instant>) -> FutexWait {
        let Some(deadline) = deadline else {
            return self.sleep(expected, None);
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return FutexWait::DeadlinePassed;
        }
        // A deadline beyond what a timespec holds is no deadline.
        self.sleep(expected, Timespec::try_from(left).ok().as_ref());
        if Instant::now() < deadline {
            FutexWait::LookAgain
        } else {
            FutexWait::DeadlinePassed
        }
    }

    #[inline]
    fn sleep(&self, expected: u32, timeout: Option<&Timespec>) -> FutexWait {
        // Signals, a changed word and a timeout come back as errors, which the
        // caller need not tell apart: it looks at the word again.
        let _ = futex::wait(&self.0, Flags::PRIVATE, expected, timeout);
        FutexWait::LookAgain
    }

    /// Wakes the sleeper, if there is one.
    #[inline]
    pub(crate) fn wake_one(&self) {
        // It fails for no address of a word that is borrowed.
        let _ = futex::wake(&self.0, Flags::PRIVATE, 1);
    }
}
