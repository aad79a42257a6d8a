//! LoongArch: the CPUCFG word [`LOONGARCH_CPUCFG_FEATURE`].

use super::{Arch, FeatureRow, Provider, ROW};
use crate::since::Since;

/// LoongArch's CPUCFG index with the bytes `"KVM\0"`
/// (`CPUCFG_KVM_SIG`).
///
/// See [`Arch`](crate::Arch) for an example.
pub const LOONGARCH_CPUCFG_SIGNATURE: u32 = 0x4000_0000;
/// LoongArch's CPUCFG index of the feature word (`CPUCFG_KVM_FEATURE`).
///
/// See [`Arch`](crate::Arch) for an example.
pub const LOONGARCH_CPUCFG_FEATURE: u32 = LOONGARCH_CPUCFG_SIGNATURE + 4;

const HEADER: &str = "arch/loongarch/include/uapi/asm/kvm_para.h";

/// What a row says unless it says otherwise. 6.12 is the oldest release with
/// KVM on LoongArch that was read; 6.1 has no such KVM.
const BASE: FeatureRow = FeatureRow {
    arch: Arch::LoongArch,
    since: Since::AtLatest {
        release: "6.12",
        file: HEADER,
    },
    ..ROW
};

const NEWER: Since = Since::After {
    release: "6.12",
    file: HEADER,
};

/// Every feature of LoongArch's CPUCFG word, in order of bit
/// (`arch/loongarch/include/uapi/asm/kvm_para.h`). Bits 24 to 31 belong to
/// the VMM.
///
/// See [`Arch`](crate::Arch) for an example.
pub const LOONGARCH_FEATURES: &[FeatureRow] = &[
    FeatureRow {
        bit: 1,
        name: "ipi",
        kernel_name: "KVM_FEATURE_IPI",
        hypercalls: &["KVM_HCALL_FUNC_IPI"],
        purpose: "IPIs to up to 128 vCPUs by hypercall",
        ..BASE
    },
    FeatureRow {
        bit: 2,
        name: "steal-time",
        kernel_name: "KVM_FEATURE_STEAL_TIME",
        hypercalls: &["KVM_HCALL_FUNC_NOTIFY"],
        purpose: "the guest learns how long a vCPU waited for a host CPU",
        ..BASE
    },
    FeatureRow {
        bit: 3,
        name: "preempt",
        kernel_name: "KVM_FEATURE_PREEMPT",
        purpose: "the steal time record also says whether the vCPU is preempted now",
        since: NEWER,
        ..BASE
    },
    FeatureRow {
        bit: 24,
        name: "virt-extioi",
        kernel_name: "KVM_FEATURE_VIRT_EXTIOI",
        provider: Provider::Userspace("it emulates the extended I/O interrupt controller"),
        purpose: "the extended I/O interrupt controller is a virtual one",
        ..BASE
    },
    FeatureRow {
        bit: 25,
        name: "user-hcall",
        kernel_name: "KVM_FEATURE_USER_HCALL",
        hypercalls: &["KVM_HCALL_USER_SERVICE"],
        provider: Provider::Userspace("it answers the user service hypercall (HVCL 0x102)"),
        purpose: "hypercalls of the VMM's own, which leave KVM",
        since: NEWER,
        ..BASE
    },
];
