//! What a study needs for its report.

use crate::jail::call::{CREATES, Call, call, call_if};

/// The rows.
pub const CALLS: &[Call] = &[
    call_if(
        libc::SYS_openat,
        CREATES,
        "the report and its data, at the end",
    ),
    call(libc::SYS_rename, "the same: a file that is there is whole"),
    call(libc::SYS_unlink, "the same: half a file is no use"),
];
