//! arm64: `Documentation/virt/kvm/arm/hypercalls.rst`, `ptp_kvm.rst` and
//! `pvtime.rst`. Function identifiers of the SMC calling convention; the
//! vendor-specific hypervisor range is KVM's by the UID
//! 28b46fb6-2ec5-11e9-a9ca-4b564d003a74. No call of it kicks a vCPU.

use cpuid_features::Since;

use super::{Answer, Field, Gate, Place, Register, Return, Row, Server, Width};
use crate::arch::Arch;

const NOT_SUPPORTED: Return = Return::new(Answer::Code(-1), "NOT_SUPPORTED");
const INVALID_PARAMETER: Return = Return::new(Answer::Code(-3), "INVALID_PARAMETER");
const HEADER: &str = "include/linux/arm-smccc.h";
const PVTIME: &str = "Documentation/virt/kvm/arm/pvtime.rst; arch/arm64/kvm/pvtime.c";

/// Fast calls of the vendor-specific hypervisor range (owner 6), in the 32-bit
/// and in the 64-bit calling convention; the function number is in the low 16
/// bits.
const HVC32: u64 = 0x8600_0000;
const HVC64: u64 = 0xc600_0000;

/// The base of what all rows share.
const ROW: Row = Row {
    arch: Arch::Arm64,
    since: Since::AtLatest {
        release: "6.1",
        file: HEADER,
    },
    source: "Documentation/virt/kvm/arm/hypercalls.rst; arch/arm64/kvm/hypercalls.c",
    ..Row::BASE
};

const PKVM: Row = Row {
    notes: "Of protected guests under pKVM only, whose hypervisor at EL2 serves it.",
    since: Since::AtLatest {
        release: "6.12",
        file: HEADER,
    },
    source: "Documentation/virt/kvm/arm/hypercalls.rst",
    ..ROW
};

const NEWER: Row = Row {
    since: Since::After {
        release: "6.12",
        file: HEADER,
    },
    server: Server::Userspace,
    source: "Documentation/virt/kvm/arm/hypercalls.rst",
    ..ROW
};

const fn word(register: Register, meaning: &'static str) -> Field {
    Field::new(Place::In(register), Width::Bits32, meaning)
}

const fn double(register: Register, meaning: &'static str) -> Field {
    Field::new(Place::In(register), Width::Bits64, meaning)
}

const fn reserved(register: Register) -> Field {
    double(register, "reserved, must be 0")
}

pub(super) const PV_TIME_FEATURES: Row = Row {
    nr: 0xc500_0020,
    name: "ARM_SMCCC_HV_PV_TIME_FEATURES",
    purpose: "Ask whether a paravirtualized time call is there (Arm DEN0057A).",
    inputs: &[word(
        Register::X1,
        "function id asked for: this one and PV_TIME_ST are known",
    )],
    returns: &[Return::new(Answer::Value(0), "it is there"), NOT_SUPPORTED],
    gate: Gate::ArchFeatures,
    source: PVTIME,
    ..ROW
};

pub(super) const PV_TIME_ST: Row = Row {
    nr: 0xc500_0021,
    name: "ARM_SMCCC_HV_PV_TIME_ST",
    purpose: "Find the calling vCPU's stolen time: how long it was ready and did not run.",
    notes: "The structure is in a reserved region of the memory given to the guest, one a vCPU. \
            The guest maps it as normal memory, inner and outer write-back, inner shareable, and \
            does not write to it. The hypervisor updates it before it schedules the vCPU.",
    outputs: &[Field::new(
        Place::Memory(Register::X0),
        Width::Bytes(16),
        "little-endian: u32 revision (0), u32 attributes (0), u64 stolen time in nanoseconds",
    )],
    returns: &[
        Return::new(Answer::Number, "guest physical address of the structure"),
        NOT_SUPPORTED,
    ],
    gate: Gate::PvTimeFeatures,
    source: PVTIME,
    ..ROW
};

pub(super) const KVM_FEATURES: Row = Row {
    nr: HVC32,
    name: "ARM_SMCCC_VENDOR_HYP_KVM_FEATURES_FUNC_ID",
    purpose: "Find out which of KVM's functions there are.",
    outputs: &[
        word(Register::X0, "bitmap of functions 0 to 31"),
        word(Register::X1, "bitmap of functions 32 to 63"),
        word(Register::X2, "bitmap of functions 64 to 95"),
        word(Register::X3, "bitmap of functions 96 to 127"),
    ],
    returns: &[
        Return::new(Answer::Output(Register::X0), "the first bitmap"),
        NOT_SUPPORTED,
    ],
    gate: Gate::Uid([0xb66f_b428, 0xe911_c52e, 0x564b_caa9, 0x743a_004d]),
    ..ROW
};

