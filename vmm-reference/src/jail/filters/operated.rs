//! What the event loop of `run` needs with a control socket, whose clients may ask
//! for a snapshot at a path that they name.

use crate::jail::call::{Call, When, call, call_if, refused, refused_if};
use crate::jail::request;

/// Nothing that is there is written to.
const NEW: When = When::Bits {
    argument: 2,
    mask: (libc::O_CREAT | libc::O_EXCL).cast_unsigned() as u64,
    is: (libc::O_CREAT | libc::O_EXCL).cast_unsigned() as u64,
    says: "with O_CREAT and O_EXCL",
};

/// What a file is opened with that is written, or made.
const WRITES: libc::c_int = libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC;

const DIRECTORY: When = When::Bits {
    argument: 2,
    mask: (WRITES | libc::O_TMPFILE).cast_unsigned() as u64,
    is: libc::O_DIRECTORY.cast_unsigned() as u64,
    says: "a directory",
};

const READ_ONLY: When = When::Bits {
    argument: 2,
    mask: (WRITES | libc::O_DIRECTORY).cast_unsigned() as u64,
    is: 0,
    says: "read only",
};

/// The rows.
pub const CALLS: &[Call] = &[
    call(libc::SYS_accept4, "a client of the control socket"),
    call(
        libc::SYS_timerfd_settime,
        "clients for whom there was no room are looked for later",
    ),
    call(libc::SYS_recvfrom, "a client's requests"),
    call(libc::SYS_sendto, "the answers"),
    call_if(
        libc::SYS_ioctl,
        When::Requests(&[request::FIONBIO]),
        "a client's connection does not block",
    ),
    call(
        libc::SYS_unlink,
        "the control socket's file is removed at the end; half a snapshot is no use",
    ),
    call(
        libc::SYS_flock,
        "the socket's file, in turns with others that look at the directory's sockets",
    ),
    call(libc::SYS_statx, "the same, if it is still this VM's"),
    call(libc::SYS_lstat, "the same, on some systems"),
    call(libc::SYS_newfstatat, "the same, on some systems"),
    call_if(
        libc::SYS_ioctl,
        When::Requests(&[request::KVM_SIGNAL_MSI]),
        "`kick`, of a vCPU that halts in KVM",
    ),
    call_if(
        libc::SYS_openat,
        NEW,
        "`snapshot`: its file, under another name",
    ),
    call_if(
        libc::SYS_openat,
        DIRECTORY,
        "`snapshot`: where it is, to be synced",
    ),
    refused_if(
        libc::SYS_openat,
        &READ_ONLY,
        "a panic's backtrace looks for symbols, and prints addresses without",
    ),
    refused(libc::SYS_open, "the same"),
    refused(libc::SYS_readlink, "the same: where this program's file is"),
    refused(
        libc::SYS_getcwd,
        "the same: paths relative to the current directory",
    ),
    call(
        libc::SYS_pwrite64,
        "`snapshot`: guest memory and the state are written",
    ),
    call(
        libc::SYS_sync_file_range,
        "`snapshot`: its data goes to the disk in steps, between which it can be given up",
    ),
    call(
        libc::SYS_fsync,
        "`snapshot`: it is on the disk before it has its name, and its name too",
    ),
    call(
        libc::SYS_rename,
        "`snapshot`: it has its name when it is whole",
    ),
    call_if(
        libc::SYS_ioctl,
        When::Requests(&[request::KVM_RUN]),
        "`snapshot`: KVM finishes the instruction of a vCPU's last exit; its guest runs no \
         further",
    ),
    call_if(
        libc::SYS_ioctl,
        When::Requests(&[
            request::KVM_GET_MP_STATE,
            request::KVM_GET_CPUID2,
            request::KVM_GET_TSC_KHZ,
            request::KVM_GET_REGS,
            request::KVM_GET_SREGS,
            request::KVM_GET_XSAVE,
            request::KVM_GET_XCRS,
            request::KVM_GET_DEBUGREGS,
            request::KVM_GET_LAPIC,
            request::KVM_GET_MSRS,
            request::KVM_GET_VCPU_EVENTS,
        ]),
        "`snapshot`: the state of each vCPU",
    ),
    call_if(
        libc::SYS_ioctl,
        When::Requests(&[
            request::KVM_GET_CLOCK,
            request::KVM_GET_IRQCHIP,
            request::KVM_GET_PIT2,
        ]),
        "`snapshot`: the state of the VM",
    ),
];
