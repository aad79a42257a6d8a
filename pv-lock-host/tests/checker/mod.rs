//! One body, three worlds: exhaustively under loom, at random under shuttle,
//! and natively, many times over.

/// Something that is written by one thread and then read by another, with no
/// synchronisation of its own: it takes a kick to hand it over.
pub(crate) struct Payload(cell::Cell);

impl Payload {
    pub(crate) fn new() -> Self {
        Self(cell::Cell::new())
    }

    pub(crate) fn set(&self, value: u32) {
        self.0.set(value);
    }

    pub(crate) fn get(&self) -> u32 {
        self.0.get()
    }
}

#[cfg(loom)]
mod cell {
    /// Loom's cell, which reports a read that no write happens before.
    pub(crate) struct Cell(loom::cell::Cell<u32>);

    // SAFETY: loom checks each access against all others, and fails the model
    // for one that is not ordered: a data race is found, not had.
    #[expect(unsafe_code, reason = "that is how a cell's races are looked for")]
    unsafe impl Sync for Cell {}

    impl Cell {
        pub(crate) fn new() -> Self {
            Self(loom::cell::Cell::new(0))
        }
        pub(crate) fn set(&self, value: u32) {
            self.0.set(value);
        }
        pub(crate) fn get(&self) -> u32 {
            self.0.get()
        }
    }
}

#[cfg(not(loom))]
mod cell {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    /// Natively a missing ordering shows, if at all, as a stale value.
    pub(crate) struct Cell(AtomicU32);

    impl Cell {
        pub(crate) fn new() -> Self {
            Self(AtomicU32::new(0))
        }
        pub(crate) fn set(&self, value: u32) {
            self.0.store(value, Relaxed);
        }
        pub(crate) fn get(&self) -> u32 {
            self.0.load(Relaxed)
        }
    }
}

/// A level-triggered line.
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Ordered by nothing: the flag itself says nothing of other memory.
    pub(crate) fn raise_relaxed(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// See [`Flag::raise_relaxed`].
    pub(crate) fn is_raised_relaxed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn raise(&self) {
        // Release: partner of the Acquire below.
        self.0.store(true, Ordering::Release);
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering};
#[cfg(loom)]
pub(crate) use loom::thread::{spawn, yield_now as relax};

#[cfg(all(shuttle, not(loom)))]
use shuttle::sync::atomic::{AtomicBool, Ordering};
#[cfg(all(shuttle, not(loom)))]
pub(crate) use shuttle::thread::{spawn, yield_now as relax};

#[cfg(not(any(loom, shuttle)))]
use std::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::thread::{spawn, yield_now as relax};

/// Runs `body` in every order there is (loom), in many (shuttle), or often.
pub(crate) fn explore(name: &str, body: impl Fn() + Send + Sync + 'static) {
    #[cfg(loom)]
    {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
        let executions = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&executions);
        loom::model(move || {
            counted.fetch_add(1, Relaxed);
            body();
        });
        println!("loom: {name}: {} executions", executions.load(Relaxed));
    }
    #[cfg(all(shuttle, not(loom)))]
    {
        const SCHEDULES: usize = 2_000;
        shuttle::check_random(body, SCHEDULES);
        println!("shuttle: {name}: {SCHEDULES} schedules");
    }
    #[cfg(not(any(loom, shuttle)))]
    {
        const ROUNDS: usize = 2_000;
        for _ in 0..ROUNDS {
            body();
        }
        println!("native: {name}: {ROUNDS} rounds");
    }
}
