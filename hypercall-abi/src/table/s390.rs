//! s390, `Documentation/virt/kvm/s390/s390-diag.rst` and
//! `arch/s390/kvm/diag.c`: the DIAGNOSE function code is the number. A guest
//! has no feature bit to look at.
//!
//! The rows are the codes that `arch/s390/include/uapi/asm/sie.h` lists. Only
//! 0x500 and 0x501 are KVM's own; other hypervisors define the rest, and in
//! the VMM's case (0x204, 0x288) what is served varies with it.

use cpuid_features::Since;

use super::{Answer, Field, Place, Register, Return, Row, Server, Width};
use crate::arch::Arch;

/// The base of what all rows share.
const ROW: Row = Row {
    arch: Arch::S390,
    since: Since::AtLatest {
        release: "6.1",
        file: "arch/s390/include/uapi/asm/sie.h",
    },
    source: "arch/s390/kvm/diag.c, kvm_s390_handle_diag",
    ..Row::BASE
};

/// The exception for a call from user mode.
const NOT_KERNEL: Return = Return::new(
    Answer::Exception("PRIVILEGED-OPERATION"),
    "called in the problem state",
);
const SPECIFICATION: Answer = Answer::Exception("SPECIFICATION");
const NOTHING: Answer = Answer::Nothing;

/// An operand in the register that a field of the instruction names.
const fn named(field: &'static str, meaning: &'static str) -> Field {
    Field::new(Place::Named(field), Width::Bits64, meaning)
}

const fn input(register: Register, meaning: &'static str) -> Field {
    Field::new(Place::In(register), Width::Bits64, meaning)
}

pub(super) const RELEASE_PAGES: Row = Row {
    nr: 0x10,
    name: "DIAGNOSE 0x10",
    purpose: "Release a range of pages: their contents are lost and the host need not keep \
              them.",
    inputs: &[
        named("R1", "address of the first page, not below 8192"),
        named("R3", "address of the last page"),
    ],
    returns: &[
        Return::new(NOTHING, "released"),
        Return::new(
            SPECIFICATION,
            "misaligned, empty, or one of the first two pages",
        ),
        NOT_KERNEL,
    ],
    source: "arch/s390/kvm/diag.c, diag_release_pages",
    ..ROW
};

pub(super) const TIME_SLICE_END: Row = Row {
    nr: 0x44,
    name: "DIAGNOSE 0x44",
    purpose: "Voluntary time slice end: give this CPU's time to whichever vCPU of the guest is \
              held up most. 0x9C names the one.",
    returns: &[
        Return::new(NOTHING, "the yield may happen or not"),
        NOT_KERNEL,
    ],
    source: "arch/s390/kvm/diag.c, __diag_time_slice_end",
    ..ROW
};

pub(super) const YIELD_TO: Row = Row {
    nr: 0x9c,
    name: "DIAGNOSE 0x9C",
    purpose: "Voluntary time slice yield: yield the host CPU on which the guest CPU is running \
              to another guest CPU, preferably the one of that address, such as the holder of a \
              lock: x86's KVM_HC_SCHED_YIELD. Not KVM's alone, LPAR and z/VM have it too.",
    notes: "If the target already runs on a host CPU which itself may be preempted by the \
            hypervisor below, KVM forwards the yield to it, diag9c_forwarding_hz times a second \
            at most (a kernel parameter; 0 turns forwarding off).",
    inputs: &[named("R1", "address of the CPU to yield to")],
    returns: &[
        Return::new(
            NOTHING,
            "the yield may happen or not; to itself and to no CPU it does not",
        ),
        NOT_KERNEL,
    ],
    source: "arch/s390/kvm/diag.c, __diag_time_slice_end_directed; \
             Documentation/virt/kvm/s390/s390-diag.rst",
    ..ROW
};

pub(super) const CPU_UTILIZATION: Row = Row {
    nr: 0x204,
    name: "DIAGNOSE 0x204",
    purpose: "Logical-CPU utilization. KVM passes it on to the VMM.",
    notes: "The hypervisors that define it document its registers.",
    returns: &[Return::new(Answer::Vmm, "the VMM's"), NOT_KERNEL],
    server: Server::Userspace,
    ..ROW
};

