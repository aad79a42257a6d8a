//! x86: `eax` and `edx` of CPUID leaf `base | 0x4000_0001`.
//!
//! Sources: `arch/x86/include/uapi/asm/kvm_para.h` for numbers,
//! `Documentation/virt/kvm/x86/cpuid.rst` and `msr.rst` for meaning,
//! `arch/x86/kvm/cpuid.c` for what KVM reports, `arch/x86/kernel/kvm.c` for
//! what a Linux guest asks for besides the bit, and QEMU's
//! `docs/system/i386/kvm-pv.rst` for its names and, where no other source
//! contradicts it, for the release.

use super::{FeatureRow, GuestConditions, HintRow, Provider, ROW};
use crate::bits::{KvmFeatures, KvmHints};
use crate::msr;
use crate::since::Since;

/// The number of a flag, so that it is written once, in `bits.rs`.
#[expect(clippy::cast_possible_truncation, reason = "a bit number is below 32")]
const fn bit(flag: KvmFeatures) -> u8 {
    flag.bits().trailing_zeros() as u8
}

/// What QEMU's document says.
const fn by_qemu(release: &'static str) -> Since {
    Since::Linux {
        release,
        record: "QEMU's docs/system/i386/kvm-pv.rst",
    }
}

/// Every feature of x86's `eax`, in order of bit.
///
/// See [`FeatureRow`](crate::FeatureRow) for an example.
pub const FEATURES: &[FeatureRow] = &[
    FeatureRow {
        bit: bit(KvmFeatures::CLOCKSOURCE),
        name: "clocksource",
        kernel_name: "KVM_FEATURE_CLOCKSOURCE",
        qemu: Some("kvmclock"),
        msrs: &[msr::WALL_CLOCK, msr::SYSTEM_TIME],
        purpose: "kvmclock, the host's time without an exit, at its deprecated MSRs",
        since: by_qemu("2.6.26"),
        ..ROW
    },
    FeatureRow {
        bit: bit(KvmFeatures::NOP_IO_DELAY),
        name: "nop-io-delay",
        kernel_name: "KVM_FEATURE_NOP_IO_DELAY",
        qemu: Some("kvm-nopiodelay"),
        purpose: "port I/O needs no delays between accesses",
        since: by_qemu("2.6.26"),
        ..ROW
    },
    FeatureRow {
        bit: bit(KvmFeatures::MMU_OP),
        name: "mmu-op",
        kernel_name: "KVM_FEATURE_MMU_OP",
        qemu: Some("kvm-mmu"),
        hypercalls: &["KVM_HC_MMU_OP"],
        provider: Provider::Removed,
        purpose: "page table operations by hypercall; deprecated",
        ..ROW
    },
    FeatureRow {
        bit: bit(KvmFeatures::CLOCKSOURCE2),
        name: "clocksource2",
        kernel_name: "KVM_FEATURE_CLOCKSOURCE2",
        qemu: Some("kvmclock"),
        msrs: &[msr::WALL_CLOCK_NEW, msr::SYSTEM_TIME_NEW],
        purpose: "kvmclock, the host's time without an exit",
        ..ROW
    },
    FeatureRow {
        bit: bit(KvmFeatures::ASYNC_PF),
        name: "async-pf",
        kernel_name: "KVM_FEATURE_ASYNC_PF",
        qemu: Some("kvm-asyncpf"),
        msrs: &[msr::ASYNC_PF_EN],
        needs: KvmFeatures::ASYNC_PF_INT,
        without_lapic: Some("KVM refuses the guest's write to MSR 0x4b564d02 with #GP"),
        purpose: "the guest runs another task while the host brings a page in",
        since: by_qemu("2.6.38"),
        ..ROW
    },
    FeatureRow {
        bit: bit(KvmFeatures::STEAL_TIME),
        name: "steal-time",
        kernel_name: "KVM_FEATURE_STEAL_TIME",
        qemu: Some("kvm-steal-time"),
        msrs: &[msr::STEAL_TIME],
        purpose: "the guest learns how long a vCPU waited for a host CPU, and whether it is preempted now",
        since: by_qemu("3.1"),
        ..ROW
    },
    FeatureRow {
        bit: bit(KvmFeatures::PV_EOI),
        name: "pv-eoi",
        kernel_name: "KVM_FEATURE_PV_EOI",
        qemu: Some("kvm-pv-eoi"),
        msrs: &[msr::PV_EOI_EN],
        without_lapic: Some("there is no interrupt of KVM's to acknowledge, and it saves no exit"),
        purpose: "end of interrupt by a write to memory, without an exit",
        ..ROW
    },
    FeatureRow {
        bit: bit(KvmFeatures::PV_UNHALT),
        name: "pv-unhalt",
        kernel_name: "KVM_FEATURE_PV_UNHALT",
        qemu: Some("kvm-pv-unhalt"),
        hypercalls: &["KVM_HC_KICK_CPU"],
        conflicts: KvmHints::REALTIME,
        guest: GuestConditions {
            several_vcpus: true,
            no_mwait: false,
        },
        purpose: "a vCPU that waits for a lock halts and is kicked awake: paravirtual spinlocks",
        since: by_qemu("3.12"),
        ..ROW
    },
    FeatureRow {
        bit: bit(KvmFeatures::PV_TLB_FLUSH),
        name: "pv-tlb-flush",
        kernel_name: "KVM_FEATURE_PV_TLB_FLUSH",
        qemu: Some("kvm-pv-tlb-flush"),
        needs: KvmFeatures::STEAL_TIME,
        conflicts: KvmHints::REALTIME,
        guest: GuestConditions {
            several_vcpus: true,
            no_mwait: true,
        },
        purpose: "a TLB flush of a preempted vCPU waits for its next entry instead of an IPI",
        since: by_qemu("4.16"),
        ..ROW
    },
    FeatureRow {
        bit: bit(KvmFeatures::ASYNC_PF_VMEXIT),
        name: "async-pf-vmexit",
        kernel_name: "KVM_FEATURE_ASYNC_PF_VMEXIT",
        qemu: Some("kvm-asyncpf-vmexit"),
        msrs: &[msr::ASYNC_PF_EN],
        needs: KvmFeatures::ASYNC_PF,
        without_lapic: Some("KVM refuses the guest's write to MSR 0x4b564d02 with #GP"),
        purpose: "a nested hypervisor gets asynchronous page faults as exits (bit 2 of the MSR)",
        ..ROW
    },
    FeatureRow {
        bit: bit(KvmFeatures::PV_SEND_IPI),
        name: "pv-send-ipi",
        kernel_name: "KVM_FEATURE_PV_SEND_IPI",
        qemu: Some("kvm-pv-ipi"),
        hypercalls: &["KVM_HC_SEND_IPI"],
        guest: GuestConditions {
            several_vcpus: true,
            no_mwait: false,
        },
        without_lapic: Some("KVM has no APIC map, answers -EOPNOTSUPP and the IPI is lost"),
        purpose: "one exit for an IPI to many vCPUs",
        since: by_qemu("4.19"),
        ..ROW
    },
    FeatureRow {
        bit: bit(KvmFeatures::POLL_CONTROL),
        name: "poll-control",
        kernel_name: "KVM_FEATURE_POLL_CONTROL",
        qemu: Some("kvm-poll-control"),
        msrs: &[msr::POLL_CONTROL],
        without_lapic: Some("halts leave KVM, so its polling is never reached"),
        purpose: "the guest turns the host's polling on HLT off when it polls itself",
        ..ROW
    },
    FeatureRow {
        bit: bit(KvmFeatures::PV_SCHED_YIELD),
        name: "pv-sched-yield",
        kernel_name: "KVM_FEATURE_PV_SCHED_YIELD",
        qemu: Some("kvm-pv-sched-yield"),
        hypercalls: &["KVM_HC_SCHED_YIELD"],
        needs: KvmFeatures::STEAL_TIME,
        conflicts: KvmHints::REALTIME,
        guest: GuestConditions {
            several_vcpus: true,
            no_mwait: true,
        },
        without_lapic: Some("KVM has no APIC map to find the vCPU in and does nothing"),
        purpose: "the sender of an IPI yields to a target that is preempted",
        ..ROW
    },
    FeatureRow {
        bit: bit(KvmFeatures::ASYNC_PF_INT),
        name: "async-pf-int",
        kernel_name: "KVM_FEATURE_ASYNC_PF_INT",
        qemu: Some("kvm-asyncpf-int"),
        msrs: &[msr::ASYNC_PF_INT, msr::ASYNC_PF_ACK],
        needs: KvmFeatures::ASYNC_PF,
        without_lapic: Some("KVM refuses the guest's write to MSR 0x4b564d06 with #GP"),
        purpose: "page-ready events of asynchronous page faults come as an interrupt, with the \
                  vector in the first MSR, acknowledged by the second",
        ..ROW
    },
    FeatureRow {
        bit: bit(KvmFeatures::MSI_EXT_DEST_ID),
        name: "msi-ext-dest-id",
        kernel_name: "KVM_FEATURE_MSI_EXT_DEST_ID",
        qemu: Some("kvm-msi-ext-dest-id"),
        provider: Provider::Userspace(
            "it translates bits 11:5 of an MSI address into bits 14:8 of the APIC ID",
        ),
        purpose: "MSIs reach APIC IDs up to 32767 without interrupt remapping",
        ..ROW
    },
    FeatureRow {
        bit: bit(KvmFeatures::HC_MAP_GPA_RANGE),
        name: "hc-map-gpa-range",
        kernel_name: "KVM_FEATURE_HC_MAP_GPA_RANGE",
        hypercalls: &["KVM_HC_MAP_GPA_RANGE"],
        provider: Provider::Userspace(
            "it enables KVM_CAP_EXIT_HYPERCALL and answers KVM_HC_MAP_GPA_RANGE itself",
        ),
        purpose: "the guest announces pages it shares with the host or makes private",
        ..ROW
    },
    FeatureRow {
        bit: bit(KvmFeatures::MIGRATION_CONTROL),
        name: "migration-control",
        kernel_name: "KVM_FEATURE_MIGRATION_CONTROL",
        msrs: &[msr::MIGRATION_CONTROL],
        provider: Provider::Userspace("it sets an MSR filter and serves MSR 0x4b564d08 itself"),
        purpose: "the guest says when it is ready to be migrated",
        ..ROW
    },
    FeatureRow {
        bit: bit(KvmFeatures::CLOCKSOURCE_STABLE_BIT),
        name: "clocksource-stable-bit",
        kernel_name: "KVM_FEATURE_CLOCKSOURCE_STABLE_BIT",
        qemu: Some("kvmclock-stable-bit"),
        purpose: "kvmclock goes backwards on no vCPU: no guest-side correction is needed",
        since: by_qemu("2.6.35"),
        ..ROW
    },
];

/// Every hint of x86's `edx`, in order of bit.
///
/// See [`HintRow`](crate::HintRow) for an example.
pub const HINTS: &[HintRow] = &[HintRow {
    bit: 0,
    name: "realtime",
    kernel_name: "KVM_HINTS_REALTIME",
    qemu: Some("kvm-hint-dedicated"),
    purpose: "vCPUs are never preempted for an unlimited time: the guest prefers native locks",
}];
