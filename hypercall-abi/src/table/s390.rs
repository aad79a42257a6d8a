//! s390, `Documentation/virt/kvm/s390/s390-diag.rst`: the DIAGNOSE function
//! code is the number. A guest has no feature bit to look at.

use super::{Field, Gate, Row, Server, Since, Status, field, ret};
use crate::arch::Arch;

/// The base of what all rows share.
const ROW: Row = Row {
    arch: Arch::S390,
    nr: 0,
    name: "",
    status: Status::Active,
    purpose: "",
    inputs: Field::NONE,
    outputs: Field::NONE,
    returns: &[],
    gate: Gate::None,
    since: Since::Unverified,
    server: Server::Userspace,
    source: "Documentation/virt/kvm/s390/s390-diag.rst",
};

pub(super) const YIELD_TO: Row = Row {
    nr: 0x9c,
    name: "DIAGNOSE 0x9C",
    purpose: "Voluntary time slice yield: give this CPU's time to the one a lock is held by: x86's KVM_HC_SCHED_YIELD. Not \
              KVM's alone, other hypervisors have it too.",
    inputs: &[field(
        "the instruction's r1",
        "address of the CPU to yield to",
    )],
    returns: &[ret("none", "the yield may happen or not")],
    server: Server::Kernel,
    source: "arch/s390/kvm/diag.c, __diag_time_slice_end_directed",
    ..ROW
};

pub(super) const KVM: Row = Row {
    nr: 0x500,
    name: "DIAGNOSE 0x500",
    purpose: "KVM's own calls by subfunction: 0 to 2 the first virtio transport (notify, reset, \
              set status), 3 virtio-ccw notification, 4 storage limit.",
    inputs: &[
        field("general register 1", "subfunction"),
        field(
            "general registers 2 to 7",
            "its arguments; for 3: r2 subchannel identification, r3 virtqueue number, r4 cookie \
             of an earlier call or anything",
        ),
    ],
    outputs: Field::NONE,
    returns: &[
        ret(
            "r2",
            "the subfunction's; for 3 a cookie or a negative error, for 4 the greatest address \
             that may ever hold storage",
        ),
        ret("SPECIFICATION exception", "no such subfunction"),
    ],
    server: Server::KernelMayExit,
    ..ROW
};

pub(super) const BREAKPOINT: Row = Row {
    nr: 0x501,
    name: "DIAGNOSE 0x501",
    purpose: "A breakpoint for the VMM to act on. No subfunctions and no parameters.",
    returns: &[ret("none", "the document names none")],
    ..ROW
};
