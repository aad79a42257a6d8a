//! Files that a thread can do without: it is told that it may not.

use crate::jail::call::{Call, refused};

/// The rows.
pub const CALLS: &[Call] = &[
    refused(
        libc::SYS_openat,
        "a panic's backtrace looks for symbols, and prints addresses without",
    ),
    refused(libc::SYS_open, "the same"),
    refused(libc::SYS_readlink, "the same: where this program's file is"),
    refused(
        libc::SYS_getcwd,
        "the same: paths relative to the current directory",
    ),
];
