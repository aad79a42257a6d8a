//! The overcommit study: how much work a host does per CPU against the
//! overcommit ratio, by each way to wait for a lock.
//!
//! - [`finite`]: numbers that are never NaN;
//! - [`dataset`]: what was measured, as JSON and CSV;
//! - [`statistics`]: intervals, verdicts, the knee;
//! - [`schedule`]: which cell runs next;
//! - [`sample`]: a dataset that nobody measured.

pub mod dataset;
pub mod finite;
pub mod sample;
pub mod schedule;
pub mod statistics;
