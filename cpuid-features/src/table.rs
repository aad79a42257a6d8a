//! One row a bit: the table from which names, rules and documents derive.
//!
//! Sources: `arch/x86/include/uapi/asm/kvm_para.h` for numbers,
//! `Documentation/virt/kvm/x86/cpuid.rst` and `msr.rst` for meaning,
//! `arch/x86/kvm/cpuid.c` for what KVM reports, `arch/x86/kernel/kvm.c` for
//! what a Linux guest asks for besides the bit, and QEMU's
//! `docs/system/i386/kvm-pv.rst` for its names and for `since`.

use core::fmt;

use crate::bits::{KvmFeatures, KvmHints};
use crate::msr::{self, Msr};

/// The architecture a feature word belongs to; the same bit number means
/// different things on different ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Arch {
    /// CPUID leaf `base | 0x4000_0001`, `eax`.
    X86,
    /// CPUCFG word [`LOONGARCH_CPUCFG_FEATURE`].
    LoongArch,
}

/// LoongArch's CPUCFG index with the bytes `"KVM\0"`
/// (`CPUCFG_KVM_SIG`).
pub const LOONGARCH_CPUCFG_SIGNATURE: u32 = 0x4000_0000;
/// LoongArch's CPUCFG index of the feature word (`CPUCFG_KVM_FEATURE`).
pub const LOONGARCH_CPUCFG_FEATURE: u32 = LOONGARCH_CPUCFG_SIGNATURE + 4;

/// Who makes a feature work, and so who may put its bit into the leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// KVM reports it in `KVM_GET_SUPPORTED_CPUID` and serves it.
    Kvm,
    /// KVM never reports it: a VMM may advertise it once it has done what the
    /// sentence says.
    Userspace(&'static str),
    /// Nobody: the code behind the bit has been removed from KVM.
    Removed,
}

/// A hypercall that a guest may issue once it sees the bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatedCall {
    /// The hypercall number of the row's architecture.
    pub nr: u32,
    /// The kernel's macro.
    pub kernel_name: &'static str,
}

/// What a Linux guest wants to see besides the bit and its `needs`, before it
/// uses the feature (`arch/x86/kernel/kvm.c`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuestConditions {
    /// More than one possible CPU.
    pub several_vcpus: bool,
    /// No MWAIT in the guest's CPUID.
    pub no_mwait: bool,
}

/// All that is known of one bit of a feature word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureRow {
    /// The word the bit is in.
    pub arch: Arch,
    /// Bit number in that word, 0 to 31.
    pub bit: u8,
    /// The name that users type, as in `+pv-unhalt`: the kernel's without
    /// `KVM_FEATURE_`, in lower case and with dashes.
    pub name: &'static str,
    /// The kernel's macro.
    pub kernel_name: &'static str,
    /// QEMU's property, where it has one.
    pub qemu: Option<&'static str>,
    /// MSRs by which the guest uses it.
    pub msrs: &'static [Msr],
    /// Hypercalls it gates when a vCPU enforces its CPUID
    /// (`KVM_CAP_ENFORCE_PV_FEATURE_CPUID`).
    pub gates: &'static [GatedCall],
    /// Features without which a guest makes no use of it.
    pub needs: KvmFeatures,
    /// Hints under which a guest makes no use of it.
    pub conflicts: KvmHints,
    /// Who makes it work.
    pub provider: Provider,
    /// What else a guest wants.
    pub guest: GuestConditions,
    /// What goes wrong if KVM has no local APIC of its own; `None` where the
    /// feature does not care.
    pub without_lapic: Option<&'static str>,
    /// What it is for.
    pub purpose: &'static str,
    /// First Linux release that has it, where a source says so undisputed.
    pub since: Option<&'static str>,
}

/// All that is known of one hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HintRow {
    /// Bit number in `edx`, 0 to 31.
    pub bit: u8,
    /// The name that users type, as in `+realtime`.
    pub name: &'static str,
    /// The kernel's macro.
    pub kernel_name: &'static str,
    /// QEMU's property, where it has one.
    pub qemu: Option<&'static str>,
    /// What it is for.
    pub purpose: &'static str,
}

impl FeatureRow {
    /// The bit as a set of x86 features; empty for another architecture's row.
    #[must_use]
    pub const fn features(&self) -> KvmFeatures {
        match self.arch {
            Arch::X86 => KvmFeatures::from_bits_retain(1 << self.bit),
            Arch::LoongArch => KvmFeatures::empty(),
        }
    }
}

impl HintRow {
    /// The hint as a set.
    #[must_use]
    pub const fn hints(&self) -> KvmHints {
        KvmHints::from_bits_retain(1 << self.bit)
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86 => "x86",
            Self::LoongArch => "loongarch",
        })
    }
}

/// The rows of `arch`.
#[must_use]
pub const fn features_of(arch: Arch) -> &'static [FeatureRow] {
    match arch {
        Arch::X86 => FEATURES,
        Arch::LoongArch => LOONGARCH_FEATURES,
    }
}

/// The number of a flag, so that it is written once, in `bits.rs`.
#[expect(clippy::cast_possible_truncation, reason = "a bit number is below 32")]
const fn bit(flag: KvmFeatures) -> u8 {
    flag.bits().trailing_zeros() as u8
}

const fn call(nr: u32, kernel_name: &'static str) -> GatedCall {
    GatedCall { nr, kernel_name }
}

