//! arm64: `Documentation/virt/kvm/arm/hypercalls.rst`, `ptp_kvm.rst` and
//! `pvtime.rst`. Function identifiers of the SMC calling convention; the
//! vendor-specific hypervisor range is KVM's by the UID
//! 28b46fb6-2ec5-11e9-a9ca-4b564d003a74. No call of it kicks a vCPU.

use super::{Field, Gate, Return, Row, Server, Since, Status, field, ret};
use crate::arch::Arch;

const NOT_SUPPORTED: Return = ret("-1", "NOT_SUPPORTED");
const INVALID_PARAMETER: Return = ret("-3", "INVALID_PARAMETER");
const HYPERCALLS: &str = "Documentation/virt/kvm/arm/hypercalls.rst";
const PVTIME: &str = "Documentation/virt/kvm/arm/pvtime.rst";

/// The base of what all rows share.
const ROW: Row = Row {
    arch: Arch::Arm64,
    nr: 0,
    name: "",
    status: Status::Active,
    purpose: "",
    inputs: Field::NONE,
    outputs: Field::NONE,
    returns: &[],
    gate: Gate::Other("the function's bit in the result of KVM_FEATURES, under KVM's UID"),
    since: Since::Unverified,
    server: Server::Kernel,
    source: HYPERCALLS,
};

pub(super) const PV_TIME_FEATURES: Row = Row {
    nr: 0xc500_0020,
    name: "ARM_SMCCC_HV_PV_TIME_FEATURES",
    purpose: "Ask whether a paravirtualized time call is there (Arm DEN0057A).",
    inputs: &[field(
        "w1",
        "function id asked for: only PV_TIME_ST is known",
    )],
    returns: &[ret("0", "it is there"), NOT_SUPPORTED],
    gate: Gate::Other("SMCCC 1.1 ARCH_FEATURES of this function id"),
    source: PVTIME,
    ..ROW
};

pub(super) const PV_TIME_ST: Row = Row {
    nr: 0xc500_0021,
    name: "ARM_SMCCC_HV_PV_TIME_ST",
    purpose: "Find the calling vCPU's stolen time: how long it was ready and did not run.",
    outputs: &[field(
        "memory at x0",
        "16 bytes, little-endian: u32 revision (0), u32 attributes (0), u64 stolen time in \
         nanoseconds; kept up to date by the host",
    )],
    returns: &[
        ret("x0 >= 0", "guest physical address of the structure"),
        NOT_SUPPORTED,
    ],
    gate: Gate::Other("PV_TIME_FEATURES of this function id"),
    source: PVTIME,
    ..ROW
};

pub(super) const KVM_FEATURES: Row = Row {
    nr: 0x8600_0000,
    name: "ARM_SMCCC_VENDOR_HYP_KVM_FEATURES_FUNC_ID",
    purpose: "Find out which of KVM's functions there are.",
    outputs: &[
        field("w0", "bitmap of functions 0 to 31"),
        field("w1", "bitmap of functions 32 to 63"),
        field("w2", "bitmap of functions 64 to 95"),
        field("w3", "bitmap of functions 96 to 127"),
    ],
    returns: &[ret("w0", "the first bitmap")],
    gate: Gate::Other("KVM's UID from the vendor range's Call UID function"),
    ..ROW
};

pub(super) const KVM_PTP: Row = Row {
    nr: 0x8600_0001,
    name: "ARM_SMCCC_VENDOR_HYP_KVM_PTP_FUNC_ID",
    purpose: "Read the host's wall clock and the guest's counter at one instant, as x86's \
              KVM_HC_CLOCK_PAIRING does.",
    inputs: &[field(
        "w1",
        "counter: KVM_PTP_VIRT_COUNTER (0) or KVM_PTP_PHYS_COUNTER (1)",
    )],
    outputs: &[
        field("w0", "upper 32 bits of the wall clock"),
        field("w1", "lower 32 bits of the wall clock"),
        field("w2", "upper 32 bits of the counter"),
        field("w3", "lower 32 bits of the counter"),
    ],
    returns: &[ret("w0", "the first output"), NOT_SUPPORTED],
    source: "Documentation/virt/kvm/arm/ptp_kvm.rst",
    ..ROW
};

pub(super) const HYP_MEMINFO: Row = Row {
    nr: 0xc600_0002,
    name: "ARM_SMCCC_KVM_FUNC_HYP_MEMINFO",
    purpose: "Find the granule of memory protection. Protected (pKVM) guests only.",
    inputs: &[field("x1, x2, x3", "reserved, 0")],
    returns: &[ret("x0 >= 0", "the granule in bytes"), INVALID_PARAMETER],
    ..ROW
};

pub(super) const MEM_SHARE: Row = Row {
    nr: 0xc600_0003,
    name: "ARM_SMCCC_KVM_FUNC_MEM_SHARE",
    purpose: "Let the host read, write and execute a granule of the guest's memory. Protected \
              (pKVM) guests only.",
    inputs: &[
        field("x1", "guest physical address of the granule"),
        field("x2, x3", "reserved, 0"),
    ],
    returns: &[ret("0", "shared"), INVALID_PARAMETER],
    ..ROW
};

pub(super) const MEM_UNSHARE: Row = Row {
    nr: 0xc600_0004,
    name: "ARM_SMCCC_KVM_FUNC_MEM_UNSHARE",
    purpose: "Take back a granule that MEM_SHARE shared. Protected (pKVM) guests only.",
    inputs: &[
        field("x1", "guest physical address of the granule"),
        field("x2, x3", "reserved, 0"),
    ],
    returns: &[ret("0", "taken back"), INVALID_PARAMETER],
    ..ROW
};

pub(super) const MMIO_GUARD: Row = Row {
    nr: 0xc600_0007,
    name: "ARM_SMCCC_KVM_FUNC_MMIO_GUARD",
    purpose: "Declare a granule to be MMIO, so that the host may emulate accesses to it. \
              Protected (pKVM) guests only.",
    inputs: &[
        field("x1", "guest physical address of the granule"),
        field("x2, x3", "reserved, 0"),
    ],
    returns: &[ret("0", "declared"), INVALID_PARAMETER],
    ..ROW
};

pub(super) const DISCOVER_IMPL_VER: Row = Row {
    nr: 0xc600_0040,
    name: "ARM_SMCCC_VENDOR_HYP_KVM_DISCOVER_IMPL_VER_FUNC_ID",
    purpose: "Ask on how many CPU implementations the guest may come to run, for errata.",
    outputs: &[
        field("x1", "version: bits 31:16 major, bits 15:0 minor"),
        field("x2", "number of implementations"),
        field("x3", "reserved, 0"),
    ],
    returns: &[ret("0", "done"), NOT_SUPPORTED],
    server: Server::Userspace,
    ..ROW
};

pub(super) const DISCOVER_IMPL_CPUS: Row = Row {
    nr: 0xc600_0041,
    name: "ARM_SMCCC_VENDOR_HYP_KVM_DISCOVER_IMPL_CPUS_FUNC_ID",
    purpose: "Get the identification registers of one of those CPU implementations.",
    inputs: &[
        field("x1", "index of the implementation"),
        field("x2, x3", "reserved, 0"),
    ],
    outputs: &[
        field("x1", "MIDR_EL1"),
        field("x2", "REVIDR_EL1"),
        field("x3", "AIDR_EL1"),
    ],
    returns: &[ret("0", "done"), INVALID_PARAMETER],
    server: Server::Userspace,
    ..ROW
};
