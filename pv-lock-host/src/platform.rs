//! What a scheduler needs from the world that its vCPU threads live in.
//!
//! On Linux that is a futex, a clock and, for the placement of threads, the
//! affinity calls ([`Linux`](crate::Linux)). A hypervisor or a kernel without an
//! operating system below it implements [`Platform`] over its own scheduler; a
//! model checker implements it over its own atomics.

use core::fmt::Debug;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// A 32-bit word that several threads change.
///
/// Implemented for [`AtomicU32`], which is what every platform but a model
/// checker uses. Each method is the one of [`AtomicU32`] with the same name.
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
/// use pv_lock_host::Word;
///
/// let word = <AtomicU32 as Word>::new(1);
/// assert_eq!(Word::fetch_or(&word, 2, Relaxed), 1);
/// assert_eq!(Word::load(&word, Relaxed), 3);
/// ```
pub trait Word: Debug + Send + Sync {
    /// A word with this value.
    fn new(value: u32) -> Self;
    /// Reads the value.
    fn load(&self, order: Ordering) -> u32;
    /// Replaces `current` by `new`; may fail although `current` is what it holds.
    ///
    /// # Errors
    /// The value that it holds.
    fn compare_exchange_weak(
        &self,
        current: u32,
        new: u32,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32>;
    /// Sets bits; gives the value before.
    fn fetch_or(&self, bits: u32, order: Ordering) -> u32;
    /// Adds, wrapping around; gives the value before.
    fn fetch_add(&self, n: u32, order: Ordering) -> u32;
}

impl Word for AtomicU32 {
    #[inline]
    fn new(value: u32) -> Self {
        Self::new(value)
    }
    #[inline]
    fn load(&self, order: Ordering) -> u32 {
        self.load(order)
    }
    #[inline]
    fn compare_exchange_weak(
        &self,
        current: u32,
        new: u32,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32> {
        self.compare_exchange_weak(current, new, success, failure)
    }
    #[inline]
    fn fetch_or(&self, bits: u32, order: Ordering) -> u32 {
        self.fetch_or(bits, order)
    }
    #[inline]
    fn fetch_add(&self, n: u32, order: Ordering) -> u32 {
        self.fetch_add(n, order)
    }
}

/// How a wait ended. Neither says that the word has changed: look again.
/// [`Platform`] has an example.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Waited {
    /// Woken, interrupted, or the word was not as expected.
    LookAgain,
    /// The deadline has passed on the platform's clock.
    DeadlinePassed,
}

/// Where a thread runs ([`Platform::here`]), in numbers of the platform's own; all
/// ones for both names no place.
///
/// ```
/// use pv_lock_host::{Linux, Platform};
///
/// if let Some(place) = Linux::here() {
///     println!("thread {} on pCPU {}", place.thread, place.pcpu);
/// }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The pCPU that the thread runs on.
    pub pcpu: u32,
    /// The thread, by which [`Platform::pull`] finds it.
    pub thread: u32,
}

