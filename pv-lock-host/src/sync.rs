//! The only file that knows which world it runs in: Linux, or a model checker.
//!
//! The types have one interface, so the code above and its tests are the same
//! in both. Counters are plain atomics in both: they carry no protocol.

pub(crate) use std::sync::Arc;

#[cfg(not(any(loom, shuttle)))]
pub(crate) use crate::futex::{Futex, FutexWait};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::sync::atomic::Ordering;
