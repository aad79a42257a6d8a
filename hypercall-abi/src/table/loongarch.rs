//! LoongArch: `arch/loongarch/include/asm/kvm_para.h` and
//! `Documentation/virt/kvm/loongarch/hypercalls.rst`.
//!
//! The code in the HVCL instruction says which service is meant. Service 0x100
//! is KVM's own, with a function number in a0; services 0x101 and 0x102 have
//! none and are rows by their code. Return codes are a set of their own.

use cpuid_features::{Arch as FeatureArch, Since, feature_named};

use super::{Answer, Field, Gate, Place, Register, Return, Row, Server, Status, Width};
use crate::arch::Arch;

const HEADER: &str = "arch/loongarch/include/asm/kvm_para.h";
const SUCCESS: Answer = Answer::Value(0);
const INVALID_CODE: Answer = Answer::Code(-1);
const INVALID_PARAMETER: Answer = Answer::Code(-2);
const NOT_IMPLEMENTED: Return =
    Return::new(INVALID_CODE, "KVM_HCALL_INVALID_CODE: not implemented");

/// What a row says unless it says otherwise. 6.12 is the oldest release with
/// KVM on LoongArch that was read; 6.1 has no such KVM.
const ROW: Row = Row {
    arch: Arch::LoongArch,
    since: Since::AtLatest {
        release: "6.12",
        file: HEADER,
    },
    source: "arch/loongarch/kvm/exit.c, kvm_handle_service",
    ..Row::BASE
};

const fn input(register: Register, meaning: &'static str) -> Field {
    Field::new(Place::In(register), Width::Bits64, meaning)
}

/// The bit of that name. A name without a row does not compile.
#[expect(clippy::panic, reason = "called by constants alone: a compile error")]
const fn word(kernel_name: &str) -> Gate {
    match feature_named(FeatureArch::LoongArch, kernel_name) {
        Some(row) => Gate::Word(row),
        None => panic!("no feature of that name"),
    }
}

pub(super) const FUNC_IPI: Row = Row {
    nr: 1,
    name: "KVM_HCALL_FUNC_IPI",
    purpose: "Send an IPI (the software interrupt SWI0) to many vCPUs with one exit, 128 at \
              most.",
    notes: "Bit 0 of a1 corresponds to the physical CPU id in a3, bit 1 to a3 + 1, and so on. \
            PV IPI includes both multicast sending and receiving; SWI is used to inject, since \
            access to the SWI registers exits to nobody.",
    inputs: &[
        input(
            Register::A1,
            "lower part of the bitmap of destination physical CPU ids",
        ),
        input(
            Register::A2,
            "higher part of the bitmap of destination physical CPU ids",
        ),
        Field::new(
            Place::In(Register::A3),
            Width::Bits32,
            "the lowest physical CPU id in the bitmap",
        ),
    ],
    returns: &[
        Return::new(SUCCESS, "KVM_HCALL_SUCCESS; ids of no vCPU are passed over"),
        NOT_IMPLEMENTED,
    ],
    gate: word("KVM_FEATURE_IPI"),
    source: "arch/loongarch/kvm/exit.c, kvm_send_pv_ipi",
    ..ROW
};

pub(super) const FUNC_NOTIFY: Row = Row {
    nr: 2,
    name: "KVM_HCALL_FUNC_NOTIFY",
    purpose: "Tell KVM where the guest keeps a feature's shared memory: the steal time of this \
              vCPU.",
    inputs: &[
        input(
            Register::A1,
            "the feature that is notified, as its bit: bit 2 KVM_FEATURE_STEAL_TIME, and no \
             other",
        ),
        input(
            Register::A2,
            "bits 63:6 guest physical address of a struct kvm_steal_time, bit 0 \
             KVM_STEAL_PHYS_VALID; without that bit steal time ends",
        ),
    ],
    returns: &[
        Return::new(SUCCESS, "KVM_HCALL_SUCCESS"),
        NOT_IMPLEMENTED,
        Return::new(
            INVALID_PARAMETER,
            "KVM_HCALL_INVALID_PARAMETER: a bit of a2 that is reserved",
        ),
    ],
    gate: word("KVM_FEATURE_STEAL_TIME"),
    source: "arch/loongarch/kvm/exit.c, kvm_save_notify",
    ..ROW
};

pub(super) const FUNC_KICK: Row = Row {
    nr: 3,
    name: "KVM_HCALL_FUNC_KICK",
    status: Status::Proposed,
    purpose: "Wake a vCPU from the instruction idle, for PV spinlocks, and yield to it: x86's \
              KVM_HC_KICK_CPU.",
    notes: "In patches only. The feature bit that they propose, 3, has since become \
            KVM_FEATURE_PREEMPT: a guest that took it for this one would call what is not there.",
    inputs: &[Field::new(
        Place::In(Register::A1),
        Width::Bits32,
        "physical CPU id of the vCPU to wake",
    )],
    returns: &[
        Return::new(SUCCESS, "KVM_HCALL_SUCCESS"),
        Return::new(
            INVALID_PARAMETER,
            "KVM_HCALL_INVALID_PARAMETER: no vCPU has that id",
        ),
        Return::new(
            INVALID_CODE,
            "KVM_HCALL_INVALID_CODE: from every kernel that was read",
        ),
    ],
    gate: Gate::Proposed("KVM_FEATURE_PARAVIRT_SPINLOCK, bit 3 of cpucfg 0x40000004"),
    since: Since::Proposed {
        record: "[PATCH 1/2] LoongArch: KVM: Add paravirt qspinlock in kvm side, 23 July 2024",
    },
    server: Server::Nobody,
    source: "the patches: arch/loongarch/kvm/exit.c, kvm_pv_kick_cpu",
    ..ROW
};

pub(super) const SWDBG: Row = Row {
    nr: 0x101,
    name: "KVM_HCALL_SWDBG",
    purpose: "A software breakpoint: exits with KVM_EXIT_DEBUG when the VMM has enabled them by \
              KVM_SET_GUEST_DEBUG.",
    returns: &[
        Return::new(Answer::Nothing, "the VMM acts on it"),
        Return::new(
            INVALID_CODE,
            "KVM_HCALL_INVALID_CODE: breakpoints are not enabled",
        ),
    ],
    server: Server::KernelMayExit,
    source: "arch/loongarch/kvm/exit.c, kvm_handle_hypercall",
    ..ROW
};

pub(super) const USER_SERVICE: Row = Row {
    nr: 0x102,
    name: "KVM_HCALL_USER_SERVICE",
    purpose: "A call that is the VMM's to define. It exits with KVM_EXIT_HYPERCALL, number \
              0x102 and a0 to a5 as the arguments.",
    inputs: &[
        input(Register::A0, "the VMM's to define"),
        input(Register::A1, "the VMM's to define"),
        input(Register::A2, "the VMM's to define"),
        input(Register::A3, "the VMM's to define"),
        input(Register::A4, "the VMM's to define"),
        input(Register::A5, "the VMM's to define"),
    ],
    returns: &[
        Return::new(Answer::Vmm, "what the VMM answers"),
        NOT_IMPLEMENTED,
    ],
    gate: word("KVM_FEATURE_USER_HCALL"),
    since: Since::After {
        release: "6.12",
        file: HEADER,
    },
    server: Server::Userspace,
    source: "arch/loongarch/kvm/exit.c, kvm_handle_hypercall",
    ..ROW
};
