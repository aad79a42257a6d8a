//! What the thread needs that writes the console's output: `write`, which every
//! thread has.

use crate::jail::call::Call;

/// The rows.
pub const CALLS: &[Call] = &[];
