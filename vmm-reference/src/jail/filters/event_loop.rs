//! What the event loop of `run` needs, and the orderly end behind it.

use crate::jail::call::{Call, When, call, call_if, refused};
use crate::jail::request;

/// The rows.
pub const CALLS: &[Call] = &[
    call(libc::SYS_epoll_wait, "waits for events"),
    call(libc::SYS_epoll_pwait, "the same, on some systems"),
    call(
        libc::SYS_epoll_ctl,
        "what it waits for: connections come and go",
    ),
    call(libc::SYS_read, "events"),
    call(
        libc::SYS_timerfd_settime,
        "clients of the control socket for whom there was no room are looked for later",
    ),
    call(
        libc::SYS_pread64,
        "KVM's statistics: SIGUSR1, `--stats`, the control socket's `stats`",
    ),
    call(libc::SYS_accept4, "a client of the control socket"),
    call(libc::SYS_recvfrom, "its requests"),
    call(libc::SYS_sendto, "the answers"),
    call_if(
        libc::SYS_ioctl,
        When::Requests(&[request::FIONBIO]),
        "a client's connection does not block",
    ),
    call(
        libc::SYS_unlink,
        "the control socket's file is removed at the end",
    ),
    call(
        libc::SYS_flock,
        "the same, in turns with others that look at the directory's sockets",
    ),
    call(libc::SYS_statx, "the same, if it is still this VM's"),
    call(libc::SYS_lstat, "the same, on some systems"),
    call(libc::SYS_newfstatat, "the same, on some systems"),
    call_if(
        libc::SYS_ioctl,
        When::Requests(&[request::KVM_SIGNAL_MSI]),
        "the control socket's `kick`, of a vCPU that halts in KVM",
    ),
    call(
        libc::SYS_openat,
        "the control socket's `snapshot`: a file, and its directory; a panic's backtrace \
         looks for symbols",
    ),
    call_if(
        libc::SYS_ioctl,
        When::Requests(&[request::ANY_OF_KVM]),
        "`snapshot`: the state of the VM and its vCPUs is read",
    ),
    call(libc::SYS_pwrite64, "`snapshot`: its pages and its state"),
    call(
        libc::SYS_lseek,
        "the same; `--restore`: where the file has data",
    ),
    call(
        libc::SYS_fsync,
        "`snapshot`: it is on the disk before it has its name",
    ),
    call(
        libc::SYS_rename,
        "`snapshot`: it has its name when it is whole",
    ),
    refused(
        libc::SYS_readlink,
        "a panic's backtrace prints addresses without",
    ),
    refused(libc::SYS_getcwd, "the same"),
];
