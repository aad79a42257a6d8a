//! What the main thread of a command needs that builds one VM after another. Its
//! threads begin with this filter, and add their own to it: so it has what a vCPU
//! has, and what puts a thread into the jail.

use crate::jail::call::{Call, When, call, call_if, command, option};
use crate::jail::request;

const READ_ONLY: When = When::Bits {
    argument: 2,
    mask: (libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC | libc::O_TMPFILE).cast_unsigned()
        as u64
        & !(libc::O_DIRECTORY.cast_unsigned() as u64),
    is: 0,
    says: "read only",
};

/// glibc's own, the second of the real-time signals that it keeps to itself.
const SIGSETXID: When = When::Bits {
    argument: 0,
    mask: u32::MAX as u64,
    is: 33,
    says: "signal 33 (SIGSETXID)",
};

/// The rows.
pub const CALLS: &[Call] = &[
    call_if(
        libc::SYS_ioctl,
        When::Requests(&[request::ANY_OF_KVM]),
        "builds VMs: most of KVM's requests",
    ),
    call(libc::SYS_eventfd2, "events of a VM's loop; a doorbell's"),
    call(libc::SYS_epoll_create1, "a VM's loop"),
    call(libc::SYS_epoll_ctl, "what it waits for"),
    call(libc::SYS_epoll_wait, "waits for events"),
    call(libc::SYS_epoll_pwait, "the same, on some systems"),
    call(libc::SYS_read, "events; files of /proc"),
    call(libc::SYS_clone3, "threads of vCPUs"),
    call(libc::SYS_clone, "the same, on some systems"),
    call_if(
        libc::SYS_rt_sigaction,
        SIGSETXID,
        "glibc installs a handler of its own with the first thread",
    ),
    call(libc::SYS_set_robust_list, "the start of a thread"),
    call(libc::SYS_rseq, "the start of a thread"),
    call_if(
        libc::SYS_prctl,
        option(libc::PR_SET_NAME, "PR_SET_NAME"),
        "a thread's name",
    ),
    call_if(
        libc::SYS_prctl,
        option(libc::PR_SET_NO_NEW_PRIVS, "PR_SET_NO_NEW_PRIVS"),
        "a new thread goes into the jail",
    ),
    call_if(
        libc::SYS_prctl,
        option(libc::PR_CAP_AMBIENT, "PR_CAP_AMBIENT"),
        "the same: capabilities",
    ),
    call_if(
        libc::SYS_close_range,
        When::Bits {
            argument: 2,
            mask: u32::MAX as u64,
            is: libc::CLOSE_RANGE_CLOEXEC as u64,
            says: "CLOSE_RANGE_CLOEXEC",
        },
        "the same: no descriptor survives an exec",
    ),
    call(libc::SYS_capget, "the same: capabilities"),
    call(
        libc::SYS_capset,
        "the same: capabilities, of which there are none to set any more",
    ),
    call(
        libc::SYS_seccomp,
        "the same: its filter, which can only be stricter",
    ),
    call_if(
        libc::SYS_openat,
        READ_ONLY,
        "/proc: run delays of threads, time stolen from this host; limits on pCPUs",
    ),
    call(libc::SYS_fstat, "how large a file is that is read"),
    call(libc::SYS_statx, "the same; whether KVM is PVM's"),
    call(libc::SYS_newfstatat, "the same, on some systems"),
    call(libc::SYS_lseek, "a file is read to its end"),
    call(libc::SYS_readlink, "a panic's backtrace looks for symbols"),
    call(libc::SYS_getcwd, "the same; how a cgroup limits pCPUs"),
    call_if(
        libc::SYS_fcntl,
        command(libc::F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC"),
        "descriptors of KVM that two parts of a VM have",
    ),
    call(libc::SYS_uname, "the kernel's version, for a report"),
    call_if(
        libc::SYS_ioctl,
        When::Requests(&[request::TIOCGWINSZ, request::TCGETS, request::TCGETS2]),
        "rows and a bar on a terminal",
    ),
];
