//! What any thread may need, for Rust's and C's libraries.

use crate::jail::call::{Call, NOT_EXECUTABLE, When, call, call_if, command, option};
use crate::jail::request;

/// The rows.
pub const CALLS: &[Call] = &[
    call(
        libc::SYS_futex,
        "locks, condition variables, channels; a halted vCPU sleeps in it",
    ),
    call(libc::SYS_brk, "memory of the allocator"),
    call_if(
        libc::SYS_mmap,
        NOT_EXECUTABLE,
        "memory of the allocator, stacks of threads",
    ),
    call_if(
        libc::SYS_mprotect,
        NOT_EXECUTABLE,
        "the allocator makes more of its memory usable",
    ),
    call(libc::SYS_mremap, "large allocations grow"),
    call(
        libc::SYS_munmap,
        "memory, and the stack of a thread that was joined",
    ),
    call(
        libc::SYS_madvise,
        "memory given back, at the end of a thread for one",
    ),
    call(libc::SYS_getrandom, "the keys of hash maps"),
    call(
        libc::SYS_clock_gettime,
        "time, where the vDSO can't tell it",
    ),
    call(libc::SYS_clock_nanosleep, "sleeps"),
    call(
        libc::SYS_restart_syscall,
        "the kernel goes on with a sleep or a wait after SIGSTOP and SIGCONT",
    ),
    call(
        libc::SYS_sched_yield,
        "waiting for another thread for an instant",
    ),
    call(
        libc::SYS_write,
        "events; messages; output; a panic's message",
    ),
    call(libc::SYS_close, "descriptors of what is dropped"),
    call_if(
        libc::SYS_fcntl,
        command(libc::F_GETFD, "F_GETFD"),
        "in debug builds: whether a descriptor that is dropped is open",
    ),
    call(libc::SYS_rt_sigreturn, "the return from a signal handler"),
    call(
        libc::SYS_rt_sigprocmask,
        "signals are blocked while one is sent to a thread, and while one ends",
    ),
    call(
        libc::SYS_sigaltstack,
        "a thread's stack for signals is taken down at its end",
    ),
    call(
        libc::SYS_getpid,
        "a signal is sent to a thread of this process",
    ),
    call(
        libc::SYS_gettid,
        "a thread's own id: timers, the trace, abort",
    ),
    call_if(
        libc::SYS_tgkill,
        When::OwnProcess,
        "a vCPU is made to leave the guest; abort",
    ),
    call(
        libc::SYS_poll,
        "the report of a hit does not wait for a standard error that nobody reads",
    ),
    call(libc::SYS_ppoll, "the same, on some systems"),
    call_if(
        libc::SYS_prctl,
        option(libc::PR_GET_NAME, "PR_GET_NAME"),
        "the report of a hit has the thread's name",
    ),
    call_if(
        libc::SYS_ioctl,
        When::OnStdin(request::TCSETS2),
        "the terminal is as before, after the report of a hit too",
    ),
    call(
        libc::SYS_timer_settime,
        "the handler of a request to end: from then on the main thread is interrupted; the \
         timer of a local APIC",
    ),
    call_if(
        libc::SYS_fcntl,
        command(libc::F_GETFL, "F_GETFL"),
        "an end by force: its line does not wait for a standard error that nobody reads",
    ),
    call_if(
        libc::SYS_fcntl,
        command(libc::F_SETFL, "F_SETFL"),
        "the same",
    ),
    call(libc::SYS_exit, "the end of a thread"),
    call(libc::SYS_exit_group, "the end of the process"),
];
