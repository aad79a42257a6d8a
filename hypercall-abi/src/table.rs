//! The one table. Every number, name, gate and printed document of the crate
//! derives from it.

mod answer;
mod gate;
mod operand;
mod row;

mod arm64;
mod loongarch;
mod mips;
mod powerpc;
mod s390;
mod x86;

pub use answer::{Answer, Return};
pub use gate::{Gate, HostGate};
pub use operand::{Field, Place, Register, Width};
pub use row::{Row, Server, Status};

use crate::arch::Arch;

/// Every hypercall, by architecture and number. See [`find`] for an example.
pub const TABLE: &[Row] = &[
    x86::VAPIC_POLL_IRQ,
    x86::MMU_OP,
    x86::KICK_CPU,
    x86::CLOCK_PAIRING,
    x86::SEND_IPI,
    x86::SCHED_YIELD,
    x86::MAP_GPA_RANGE,
    powerpc::FEATURES,
    powerpc::PPC_MAP_MAGIC_PAGE,
    mips::MIPS_GET_CLOCK_FREQ,
    mips::MIPS_EXIT_VM,
    mips::MIPS_CONSOLE_OUTPUT,
    loongarch::FUNC_IPI,
    loongarch::FUNC_NOTIFY,
    loongarch::FUNC_KICK,
    loongarch::SWDBG,
    loongarch::USER_SERVICE,
    arm64::KVM_FEATURES,
    arm64::KVM_PTP,
    arm64::PV_TIME_FEATURES,
    arm64::PV_TIME_ST,
    arm64::HYP_MEMINFO,
    arm64::MEM_SHARE,
    arm64::MEM_UNSHARE,
    arm64::MMIO_GUARD,
    arm64::DISCOVER_IMPL_VER,
    arm64::DISCOVER_IMPL_CPUS,
    s390::RELEASE_PAGES,
    s390::TIME_SLICE_END,
    s390::YIELD_TO,
    s390::CPU_UTILIZATION,
    s390::PAGE_REFERENCE,
    s390::WATCHDOG,
    s390::IPL,
    s390::KVM,
    s390::BREAKPOINT,
];

/// The row of that number on that architecture.
///
/// ```
/// use hypercall_abi::{Arch, find};
///
/// assert_eq!(find(Arch::X86, 1).unwrap().name, "KVM_HC_VAPIC_POLL_IRQ");
/// assert_eq!(find(Arch::LoongArch, 1).unwrap().name, "KVM_HCALL_FUNC_IPI");
/// assert_eq!(find(Arch::X86, 3), None);
/// ```
#[must_use]
pub const fn find(arch: Arch, nr: u64) -> Option<&'static Row> {
    let mut rest = TABLE;
    while let [row, tail @ ..] = rest {
        if row.nr == nr && row.arch as u8 == arch as u8 {
            return Some(row);
        }
        rest = tail;
    }
    None
}

/// The number of that name. For constants only.
#[expect(clippy::panic, reason = "called by constants alone: a compile error")]
pub(crate) const fn number_of(arch: Arch, name: &str) -> u64 {
    let mut rest = TABLE;
    while let [row, tail @ ..] = rest {
        if row.arch as u8 == arch as u8 && same(row.name, name) {
            return row.nr;
        }
        rest = tail;
    }
    panic!("no row of that name")
}

/// `==` on strings, for constants.
pub(crate) const fn same(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while let ([x, xs @ ..], [y, ys @ ..]) = (a, b) {
        if *x != *y {
            return false;
        }
        (a, b) = (xs, ys);
    }
    a.is_empty() && b.is_empty()
}

/// A table with a doubled key or name does not compile.
const _: () = {
    let mut rest = TABLE;
    while let [row, tail @ ..] = rest {
        let mut others = tail;
        while let [other, more @ ..] = others {
            if row.arch as u8 == other.arch as u8
                && (row.nr == other.nr || same(row.name, other.name))
            {
                panic!("two rows share an architecture and a number or a name");
            }
            others = more;
        }
        rest = tail;
    }
};
