//! What repetitions say, and what they do not.
//!
//! - [`bootstrap`]: a median with the interval that it is in;
//! - [`permutation`]: is there a difference, and a verdict in words;
//! - [`mod@knee`]: up to which overcommit ratio the work done per pCPU holds.
//!
//! Everything is a function of its input and a seed: the same file gives the
//! same report.

pub mod bootstrap;
pub mod knee;
pub mod permutation;

pub use bootstrap::{Interval, median, median_interval, ratio_interval};
pub use knee::{Holds, Knee, holds, knee};
pub use permutation::{Verdict, verdict, verdicts};

/// Fewer repetitions than this have no 95 % interval of their median: all of
/// six lie on one side of it once in 32 times, of five once in 16.
pub const ENOUGH: usize = 6;