/// What a row says unless it says otherwise.
const ROW: FeatureRow = FeatureRow {
    arch: Arch::X86,
    bit: 0,
    name: "",
    kernel_name: "",
    qemu: None,
    msrs: &[],
    gates: &[],
    needs: KvmFeatures::empty(),
    conflicts: KvmHints::empty(),
    provider: Provider::Kvm,
    guest: GuestConditions {
        several_vcpus: false,
        no_mwait: false,
    },
    without_lapic: None,
    purpose: "",
    since: None,
};

/// Every feature of x86's `eax`, in order of bit.
pub const FEATURES: &[FeatureRow] = &[
    FeatureRow {
        bit: bit(KvmFeatures::CLOCKSOURCE),
        name: "clocksource",
        kernel_name: "KVM_FEATURE_CLOCKSOURCE",
        qemu: Some("kvmclock"),
        msrs: &[msr::WALL_CLOCK, msr::SYSTEM_TIME],
        purpose: "kvmclock, the host's time without an exit, at its deprecated MSRs",
        since: Some("2.6.26"),
        ..ROW
    },
    FeatureRow {
        bit: bit(KvmFeatures::NOP_IO_DELAY),
        name: "nop-io-delay",
        kernel_name: "KVM_FEATURE_NOP_IO_DELAY",
        qemu: Some("kvm-nopiodelay"),
        purpose: "port I/O needs no delays between accesses",
        since: Some("2.6.26"),
        ..ROW
    },
    FeatureRow {
        bit: bit(KvmFeatures::MMU_OP),
        name: "mmu-op",
        kernel_name: "KVM_FEATURE_MMU_OP",
        qemu: Some("kvm-mmu"),
        gates: &[call(2, "KVM_HC_MMU_OP")],
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
        since: Some("2.6.38"),
        ..ROW
    },
    FeatureRow {
        bit: bit(KvmFeatures::STEAL_TIME),
        name: "steal-time",
        kernel_name: "KVM_FEATURE_STEAL_TIME",
        qemu: Some("kvm-steal-time"),
        msrs: &[msr::STEAL_TIME],
        purpose: "the guest learns how long a vCPU waited for a host CPU, and whether it is preempted now",
        since: Some("3.1"),
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
        gates: &[call(5, "KVM_HC_KICK_CPU")],
        conflicts: KvmHints::REALTIME,
        guest: GuestConditions {
            several_vcpus: true,
            no_mwait: false,
        },
        purpose: "a vCPU that waits for a lock halts and is kicked awake: paravirtual spinlocks",
        since: Some("3.12"),
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
        since: Some("4.16"),
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
        gates: &[call(10, "KVM_HC_SEND_IPI")],
        guest: GuestConditions {
            several_vcpus: true,
            no_mwait: false,
        },
        without_lapic: Some("KVM has no APIC map, answers -EOPNOTSUPP and the IPI is lost"),
        purpose: "one exit for an IPI to many vCPUs",
        since: Some("4.19"),
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
        gates: &[call(11, "KVM_HC_SCHED_YIELD")],
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
        purpose: "page-ready events of asynchronous page faults come as an interrupt",
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
        gates: &[call(12, "KVM_HC_MAP_GPA_RANGE")],
        provider: Provider::Userspace(
            "it enables KVM_CAP_EXIT_HYPERCALL and answers hypercall 12 itself",
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
        bit: bit(KvmFeatures::CLOCKSOURCE_STABLE),
        name: "clocksource-stable-bit",
        kernel_name: "KVM_FEATURE_CLOCKSOURCE_STABLE_BIT",
        qemu: Some("kvmclock-stable-bit"),
        purpose: "kvmclock goes backwards on no vCPU: no guest-side correction is needed",
        since: Some("2.6.35"),
        ..ROW
    },
];

/// Every hint of x86's `edx`, in order of bit.
pub const HINTS: &[HintRow] = &[HintRow {
    bit: 0,
    name: "realtime",
    kernel_name: "KVM_HINTS_REALTIME",
    qemu: Some("kvm-hint-dedicated"),
    purpose: "vCPUs are never preempted for an unlimited time: the guest prefers native locks",
}];

/// Every feature of LoongArch's CPUCFG word, in order of bit
/// (`arch/loongarch/include/uapi/asm/kvm_para.h`). Bits 24 to 31 belong to
/// the VMM.
pub const LOONGARCH_FEATURES: &[FeatureRow] = &[
    FeatureRow {
        arch: Arch::LoongArch,
        bit: 1,
        name: "ipi",
        kernel_name: "KVM_FEATURE_IPI",
        gates: &[call(1, "KVM_HCALL_FUNC_IPI")],
        purpose: "IPIs to up to 128 vCPUs by hypercall",
        ..ROW
    },
    FeatureRow {
        arch: Arch::LoongArch,
        bit: 2,
        name: "steal-time",
        kernel_name: "KVM_FEATURE_STEAL_TIME",
        gates: &[call(2, "KVM_HCALL_FUNC_NOTIFY")],
        purpose: "the guest learns how long a vCPU waited for a host CPU",
        ..ROW
    },
    FeatureRow {
        arch: Arch::LoongArch,
        bit: 24,
        name: "virt-extioi",
        kernel_name: "KVM_FEATURE_VIRT_EXTIOI",
        provider: Provider::Userspace("it emulates the extended I/O interrupt controller"),
        purpose: "the extended I/O interrupt controller is a virtual one",
        ..ROW
    },
    FeatureRow {
        arch: Arch::LoongArch,
        bit: 25,
        name: "user-hcall",
        kernel_name: "KVM_FEATURE_USER_HCALL",
        provider: Provider::Userspace("it answers the user service hypercall (HVCL 0x102)"),
        purpose: "hypercalls of the VMM's own, which leave KVM",
        ..ROW
    },
];
