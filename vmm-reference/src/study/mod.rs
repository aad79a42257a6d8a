//! The overcommit study: how much work a host does per CPU against the
//! overcommit ratio, by each way to wait for a lock.
//!
//! - [`finite`]: numbers that are never NaN;
//! - [`dataset`]: what was measured, as JSON and CSV;
//! - [`statistics`]: intervals, verdicts, the knee;
//! - [`plan`]: which cells there are;
//! - [`schedule`]: which cell runs next;
//! - [`watch`]: the host meanwhile;
//! - [`driver`]: from the plan to the data;
//! - [`cells`]: the VMs of a cell, on this host; `reading`: what they have counted;
//!   `waker`: who wakes the vCPUs that sleep, `questions`: by which clock; [`window`]: a trace around the
//!   worst wait;
//! - [`figures`]: the pictures of a report;
//! - [`report`]: the page;
//! - [`linux`]: the same from a Linux guest's workloads, which the lab measures;
//! - [`output`]: the files;
//! - [`compare`]: two studies;
//! - [`sample`]: a dataset that nobody measured.

pub mod cells;
pub mod compare;
pub mod dataset;
pub mod driver;
pub mod figures;
pub mod finite;
pub mod linux;
pub mod output;
pub mod plan;
mod questions;
mod reading;
pub mod report;
pub mod sample;
pub mod schedule;
pub mod statistics;
mod waker;
pub mod watch;
pub mod window;
