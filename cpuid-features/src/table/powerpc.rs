//! PowerPC: the word in r4 that `KVM_HC_FEATURES` answers.

use super::{Arch, FeatureRow, ROW};
use crate::since::Since;

/// Every feature of PowerPC's word (`arch/powerpc/include/uapi/asm/kvm_para.h`).
///
/// See [`Arch`](crate::Arch) for an example.
pub const POWERPC_FEATURES: &[FeatureRow] = &[FeatureRow {
    arch: Arch::PowerPc,
    bit: 1,
    name: "magic-page",
    kernel_name: "KVM_FEATURE_MAGIC_PAGE",
    hypercalls: &["KVM_HC_PPC_MAP_MAGIC_PAGE"],
    purpose: "a page that guest and hypervisor share holds supervisor registers, which the \
              guest reads and writes without an exit",
    since: Since::AtLatest {
        release: "6.1",
        file: "arch/powerpc/include/uapi/asm/kvm_para.h",
    },
    ..ROW
}];
