//! The platform of the models: a checker's atomics and a futex made of its mutex
//! and condition variable, or Linux.

/// What the schedulers of the models wait, wake and look at the clock by.
#[derive(Debug)]
pub enum World {}

#[cfg(any(feature = "loom", feature = "shuttle"))]
mod checked {
    use std::fmt;

    #[cfg(feature = "loom")]
    use loom as checker;
    use pv_lock_host::{Platform, Waited};
    #[cfg(feature = "shuttle")]
    use shuttle as checker;

    use checker::sync::atomic::{AtomicU32, Ordering};
    use checker::sync::{Condvar, Mutex};

    use super::World;
    use crate::{clock, waits};

    /// `futex(2)` modelled: "the load of the value of the futex word, the
    /// comparison of that value with the expected value, and the actual
    /// blocking will happen atomically". The mutex stands for the kernel's
    /// hash bucket lock, which a wake takes too.
    pub struct Word {
        value: AtomicU32,
        bucket: Mutex<()>,
        sleepers: Condvar,
    }

    impl fmt::Debug for Word {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Word")
        }
    }

    impl pv_lock_host::Word for Word {
        fn new(value: u32) -> Self {
            Self {
                value: AtomicU32::new(value),
                bucket: Mutex::new(()),
                sleepers: Condvar::new(),
            }
        }
        fn load(&self, order: Ordering) -> u32 {
            self.value.load(order)
        }
        fn compare_exchange_weak(
            &self,
            current: u32,
            new: u32,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u32, u32> {
            (self.value).compare_exchange_weak(current, new, success, failure)
        }
        fn fetch_or(&self, bits: u32, order: Ordering) -> u32 {
            self.value.fetch_or(bits, order)
        }
        fn fetch_add(&self, n: u32, order: Ordering) -> u32 {
            self.value.fetch_add(n, order)
        }
    }

    impl Platform for World {
        type Word = Word;

        fn now() -> u64 {
            clock::now()
        }

        fn wait(word: &Word, expected: u32, deadline: Option<u64>) -> Waited {
            waits::begin();
            if let Some(deadline) = deadline.filter(|&deadline| clock::is_reached(deadline)) {
                // It does not sleep, so there is nothing for a wake to miss.
                if word.value.load(Ordering::Relaxed) != expected {
                    return Waited::LookAgain;
                }
                clock::pass_to(deadline);
                return Waited::DeadlinePassed;
            }
            let Ok(bucket) = word.bucket.lock() else {
                return Waited::LookAgain;
            };
            if word.value.load(Ordering::Relaxed) == expected {
                drop(word.sleepers.wait(bucket));
            }
            Waited::LookAgain
        }

        fn wake(word: &Word) {
            let bucket = word.bucket.lock();
            word.sleepers.notify_one();
            drop(bucket);
        }

        /// Each of many looks is like the first.
        const LOOKS: u32 = 1;

        /// Takes 50 us, so that who polls looks two or three times: more would be
        /// like these. A real yield would have the checkers run the others first,
        /// each time.
        fn relax() {
            clock::pass_to(clock::now() + 50_000);
        }

        fn yield_now() {}
    }
}

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
mod native {
    use std::sync::atomic::AtomicU32;

    use pv_lock_host::{Linux, Place, Platform, Waited};

    use super::World;
    use crate::waits;

    impl Platform for World {
        type Word = AtomicU32;

        fn now() -> u64 {
            Linux::now()
        }
        fn wait(word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Waited {
            waits::begin();
            Linux::wait(word, expected, deadline)
        }
        fn wake(word: &AtomicU32) {
            Linux::wake(word);
        }
        fn yield_now() {
            Linux::yield_now();
        }
        fn here() -> Option<Place> {
            Linux::here()
        }
        fn pull(thread: u32) {
            Linux::pull(thread);
        }
    }
}
