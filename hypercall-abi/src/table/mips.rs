//! MIPS, `include/uapi/linux/kvm_para.h`: number in v0, arguments in a0 to a3,
//! result in v0.
//!
//! The header has the numbers, and `arch/mips/kvm/hypcall.c` answers
//! -`KVM_ENOSYS` to all of them. What they take is what the guest platform
//! `arch/mips/paravirt` of old kernels passed.

use super::{Answer, Field, Place, Register, Return, Row, Server, Status, Width};
use crate::arch::Arch;
use crate::errno::KvmErrno;

const ROW: Row = Row {
    arch: Arch::Mips,
    status: Status::Reserved,
    notes: "KVM has no code for it. Its use is that of the guest platform arch/mips/paravirt of \
            old kernels, which other hypervisors served.",
    returns: &[Return::new(
        Answer::Error(KvmErrno::ENOSYS),
        "always, from KVM",
    )],
    server: Server::Nobody,
    source: "include/uapi/linux/kvm_para.h; arch/mips/kvm/hypcall.c, kvm_mips_hypercall",
    ..Row::BASE
};

pub(super) const MIPS_GET_CLOCK_FREQ: Row = Row {
    nr: 6,
    name: "KVM_HC_MIPS_GET_CLOCK_FREQ",
    purpose: "Get the frequency of the CP0 counter in Hz, as the result.",
    ..ROW
};

pub(super) const MIPS_EXIT_VM: Row = Row {
    nr: 7,
    name: "KVM_HC_MIPS_EXIT_VM",
    purpose: "End the VM.",
    ..ROW
};

pub(super) const MIPS_CONSOLE_OUTPUT: Row = Row {
    nr: 8,
    name: "KVM_HC_MIPS_CONSOLE_OUTPUT",
    purpose: "Write to a console.",
    inputs: &[
        Field::new(
            Place::In(Register::A0),
            Width::Mode,
            "port: 0, or the number of the virtual console",
        ),
        Field::new(Place::In(Register::A1), Width::Mode, "address of the text"),
        Field::new(
            Place::In(Register::A2),
            Width::Mode,
            "length of the text in bytes",
        ),
    ],
    ..ROW
};
