//! What a study needs for its report.

use crate::jail::call::{Call, When, call, call_if};

const CREATED: When = When::Bits {
    argument: 2,
    mask: libc::O_CREAT.cast_unsigned() as u64,
    is: libc::O_CREAT.cast_unsigned() as u64,
    says: "with O_CREAT",
};

/// The rows.
pub const CALLS: &[Call] = &[
    call_if(
        libc::SYS_openat,
        CREATED,
        "the report and its data, at the end",
    ),
    call(libc::SYS_rename, "the same: a file that is there is whole"),
    call(libc::SYS_unlink, "the same: half a file is no use"),
];
