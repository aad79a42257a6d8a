//! What the threads of `run` need that only read.

use crate::jail::call::{Call, call};

/// The rows.
pub const CALLS: &[Call] = &[
    call(libc::SYS_read, "`input`: standard input"),
    call(
        libc::SYS_pread64,
        "`snapshot-check`: guest memory in its file",
    ),
    call(libc::SYS_lseek, "the same: holes are left out"),
];