/// What a scheduler needs from below: to sleep, to wake, and the time.
///
/// All functions are called from vCPU threads and from whoever kicks, without a
/// lock held. Three have no default: [`now`](Platform::now),
/// [`wait`](Platform::wait), [`wake`](Platform::wake).
///
/// ```
/// use core::sync::atomic::{AtomicU32, Ordering};
/// use std::sync::LazyLock;
/// use std::time::Instant;
/// use pv_lock_host::{ApicId, Platform, SchedulerBuilder, Waited, WakeReason};
///
/// static START: LazyLock<Instant> = LazyLock::new(Instant::now);
///
/// /// A platform that never sleeps: every wait returns at once.
/// #[derive(Debug)]
/// struct Busy;
///
/// impl Platform for Busy {
///     type Word = AtomicU32;
///     fn now() -> u64 {
///         START.elapsed().as_nanos() as u64 // or a counter of the CPU's
///     }
///     fn wait(word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Waited {
///         match deadline {
///             Some(_) if word.load(Ordering::Relaxed) == expected => Waited::DeadlinePassed,
///             _ => Waited::LookAgain,
///         }
///     }
///     fn wake(_word: &AtomicU32) {}
/// }
///
/// let (scheduler, mut parkers) = SchedulerBuilder::<Busy>::default().build(&[ApicId(0)])?;
/// scheduler.kicker().kick_by_host(ApicId(0));
/// assert_eq!(parkers[0].halt(), WakeReason::Kicked);
/// # Ok::<(), pv_lock_host::BuildError>(())
/// ```
pub trait Platform: Debug + Sized + 'static {
    /// The word that threads sleep on.
    type Word: Word;

    /// Nanoseconds since any fixed moment; never decreases. Polls and holds end by
    /// it, so a clock that stands still makes them last for ever.
    fn now() -> u64;

    /// Sleeps while `word` holds `expected`, until [`Platform::wake`] or the
    /// deadline (on the clock of [`Platform::now`]). Comparing and falling asleep
    /// are one step with respect to `wake`, as in futex(2). May return early.
    fn wait(word: &Self::Word, expected: u32, deadline: Option<u64>) -> Waited;

    /// Wakes the one thread that sleeps on `word`, if there is one.
    fn wake(word: &Self::Word);

    /// A short pause between two looks at a word.
    #[inline]
    fn relax() {
        core::hint::spin_loop();
    }

    /// How often a polling vCPU looks at its word before it looks at the clock
    /// again: as often as takes about a microsecond.
    const LOOKS: u32 = 32;

    /// Lets another thread have this pCPU.
    #[inline]
    fn yield_now() {
        core::hint::spin_loop();
    }

    /// How many pCPUs the vCPU threads share. One if it is not known.
    #[inline]
    fn pcpus() -> usize {
        1
    }

    /// The calling thread and the pCPU that it runs on; `None` where threads
    /// can't be moved.
    #[inline]
    fn here() -> Option<Place> {
        None
    }

    /// Brings the runnable thread with this number ([`Place::thread`]) to the pCPU
    /// of the calling thread, which is about to sleep. A hint.
    #[inline]
    fn pull(_thread: u32) {}
}

/// A platform without sleep: it waits by spinning, and deadlines of halts pass at
/// once. Its clock counts how often it is asked, a microsecond each time.
///
/// It is the default where the feature `std` is off, so that types without a
/// named platform exist there; use a platform that can sleep.
///
/// ```
/// use pv_lock_host::{ApicId, Platform, SchedulerBuilder, Spin, WakeReason};
///
/// let (scheduler, mut parkers) = SchedulerBuilder::<Spin>::default().build(&[ApicId(0)])?;
/// assert_eq!(parkers[0].halt_until_ns(Spin::now() + 1_000_000), WakeReason::TimedOut);
/// # Ok::<(), pv_lock_host::BuildError>(())
/// ```
#[derive(Debug)]
pub enum Spin {}

impl Platform for Spin {
    type Word = AtomicU32;

    fn now() -> u64 {
        /// In ns.
        static NOW: AtomicU64 = AtomicU64::new(0);
        // It must go on, or no poll and no hold would ever end. Relaxed: a number,
        // which publishes nothing.
        NOW.fetch_add(1_000, Ordering::Relaxed)
    }

    fn wait(word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Waited {
        core::hint::spin_loop();
        // Relaxed: the caller looks again.
        if deadline.is_some() && word.load(Ordering::Relaxed) == expected {
            Waited::DeadlinePassed
        } else {
            Waited::LookAgain
        }
    }

    fn wake(_word: &AtomicU32) {}
}

/// The platform of types that are written without one, such as `Kicker`:
/// [`Linux`](crate::Linux) with the feature `std`, [`Spin`] without it.
///
/// ```
/// use pv_lock_host::{DefaultPlatform, Kicker};
///
/// fn same(kicker: Kicker) -> Kicker<DefaultPlatform> {
///     kicker
/// }
/// ```
#[cfg(feature = "std")]
pub type DefaultPlatform = crate::linux::Linux;
/// The platform of names that give none: `Linux` with the feature `std`,
/// [`Spin`] without it.
#[cfg(not(feature = "std"))]
pub type DefaultPlatform = Spin;
