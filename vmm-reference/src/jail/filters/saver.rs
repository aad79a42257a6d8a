//! What `bench restore` needs besides a builder's: the files that it measures.

use crate::jail::call::{CREATES, Call, call, call_if};

/// The rows.
pub const CALLS: &[Call] = &[
    call_if(
        libc::SYS_openat,
        CREATES,
        "a snapshot, and the bare file beside it",
    ),
    call(libc::SYS_pwrite64, "guest memory and the state are written"),
    call(
        libc::SYS_sync_file_range,
        "a snapshot's data goes to the disk in steps",
    ),
    call(libc::SYS_fsync, "it waits for the disk"),
    call(libc::SYS_rename, "a snapshot has its name when it is whole"),
    call(libc::SYS_unlink, "the files go away"),
];
