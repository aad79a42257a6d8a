//! x86, `include/uapi/linux/kvm_para.h`: number in rax, arguments in rbx, rcx,
//! rdx and rsi, result in rax.

use cpuid_features::KvmFeatures;

use super::{Field, Gate, Return, Row, Server, Since, Status, field, ret};
use crate::arch::Arch;

const NOT_CPL_0: Return = ret(
    "-KVM_EPERM",
    "not called from CPL 0; decided before the number",
);
const NOT_SHOWN: Return = ret(
    "-KVM_ENOSYS",
    "the feature is enforced and the guest's CPUID lacks it",
);

pub(super) const VAPIC_POLL_IRQ: Row = Row {
    arch: Arch::X86,
    nr: 1,
    name: "KVM_HC_VAPIC_POLL_IRQ",
    status: Status::Active,
    purpose: "Leave the guest, so that the host checks for pending interrupts before it \
              enters the guest again. The exit is the whole effect.",
    inputs: Field::NONE,
    outputs: Field::NONE,
    returns: &[ret("0", "always"), NOT_CPL_0],
    gate: Gate::None,
    since: Since::Unverified,
    server: Server::Kernel,
    source: "arch/x86/kvm/x86.c, kvm_emulate_hypercall",
};

pub(super) const MMU_OP: Row = Row {
    arch: Arch::X86,
    nr: 2,
    name: "KVM_HC_MMU_OP",
    status: Status::Deprecated,
    purpose: "Operations on the guest's page tables in a batch: write an entry, flush the TLB, \
              release a page table. Removed from KVM; the operations survive as constants of \
              the header.",
    inputs: Field::UNVERIFIED,
    outputs: Field::NONE,
    returns: &[ret("-KVM_ENOSYS", "always, on current kernels"), NOT_CPL_0],
    gate: Gate::Advertised(KvmFeatures::MMU_OP, "nothing, as its code is gone"),
    since: Since::Unverified,
    server: Server::Nobody,
    source: "arch/x86/include/uapi/asm/kvm_para.h, KVM_MMU_OP_*",
};

pub(super) const KICK_CPU: Row = Row {
    arch: Arch::X86,
    nr: 5,
    name: "KVM_HC_KICK_CPU",
    status: Status::Active,
    purpose: "Wake a vCPU from HLT. A vCPU that has waited in its kernel for a lock longer than \
              a threshold executes HLT, interrupts disabled or not, and the host puts it to \
              sleep. The vCPU that releases the lock wakes it by this call. A kick of a vCPU \
              that is not halted is kept, once: its next HLT returns at once. The caller then \
              yields to the kicked vCPU, if the host has more to run than CPUs.",
    inputs: &[
        field("rbx", "flags, reserved and ignored; Linux passes 0"),
        field(
            "rcx",
            "APIC ID of the vCPU to wake: the low 32 bits count for the kick, the whole \
             register for the yield after it; 0xff is a broadcast unless \
             KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK is set",
        ),
    ],
    outputs: Field::NONE,
    returns: &[
        ret("0", "always, even if no vCPU has that APIC ID"),
        NOT_SHOWN,
        NOT_CPL_0,
    ],
    gate: Gate::Enforced(KvmFeatures::PV_UNHALT),
    since: Since::Linux("3.12"),
    server: Server::Kernel,
    source: "arch/x86/kvm/x86.c, kvm_pv_kick_cpu_op and kvm_sched_yield",
};

pub(super) const CLOCK_PAIRING: Row = Row {
    arch: Arch::X86,
    nr: 9,
    name: "KVM_HC_CLOCK_PAIRING",
    status: Status::Active,
    purpose: "Read a clock of the host and the guest's TSC at the same instant, so that the \
              guest can set its clock by the host's. 64-bit hosts only.",
    inputs: &[
        field(
            "rbx",
            "guest physical address of a 64-byte struct kvm_clock_pairing to fill",
        ),
        field(
            "rcx",
            "clock: KVM_CLOCK_PAIRING_WALLCLOCK (0), the host's CLOCK_REALTIME",
        ),
    ],
    outputs: &[field(
        "memory at rbx",
        "s64 sec (seconds), s64 nsec (nanoseconds), u64 tsc (guest TSC cycles), u32 flags (0), \
         36 bytes of padding (0)",
    )],
    returns: &[
        ret("0", "the structure is written"),
        ret(
            "-KVM_EOPNOTSUPP",
            "another clock type, or the host's clock source is not the TSC, or the guest's TSC \
             is in catch-up mode",
        ),
        ret("-KVM_EFAULT", "the address cannot be written"),
        NOT_CPL_0,
    ],
    gate: Gate::None,
    since: Since::Unverified,
    server: Server::Kernel,
    source: "arch/x86/kvm/x86.c, kvm_pv_clock_pairing",
};

