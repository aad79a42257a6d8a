//! What the threads need that write and read: `write`, which every thread has, and
//! `read`.

use crate::jail::call::{Call, call};

/// The rows.
pub const CALLS: &[Call] = &[call(libc::SYS_read, "standard input")];
