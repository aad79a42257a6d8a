//! x86, `include/uapi/linux/kvm_para.h`: number in rax, arguments in rbx, rcx,
//! rdx and rsi, result in rax.

use cpuid_features::{KvmFeatures, Since};

use super::{Answer, Field, Gate, HostGate, Place, Register, Return, Row, Server, Status, Width};
use crate::errno::KvmErrno;

/// An operand in a register, as wide as the caller's mode.
const fn whole(register: Register, meaning: &'static str) -> Field {
    Field::new(Place::In(register), Width::Mode, meaning)
}

const fn error(errno: KvmErrno, meaning: &'static str) -> Return {
    Return::new(Answer::Error(errno), meaning)
}

const fn zero(meaning: &'static str) -> Return {
    Return::new(Answer::Value(0), meaning)
}

const NOT_CPL_0: Return = error(
    KvmErrno::EPERM,
    "not called from CPL 0; decided before the number",
);
const NOT_SHOWN: Return = error(
    KvmErrno::ENOSYS,
    "the feature is enforced and the guest's CPUID lacks it",
);

/// What a row says unless it says otherwise.
const ROW: Row = Row {
    source: "arch/x86/kvm/x86.c, kvm_emulate_hypercall",
    ..Row::BASE
};

/// What QEMU's document says of the feature that announces the call.
const fn by_qemu(release: &'static str) -> Since {
    Since::Linux {
        release,
        record: "QEMU's docs/system/i386/kvm-pv.rst",
    }
}

pub(super) const VAPIC_POLL_IRQ: Row = Row {
    nr: 1,
    name: "KVM_HC_VAPIC_POLL_IRQ",
    purpose: "Trigger a guest exit, so that the host checks for pending interrupts before it \
              enters the guest again. The exit is the whole effect.",
    returns: &[zero("always"), NOT_CPL_0],
    ..ROW
};

pub(super) const MMU_OP: Row = Row {
    nr: 2,
    name: "KVM_HC_MMU_OP",
    status: Status::Deprecated,
    purpose: "Support MMU operations in a batch: write to a PTE, flush the TLB, release a page \
              table. Removed from KVM; the operations survive as constants of the header.",
    notes: "The inputs are those of old guests (kvm_mmu_op in their arch/x86/kernel/kvm.c), \
            which got the number of bytes that were worked off as the result.",
    inputs: &[
        whole(Register::Rbx, "length of the buffer in bytes"),
        whole(
            Register::Rcx,
            "guest physical address of the buffer of KVM_MMU_OP_* operations",
        ),
        whole(
            Register::Rdx,
            "upper 32 bits of that address on 32-bit guests: 0",
        ),
    ],
    returns: &[
        error(KvmErrno::ENOSYS, "always, on every kernel that was read"),
        NOT_CPL_0,
    ],
    gate: Gate::Advertised(KvmFeatures::MMU_OP, HostGate::Gone),
    server: Server::Nobody,
    source: "arch/x86/include/uapi/asm/kvm_para.h, KVM_MMU_OP_*",
    ..ROW
};

pub(super) const KICK_CPU: Row = Row {
    nr: 5,
    name: "KVM_HC_KICK_CPU",
    purpose: "Wake a vCPU from HLT. A kick of a vCPU that is not halted is kept, once: its next \
              HLT returns at once. The caller then yields to the kicked vCPU, if the host has \
              more to run than CPUs.",
    notes: "A vCPU of a paravirtualized guest that is busy-waiting in guest kernel mode for an \
            event to occur (a spinlock to become available, for example) can execute HLT once it \
            has busy-waited for more than a threshold time interval, with interrupts disabled or \
            not. Execution of HLT causes the hypervisor to put the vCPU to sleep until an \
            appropriate event occurs. Another vCPU of the same guest wakes the sleeping one by \
            this hypercall. Wake-ups may be spurious: the waiter checks its condition again. The \
            check and HLT are not one step, which is why a kick is kept.",
    inputs: &[
        Field::new(
            Place::In(Register::Rbx),
            Width::Ignored,
            "flags, reserved for future use; Linux passes 0",
        ),
        whole(
            Register::Rcx,
            "APIC ID of the vCPU to wake: the low 32 bits count for the kick, the whole \
             register for the yield after it; 0xff is a broadcast unless \
             KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK is set",
        ),
    ],
    returns: &[
        zero("always, even if no vCPU has that APIC ID"),
        NOT_SHOWN,
        NOT_CPL_0,
    ],
    gate: Gate::Enforced(KvmFeatures::PV_UNHALT),
    since: by_qemu("3.12"),
    source: "arch/x86/kvm/x86.c, kvm_pv_kick_cpu_op and kvm_sched_yield",
    ..ROW
};

