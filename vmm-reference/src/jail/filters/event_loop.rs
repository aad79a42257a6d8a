//! What the event loop of `run` needs, and the orderly end behind it.

use crate::jail::call::{Call, call};

/// The rows.
pub const CALLS: &[Call] = &[
    call(libc::SYS_epoll_wait, "waits for events"),
    call(libc::SYS_epoll_pwait, "the same, on some systems"),
    call(
        libc::SYS_epoll_ctl,
        "what it waits for; connections come and go",
    ),
    call(libc::SYS_read, "events"),
    call(
        libc::SYS_pread64,
        "KVM's statistics: SIGUSR1, `--stats`, the control socket's `stats`; a snapshot's memory",
    ),
    call(
        libc::SYS_lseek,
        "`--restore`: where the file has data, if there was no thread to check it",
    ),
];
