//! The only file that knows which world it runs in: Linux, or a model checker.
//!
//! The types have one interface, so the code above and its tests are the same
//! in all. Counters are plain atomics in all: they carry no protocol.

#[cfg(not(any(loom, shuttle)))]
mod imp {
    pub(crate) use crate::futex::Futex;
    pub(crate) use std::sync::atomic::Ordering;
    pub(crate) use std::sync::{Mutex, MutexGuard};

    /// Rounds of looking between two looks at the clock: about a microsecond.
    pub(crate) const POLL_ROUNDS: u32 = 32;

    #[inline]
    pub(crate) fn poll_pause() {
        std::hint::spin_loop();
    }
}

#[cfg(any(loom, shuttle))]
mod imp {
    #[cfg(loom)]
    use loom as checker;
    #[cfg(all(shuttle, not(loom)))]
    use shuttle as checker;

    use std::time::Instant;

    use checker::sync::Condvar;
    use checker::sync::atomic::AtomicU32;
    pub(crate) use checker::sync::atomic::Ordering;
    pub(crate) use checker::sync::{Mutex, MutexGuard};

    use super::FutexWait;

    /// A checker has no clock: a poll is one look.
    pub(crate) const POLL_ROUNDS: u32 = 1;

    pub(crate) fn poll_pause() {
        checker::thread::yield_now();
    }

    /// `futex(2)` modelled: "the load of the value of the futex word, the
    /// comparison of that value with the expected value, and the actual
    /// blocking will happen atomically". The mutex stands for the kernel's
    /// hash bucket lock, which a wake takes too.
    pub(crate) struct Futex {
        word: AtomicU32,
        bucket: Mutex<()>,
        sleepers: Condvar,
    }

    impl std::fmt::Debug for Futex {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Futex")
        }
    }

    impl Futex {
        pub(crate) fn new(value: u32) -> Self {
            Self {
                word: AtomicU32::new(value),
                bucket: Mutex::new(()),
                sleepers: Condvar::new(),
            }
        }

        pub(crate) fn word(&self) -> &AtomicU32 {
            &self.word
        }

        pub(crate) fn wait(&self, expected: u32, deadline: Option<Instant>) -> FutexWait {
            // A deadline passes at once: the checker places every kick before
            // and after it, which is all that a later deadline could add.
            if deadline.is_some() {
                return FutexWait::DeadlinePassed;
            }
            let Ok(bucket) = self.bucket.lock() else {
                return FutexWait::LookAgain;
            };
            if self.word.load(Ordering::Relaxed) == expected {
                drop(self.sleepers.wait(bucket));
            }
            FutexWait::LookAgain
        }

        pub(crate) fn wake_one(&self) {
            let bucket = self.bucket.lock();
            self.sleepers.notify_one();
            drop(bucket);
        }
    }
}

pub(crate) use imp::{Futex, Mutex, MutexGuard, Ordering, POLL_ROUNDS, poll_pause};

/// Not the checkers' own: it must survive the unwinding of a failed model, and
/// reference counts are not what is being checked.
pub(crate) use std::sync::Arc;

/// How a wait ended. Neither says that the word has changed: look again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FutexWait {
    /// Woken, interrupted by a signal, or the word was not as expected.
    LookAgain,
    /// The deadline has passed.
    DeadlinePassed,
}