pub(super) const CLOCK_PAIRING: Row = Row {
    nr: 9,
    name: "KVM_HC_CLOCK_PAIRING",
    purpose: "Synchronize host and guest clocks: read a clock of the host and the guest's TSC \
              at the same instant. 64-bit hosts only.",
    notes: "The hypercall lets a guest compute a precise timestamp across host and guest. The \
            guest can use the returned TSC value to compute the CLOCK_REALTIME for its clock, at \
            the same instant.",
    inputs: &[
        whole(
            Register::Rbx,
            "guest physical address where the host copies a struct kvm_clock_pairing to",
        ),
        whole(
            Register::Rcx,
            "clock type: KVM_CLOCK_PAIRING_WALLCLOCK (0), the host's CLOCK_REALTIME, and no \
             other",
        ),
    ],
    outputs: &[Field::new(
        Place::Memory(Register::Rbx),
        Width::Bytes(64),
        "s64 sec (seconds of the clock), s64 nsec (nanoseconds), u64 tsc (guest TSC value used \
         to calculate the sec/nsec pair), u32 flags (unused, 0), u32 pad[9] (0)",
    )],
    returns: &[
        zero("the structure is written"),
        error(
            KvmErrno::EOPNOTSUPP,
            "another clock type, or the host does not use the TSC as its clock source, or the \
             guest's TSC is in catch-up mode",
        ),
        error(KvmErrno::EFAULT, "the address cannot be written"),
        NOT_CPL_0,
    ],
    source: "arch/x86/kvm/x86.c, kvm_pv_clock_pairing",
    ..ROW
};

pub(super) const SEND_IPI: Row = Row {
    nr: 10,
    name: "KVM_HC_SEND_IPI",
    purpose: "Send an IPI to many vCPUs with one exit.",
    notes: "At most 128 destinations per hypercall in 64-bit mode and 64 in 32-bit mode. Bit 0 \
            of rbx corresponds to the APIC ID in rdx, bit 1 to the APIC ID rdx + 1, and so on; \
            bit 0 of rcx to rdx + 64, or rdx + 32 in 32-bit mode.",
    inputs: &[
        whole(
            Register::Rbx,
            "lower part of the bitmap of destination APIC IDs",
        ),
        whole(
            Register::Rcx,
            "higher part of the bitmap of destination APIC IDs",
        ),
        Field::new(
            Place::In(Register::Rdx),
            Width::Bits32,
            "the lowest APIC ID in the bitmap",
        ),
        Field::new(
            Place::In(Register::Rsi),
            Width::Bits32,
            "low word of the APIC ICR: vector, delivery mode, level and trigger; physical \
             destination and no shorthand",
        ),
    ],
    returns: &[
        Return::new(
            Answer::Number,
            "how many vCPUs the IPI was delivered to; ids of no vCPU are passed over",
        ),
        error(
            KvmErrno::EINVAL,
            "the ICR has a logical destination or a shorthand",
        ),
        error(KvmErrno::EOPNOTSUPP, "the VM has no APIC map"),
        NOT_SHOWN,
        NOT_CPL_0,
    ],
    gate: Gate::Enforced(KvmFeatures::PV_SEND_IPI),
    since: by_qemu("4.19"),
    source: "arch/x86/kvm/lapic.c, kvm_pv_send_ipi",
    ..ROW
};

pub(super) const SCHED_YIELD: Row = Row {
    nr: 11,
    name: "KVM_HC_SCHED_YIELD",
    purpose: "Yield to the vCPU that an IPI was just sent to, if the host has preempted it: the \
              sender would only wait for it.",
    notes: "When sending a call-function IPI to many vCPUs, a guest yields if any of the IPI \
            target vCPUs was preempted.",
    inputs: &[whole(
        Register::Rbx,
        "destination APIC ID, the whole register",
    )],
    returns: &[
        zero("always, whether the yield happened or not"),
        NOT_SHOWN,
        NOT_CPL_0,
    ],
    gate: Gate::Enforced(KvmFeatures::PV_SCHED_YIELD),
    source: "arch/x86/kvm/x86.c, kvm_sched_yield",
    ..ROW
};

pub(super) const MAP_GPA_RANGE: Row = Row {
    nr: 12,
    name: "KVM_HC_MAP_GPA_RANGE",
    purpose: "Request to map a GPA range with the specified attributes: a confidential guest \
              shares pages with the host, or takes them back.",
    notes: "This hypercall is implemented in userspace via KVM_CAP_EXIT_HYPERCALL. Userspace \
            must enable that capability before it advertises KVM_FEATURE_HC_MAP_GPA_RANGE in the \
            guest CPUID. In addition, if the guest supports KVM_FEATURE_MIGRATION_CONTROL, \
            userspace must also set up an MSR filter to process writes to \
            MSR_KVM_MIGRATION_CONTROL.",
    inputs: &[
        whole(
            Register::Rbx,
            "guest physical address of the start page, a multiple of 4096",
        ),
        whole(
            Register::Rcx,
            "number of 4 KiB pages, contiguous in GPA space, not 0, the range not wrapping",
        ),
        whole(
            Register::Rdx,
            "attributes: bits 3:0 preferred page size encoding (0 = 4 KiB, 1 = 2 MiB, 2 = 1 \
             GiB, and so on), bit 4 plaintext = 0, encrypted = 1, bits 63:5 reserved, must be 0 \
             (KVM passes them on unchecked)",
        ),
    ],
    returns: &[
        Return::new(
            Answer::Vmm,
            "what the VMM writes to kvm_run.hypercall.ret; 0 is done",
        ),
        error(KvmErrno::EINVAL, "misaligned, empty or wrapping"),
        error(
            KvmErrno::ENOSYS,
            "the VMM has not enabled KVM_CAP_EXIT_HYPERCALL for it",
        ),
        NOT_CPL_0,
    ],
    gate: Gate::Advertised(KvmFeatures::HC_MAP_GPA_RANGE, HostGate::ExitHypercall),
    server: Server::KernelMayExit,
    source: "arch/x86/kvm/x86.c, kvm_emulate_hypercall; Documentation/virt/kvm/api.rst, \
             KVM_EXIT_HYPERCALL",
    ..ROW
};