pub(super) const KVM_PTP: Row = Row {
    nr: HVC32 + 1,
    name: "ARM_SMCCC_VENDOR_HYP_KVM_PTP_FUNC_ID",
    purpose: "Read the host's wall clock and the guest's counter at one instant, as x86's \
              KVM_HC_CLOCK_PAIRING does.",
    inputs: &[word(
        Register::X1,
        "counter: KVM_PTP_VIRT_COUNTER (0) or KVM_PTP_PHYS_COUNTER (1)",
    )],
    outputs: &[
        word(
            Register::X0,
            "upper 32 bits of the wall clock in nanoseconds",
        ),
        word(Register::X1, "lower 32 bits of the wall clock"),
        word(Register::X2, "upper 32 bits of the counter"),
        word(Register::X3, "lower 32 bits of the counter"),
    ],
    returns: &[
        Return::new(
            Answer::Output(Register::X0),
            "the first output, never negative",
        ),
        Return::new(
            Answer::Code(-1),
            "NOT_SUPPORTED: no such counter, or the host's clock is not the architected counter",
        ),
    ],
    gate: Gate::Function(1),
    source: "Documentation/virt/kvm/arm/ptp_kvm.rst; arch/arm64/kvm/hypercalls.c, \
             kvm_ptp_get_time",
    ..ROW
};

pub(super) const HYP_MEMINFO: Row = Row {
    nr: HVC64 + 2,
    name: "ARM_SMCCC_VENDOR_HYP_KVM_HYP_MEMINFO_FUNC_ID",
    purpose: "Query the memory protection parameters of a protected VM.",
    inputs: &[
        reserved(Register::X1),
        reserved(Register::X2),
        reserved(Register::X3),
    ],
    returns: &[
        Return::new(Answer::Number, "the memory protection granule in bytes"),
        INVALID_PARAMETER,
    ],
    gate: Gate::Function(2),
    ..PKVM
};

pub(super) const MEM_SHARE: Row = Row {
    nr: HVC64 + 3,
    name: "ARM_SMCCC_VENDOR_HYP_KVM_MEM_SHARE_FUNC_ID",
    purpose: "Share a granule of memory with the host, which may then read, write and execute \
              it.",
    inputs: &[
        double(Register::X1, "guest physical address of the granule"),
        reserved(Register::X2),
        reserved(Register::X3),
    ],
    returns: &[Return::new(Answer::Value(0), "shared"), INVALID_PARAMETER],
    gate: Gate::Function(3),
    ..PKVM
};

pub(super) const MEM_UNSHARE: Row = Row {
    nr: HVC64 + 4,
    name: "ARM_SMCCC_VENDOR_HYP_KVM_MEM_UNSHARE_FUNC_ID",
    purpose: "Take back a granule that MEM_SHARE shared.",
    inputs: &[
        double(Register::X1, "guest physical address of the granule"),
        reserved(Register::X2),
        reserved(Register::X3),
    ],
    returns: &[
        Return::new(Answer::Value(0), "taken back"),
        INVALID_PARAMETER,
    ],
    gate: Gate::Function(4),
    ..PKVM
};

pub(super) const MMIO_GUARD: Row = Row {
    nr: HVC64 + 7,
    name: "ARM_SMCCC_VENDOR_HYP_KVM_MMIO_GUARD_FUNC_ID",
    purpose: "Declare a granule to be MMIO, so that the host may emulate accesses to it.",
    inputs: &[
        double(Register::X1, "guest physical address of the granule"),
        reserved(Register::X2),
        reserved(Register::X3),
    ],
    returns: &[Return::new(Answer::Value(0), "declared"), INVALID_PARAMETER],
    gate: Gate::Function(7),
    ..PKVM
};

pub(super) const DISCOVER_IMPL_VER: Row = Row {
    nr: HVC64 + 64,
    name: "ARM_SMCCC_VENDOR_HYP_KVM_DISCOVER_IMPL_VER_FUNC_ID",
    purpose: "Ask on how many CPU implementations the guest may come to run, for errata.",
    outputs: &[
        double(Register::X1, "version: bits 31:16 major, bits 15:0 minor"),
        double(Register::X2, "number of implementations"),
        double(Register::X3, "reserved, 0"),
    ],
    returns: &[Return::new(Answer::Value(0), "done"), NOT_SUPPORTED],
    gate: Gate::Function(64),
    ..NEWER
};

pub(super) const DISCOVER_IMPL_CPUS: Row = Row {
    nr: HVC64 + 65,
    name: "ARM_SMCCC_VENDOR_HYP_KVM_DISCOVER_IMPL_CPUS_FUNC_ID",
    purpose: "Get the identification registers of one of those CPU implementations.",
    inputs: &[
        double(Register::X1, "index of the implementation"),
        reserved(Register::X2),
        reserved(Register::X3),
    ],
    outputs: &[
        double(Register::X1, "MIDR_EL1"),
        double(Register::X2, "REVIDR_EL1"),
        double(Register::X3, "AIDR_EL1"),
    ],
    returns: &[Return::new(Answer::Value(0), "done"), INVALID_PARAMETER],
    gate: Gate::Function(65),
    ..NEWER
};