pub(super) const PAGE_REFERENCE: Row = Row {
    nr: 0x258,
    name: "DIAGNOSE 0x258",
    purpose: "Page-reference services: announce (subcode 0) or cancel (1) a token for \
              asynchronous page faults, what KVM_FEATURE_ASYNC_PF is to x86.",
    inputs: &[
        named(
            "R1",
            "real address of the parameter block, 8-byte aligned, version 2, code 0x258",
        ),
        named("R3", "overwritten by the answer"),
    ],
    returns: &[
        Return::new(Answer::Value(0), "done, in the register that R3 names"),
        Return::new(
            Answer::Value(8),
            "a token is announced already, in the same register",
        ),
        Return::new(
            Answer::Value(4),
            "no token was there to cancel, in the same register",
        ),
        Return::new(SPECIFICATION, "a parameter block that is none"),
        Return::new(
            Answer::Exception("ADDRESSING"),
            "the token is not in the guest's memory",
        ),
        NOT_KERNEL,
    ],
    server: Server::KernelMayExit,
    source: "arch/s390/kvm/diag.c, __diag_page_ref_service",
    ..ROW
};

pub(super) const WATCHDOG: Row = Row {
    nr: 0x288,
    name: "DIAGNOSE 0x288",
    purpose: "Watchdog functions. KVM passes it on to the VMM.",
    notes: "The hypervisors that define it document its registers.",
    returns: &[Return::new(Answer::Vmm, "the VMM's"), NOT_KERNEL],
    server: Server::Userspace,
    ..ROW
};

pub(super) const IPL: Row = Row {
    nr: 0x308,
    name: "DIAGNOSE 0x308",
    purpose: "Initial program load: resets and boot. Subcodes 3 and 4 exit to the VMM with \
              KVM_EXIT_S390_RESET, others as an intercepted instruction.",
    inputs: &[
        named("R1", "the subcode's"),
        named("R3", "subcode, its low 16 bits"),
    ],
    returns: &[Return::new(Answer::Vmm, "the VMM's"), NOT_KERNEL],
    server: Server::KernelMayExit,
    source: "arch/s390/kvm/diag.c, __diag_ipl_functions",
    ..ROW
};

pub(super) const KVM: Row = Row {
    nr: 0x500,
    name: "DIAGNOSE 0x500",
    purpose: "KVM's virtio functions by subcode: 0 to 2 those of the first virtio transport \
              (notification and early console printk, reset, set status), 3 virtio-ccw \
              notification, 4 storage limit.",
    notes: "Which subcodes there are depends on the VMM: it provides either 0 to 2 or 3. KVM \
            serves 3 itself when an ioeventfd matches.",
    inputs: &[
        input(Register::R1, "subcode"),
        input(
            Register::R2,
            "3: subchannel-identification word of the virtio-ccw proxy device",
        ),
        input(Register::R3, "3: number of the virtqueue"),
        input(
            Register::R4,
            "3: identifier that an earlier call answered; an invalid one is ignored",
        ),
    ],
    returns: &[
        Return::new(
            Answer::Output(Register::R2),
            "the subcode's; for 3 an identifier for r4, for 4 the greatest address that may \
             ever hold storage",
        ),
        Return::new(Answer::Negative, "3: an internal error"),
        Return::new(SPECIFICATION, "no such subcode"),
        NOT_KERNEL,
    ],
    server: Server::KernelMayExit,
    source: "Documentation/virt/kvm/s390/s390-diag.rst; arch/s390/kvm/diag.c, \
             __diag_virtio_hypercall",
    ..ROW
};

pub(super) const BREAKPOINT: Row = Row {
    nr: 0x501,
    name: "DIAGNOSE 0x501",
    purpose: "A breakpoint for the VMM to act on. No subfunctions and no parameters.",
    returns: &[Return::new(NOTHING, "the VMM acts on it"), NOT_KERNEL],
    server: Server::Userspace,
    source: "Documentation/virt/kvm/s390/s390-diag.rst",
    ..ROW
};
