//! LoongArch: `arch/loongarch/include/asm/kvm_para.h` and
//! `Documentation/virt/kvm/loongarch/hypercalls.rst`.
//!
//! The code in the HVCL instruction says which service is meant. Service 0x100
//! is KVM's own, with a function number in a0; services 0x101 and 0x102 have
//! none and are rows by their code. Return codes are a set of their own.

use super::{Field, Gate, Return, Row, Server, Since, Status, field, ret};
use crate::arch::Arch;

const NOT_IMPLEMENTED: Return = ret("-1", "KVM_HCALL_INVALID_CODE: not implemented");
const BAD_PARAMETER: Return = ret("-2", "KVM_HCALL_INVALID_PARAMETER");
const SOURCE: &str = "arch/loongarch/kvm/exit.c, kvm_handle_hypercall";

pub(super) const FUNC_IPI: Row = Row {
    arch: Arch::LoongArch,
    nr: 1,
    name: "KVM_HCALL_FUNC_IPI",
    status: Status::Active,
    purpose: "Send an interrupt (SWI0) to many vCPUs with one exit, 128 at most.",
    inputs: &[
        field("a1", "bitmap of destination physical CPU ids, low 64"),
        field("a2", "bitmap of destination physical CPU ids, high 64"),
        field("a3", "physical CPU id of bit 0 of a1"),
    ],
    outputs: Field::NONE,
    returns: &[
        ret("0", "KVM_HCALL_SUCCESS; ids of no vCPU are passed over"),
        NOT_IMPLEMENTED,
    ],
    gate: Gate::Other("KVM_FEATURE_IPI, bit 1 of cpucfg 0x40000004"),
    since: Since::Unverified,
    server: Server::Kernel,
    source: SOURCE,
};

pub(super) const FUNC_NOTIFY: Row = Row {
    arch: Arch::LoongArch,
    nr: 2,
    name: "KVM_HCALL_FUNC_NOTIFY",
    status: Status::Active,
    purpose: "Tell KVM where the guest keeps a feature's shared memory: the steal time of this \
              vCPU.",
    inputs: &[
        field(
            "a1",
            "bitmap of features that are notified: bit 2 KVM_FEATURE_STEAL_TIME",
        ),
        field(
            "a2",
            "guest physical address of struct kvm_steal_time with KVM_STEAL_PHYS_VALID set, or \
             0 to end it",
        ),
    ],
    outputs: Field::NONE,
    returns: &[
        ret("0", "KVM_HCALL_SUCCESS"),
        NOT_IMPLEMENTED,
        BAD_PARAMETER,
    ],
    gate: Gate::Other("KVM_FEATURE_STEAL_TIME, bit 2 of cpucfg 0x40000004"),
    since: Since::Unverified,
    server: Server::Kernel,
    source: "arch/loongarch/kvm/exit.c, kvm_save_notify",
};

pub(super) const FUNC_KICK: Row = Row {
    arch: Arch::LoongArch,
    nr: 3,
    name: "KVM_HCALL_FUNC_KICK",
    status: Status::Unverified,
    purpose: "Wake a vCPU from idle, for PV spinlocks: x86's KVM_HC_KICK_CPU. Seen in a posted \
              series only; whether it was merged is not verified.",
    inputs: Field::UNVERIFIED,
    outputs: Field::UNVERIFIED,
    returns: &[NOT_IMPLEMENTED],
    gate: Gate::Unverified,
    since: Since::Unverified,
    server: Server::Unverified,
    source: "posted to the kvm mailing list",
};

pub(super) const SWDBG: Row = Row {
    arch: Arch::LoongArch,
    nr: 0x101,
    name: "KVM_HCALL_SWDBG",
    status: Status::Active,
    purpose: "A software breakpoint: exits with KVM_EXIT_DEBUG when the VMM has enabled them by \
              KVM_SET_GUEST_DEBUG.",
    inputs: Field::NONE,
    outputs: Field::NONE,
    returns: &[ret(
        "-1",
        "KVM_HCALL_INVALID_CODE: breakpoints are not enabled",
    )],
    gate: Gate::None,
    since: Since::Unverified,
    server: Server::KernelMayExit,
    source: SOURCE,
};

pub(super) const USER_SERVICE: Row = Row {
    arch: Arch::LoongArch,
    nr: 0x102,
    name: "KVM_HCALL_USER_SERVICE",
    status: Status::Active,
    purpose: "A call that is the VMM's to define. It exits with KVM_EXIT_HYPERCALL, number \
              0x102 and a0 to a5 as the arguments.",
    inputs: &[field("a0 to a5", "the VMM's to define")],
    outputs: Field::NONE,
    returns: &[ret("a0", "what the VMM answers")],
    gate: Gate::Other("KVM_FEATURE_USER_HCALL, bit 25 of cpucfg 0x40000004, which the VMM sets"),
    since: Since::Unverified,
    server: Server::Userspace,
    source: SOURCE,
};
