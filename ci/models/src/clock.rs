//! The time of a model is a value, which each execution finds anew at its start:
//! it stands still but for waits with a deadline, which take it there.
//!
//! A deadline beyond the [horizon](HORIZON) is never reached. Who waits for such
//! a one must be woken, and if nobody does that is a deadlock, which the checkers
//! find: so a lost wake-up is not hidden behind a time-out. A deadline within the
//! horizon passes at once; all that others do before and after it the checkers
//! place there.
//!
//! Natively it is the platform's clock, and all deadlines are reached.

use std::time::Duration;

/// How far a model looks ahead.
pub const HORIZON: Duration = Duration::from_secs(1);

/// A time slice that ends in no model.
pub const ENDLESS: Duration = Duration::from_secs(10);

/// A time slice that ends in each: the shortest that a policy may have.
pub const SHORT: Duration = Duration::from_micros(100);

#[cfg(any(feature = "loom", feature = "shuttle"))]
mod value {
    use std::cell::Cell;

    use super::HORIZON;

    /// Later than anything that is as long ago as [`super::ENDLESS`].
    const START: u64 = 1_000_000_000_000;

    // Both checkers run all threads of a model as coroutines of one thread.
    thread_local! {
        static NOW: Cell<u64> = const { Cell::new(START) };
    }

    /// An execution begins.
    pub(crate) fn reset() {
        NOW.set(START);
    }

    pub(crate) fn now() -> u64 {
        NOW.get()
    }

    pub(crate) fn is_reached(deadline: u64) -> bool {
        u128::from(deadline) <= u128::from(NOW.get()) + HORIZON.as_nanos()
    }

    pub(crate) fn pass_to(deadline: u64) {
        NOW.set(NOW.get().max(deadline));
    }
}
#[cfg(any(feature = "loom", feature = "shuttle"))]
pub(crate) use value::{is_reached, now, pass_to, reset};