pub(super) const SEND_IPI: Row = Row {
    arch: Arch::X86,
    nr: 10,
    name: "KVM_HC_SEND_IPI",
    status: Status::Active,
    purpose: "Send one interrupt to many vCPUs with one exit: 128 APIC IDs in 64-bit mode, 64 \
              in 32-bit mode.",
    inputs: &[
        field(
            "rbx",
            "bitmap of destinations, low word: 64 ids, or 32 in 32-bit mode",
        ),
        field(
            "rcx",
            "bitmap of destinations, high word: the ids after those",
        ),
        field("rdx", "APIC ID of bit 0 of the low word, 32 bits"),
        field(
            "rsi",
            "low word of the ICR: vector, delivery mode, level and trigger; physical \
             destination and no shorthand",
        ),
    ],
    outputs: Field::NONE,
    returns: &[
        ret(
            "n >= 0",
            "how many vCPUs accepted the interrupt; ids of no vCPU are passed over",
        ),
        ret(
            "-KVM_EINVAL",
            "the ICR has a logical destination or a shorthand",
        ),
        ret("-KVM_EOPNOTSUPP", "the VM has no APIC map"),
        NOT_SHOWN,
        NOT_CPL_0,
    ],
    gate: Gate::Enforced(KvmFeatures::PV_SEND_IPI),
    since: Since::Linux("4.19"),
    server: Server::Kernel,
    source: "arch/x86/kvm/lapic.c, kvm_pv_send_ipi",
};

pub(super) const SCHED_YIELD: Row = Row {
    arch: Arch::X86,
    nr: 11,
    name: "KVM_HC_SCHED_YIELD",
    status: Status::Active,
    purpose: "Yield to the vCPU that an interrupt was just sent to, if the host has preempted \
              it: the sender would only wait for it.",
    inputs: &[field(
        "rbx",
        "APIC ID of the vCPU to yield to, the whole register",
    )],
    outputs: Field::NONE,
    returns: &[
        ret("0", "always, whether the yield happened or not"),
        NOT_SHOWN,
        NOT_CPL_0,
    ],
    gate: Gate::Enforced(KvmFeatures::PV_SCHED_YIELD),
    since: Since::Unverified,
    server: Server::Kernel,
    source: "arch/x86/kvm/x86.c, kvm_sched_yield",
};

pub(super) const MAP_GPA_RANGE: Row = Row {
    arch: Arch::X86,
    nr: 12,
    name: "KVM_HC_MAP_GPA_RANGE",
    status: Status::Active,
    purpose: "Ask the VMM to map a range of guest memory with other attributes: a confidential \
              guest shares pages with the host, or takes them back.",
    inputs: &[
        field(
            "rbx",
            "guest physical address of the first page, a multiple of 4096",
        ),
        field(
            "rcx",
            "number of 4 KiB pages, not 0, the range not wrapping",
        ),
        field(
            "rdx",
            "attributes: bits 3:0 preferred page size (0 = 4 KiB, 1 = 2 MiB, 2 = 1 GiB), bit 4 \
             encrypted, bits 63:5 reserved, to be 0 (KVM passes them on unchecked)",
        ),
    ],
    outputs: Field::NONE,
    returns: &[
        ret(
            "0",
            "done; like every other value but those below, the VMM's answer",
        ),
        ret("-KVM_EINVAL", "misaligned, empty or wrapping"),
        ret(
            "-KVM_ENOSYS",
            "the VMM has not enabled KVM_CAP_EXIT_HYPERCALL for it",
        ),
        NOT_CPL_0,
    ],
    gate: Gate::Advertised(
        KvmFeatures::HC_MAP_GPA_RANGE,
        "KVM_CAP_EXIT_HYPERCALL, bit 12",
    ),
    since: Since::Unverified,
    server: Server::KernelMayExit,
    source: "arch/x86/kvm/x86.c, kvm_emulate_hypercall; Documentation/virt/kvm/api.rst, \
             KVM_EXIT_HYPERCALL",
};
