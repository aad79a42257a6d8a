//! What models hand from thread to thread.

/// Something that is written by one thread and then read by another, with no
/// synchronisation of its own: it takes a kick to hand it over.
pub struct Payload(cell::Cell);

impl Payload {
    #[expect(clippy::new_without_default, reason = "it is made in one way only")]
    pub fn new() -> Self {
        Self(cell::Cell::new())
    }

    pub fn set(&self, value: u32) {
        self.0.set(value);
    }

    pub fn get(&self) -> u32 {
        self.0.get()
    }

    /// Reads and writes it, as whoever has it for itself does.
    pub fn touch(&self) -> u32 {
        let value = self.get();
        self.set(value + 1);
        value
    }
}

#[cfg(feature = "loom")]
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

#[cfg(not(feature = "loom"))]
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
pub struct Flag(AtomicBool);

impl Flag {
    #[expect(clippy::new_without_default, reason = "it is made in one way only")]
    pub fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Ordered by nothing: the flag itself says nothing of other memory.
    pub fn raise_relaxed(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// See [`Flag::raise_relaxed`].
    pub fn is_raised_relaxed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub fn raise(&self) {
        // Release: partner of the Acquire below.
        self.0.store(true, Ordering::Release);
    }

    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[cfg(feature = "loom")]
use loom::sync::atomic::{AtomicBool, Ordering};
#[cfg(feature = "shuttle")]
use shuttle::sync::atomic::{AtomicBool, Ordering};
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
use std::sync::atomic::{AtomicBool, Ordering};
