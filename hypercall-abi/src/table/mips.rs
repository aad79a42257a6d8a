//! MIPS: HYPCALL code 0, number in v0, arguments in a0 to a3, result in v0.

use super::{Gate, Row, Server, Since, Status};
use crate::arch::Arch;

pub(super) const MIPS_GET_CLOCK_FREQ: Row = row(
    6,
    "KVM_HC_MIPS_GET_CLOCK_FREQ",
    "Get the frequency of the CPU clock.",
);
pub(super) const MIPS_EXIT_VM: Row = row(7, "KVM_HC_MIPS_EXIT_VM", "End the VM.");
pub(super) const MIPS_CONSOLE_OUTPUT: Row =
    row(8, "KVM_HC_MIPS_CONSOLE_OUTPUT", "Write to the console.");

const fn row(nr: u64, name: &'static str, purpose: &'static str) -> Row {
    Row {
        arch: Arch::Mips,
        nr,
        name,
        status: Status::Active,
        purpose,
        inputs: &[],
        outputs: &[],
        returns: &[],
        gate: Gate::None,
        since: Since::Unverified,
        server: Server::Unverified,
        source: "include/uapi/linux/kvm_para.h",
    }
}
