//! MIPS, `include/uapi/linux/kvm_para.h`: number in v0, arguments in a0 to a3,
//! result in v0.
//!
//! The header has the numbers, and `arch/mips/kvm/hypcall.c` answers
//! -`KVM_ENOSYS` to all of them: what they take and give no kernel says.

use super::{Field, Gate, Return, Row, Server, Since, Status, ret};
use crate::arch::Arch;

const UNSERVED: &[Return] = &[ret("-KVM_ENOSYS", "always")];

pub(super) const MIPS_GET_CLOCK_FREQ: Row = row(
    6,
    "KVM_HC_MIPS_GET_CLOCK_FREQ",
    "Get the frequency of a clock, going by the name.",
);
pub(super) const MIPS_EXIT_VM: Row =
    row(7, "KVM_HC_MIPS_EXIT_VM", "End the VM, going by the name.");
pub(super) const MIPS_CONSOLE_OUTPUT: Row = row(
    8,
    "KVM_HC_MIPS_CONSOLE_OUTPUT",
    "Write to a console, going by the name.",
);

const fn row(nr: u64, name: &'static str, purpose: &'static str) -> Row {
    Row {
        arch: Arch::Mips,
        nr,
        name,
        status: Status::Reserved,
        purpose,
        inputs: Field::UNVERIFIED,
        outputs: Field::UNVERIFIED,
        returns: UNSERVED,
        gate: Gate::None,
        since: Since::Unverified,
        server: Server::Nobody,
        source: "include/uapi/linux/kvm_para.h; arch/mips/kvm/hypcall.c, kvm_mips_hypercall",
    }
}
