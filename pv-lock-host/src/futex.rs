//! A 32-bit word that a thread can sleep on: `futex(2)`, private to the
//! process. The only file of this crate with unsafe code.
#![expect(
    unsafe_code,
    reason = "the kernel is the only one who can put a thread to sleep on a word"
)]

use std::ptr;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

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
        let timeout = match deadline {
            None => None,
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return FutexWait::DeadlinePassed;
                }
                // A deadline beyond what time_t holds is no deadline.
                libc::time_t::try_from(left.as_secs())
                    .ok()
                    .map(|tv_sec| libc::timespec {
                        tv_sec,
                        tv_nsec: libc::c_long::from(left.subsec_nanos().cast_signed()),
                    })
            }
        };
        let timeout: *const libc::timespec = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: FUTEX_WAIT reads two pointers.
        // - the word: `self.0` is a live, 4-byte aligned u32, borrowed for the
        //   whole call, and the kernel reads it atomically;
        // - the timeout: null, or the live timespec above, relative to now.
        // Signals, a changed word and a timeout come back as errors, which the
        // caller need not tell apart: it looks at the word again.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.0.as_ptr(),
                libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                expected,
                timeout,
            )
        };
        match deadline {
            Some(deadline) if Instant::now() >= deadline => FutexWait::DeadlinePassed,
            _ => FutexWait::LookAgain,
        }
    }

    /// Wakes the sleeper, if there is one.
    #[inline]
    pub(crate) fn wake_one(&self) {
        // SAFETY: FUTEX_WAKE takes the address as a key and does not access the
        // word; `self` is borrowed, so the address is not reused meanwhile.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.0.as_ptr(),
                libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
                1,
            )
        };
    }
}
