//! What the threads of `run` need that only write: `write`, which every thread has.

use crate::jail::call::Call;

/// The rows.
pub const CALLS: &[Call] = &[];
