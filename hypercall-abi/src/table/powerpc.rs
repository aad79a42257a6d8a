//! PowerPC, `include/uapi/linux/kvm_para.h` and
//! `Documentation/virt/kvm/ppc-pv.rst`: number in r11 combined with the vendor
//! code, inputs from r3 on, result in r3, outputs from r4 on.

use cpuid_features::{Arch as FeatureArch, feature_named};

use super::{Answer, Field, Gate, Place, Register, Return, Row, Width};
use crate::arch::Arch;

/// `EV_UNIMPLEMENTED`.
const NOT_IMPLEMENTED: Return = Return::new(Answer::Code(12), "EV_UNIMPLEMENTED: not implemented");

/// What a row says unless it says otherwise.
const ROW: Row = Row {
    arch: Arch::PowerPc,
    source: "arch/powerpc/kvm/powerpc.c, kvmppc_kvm_pv; Documentation/virt/kvm/ppc-pv.rst",
    ..Row::BASE
};

pub(super) const FEATURES: Row = Row {
    nr: 3,
    name: "KVM_HC_FEATURES",
    purpose: "Expose hypercall availability to the guest. On x86 platforms, CPUID enumerates \
              which hypercalls are available. On PPC, either a device tree based lookup (which \
              is also what EPAPR dictates) or this KVM specific enumeration mechanism can be \
              used.",
    outputs: &[Field::new(
        Place::In(Register::R4),
        Width::Mode,
        "bitmap of features: bit 1 KVM_FEATURE_MAGIC_PAGE",
    )],
    returns: &[Return::new(Answer::Value(0), "done"), NOT_IMPLEMENTED],
    gate: Gate::DeviceTree("/hypervisor", "linux,kvm"),
    ..ROW
};

pub(super) const PPC_MAP_MAGIC_PAGE: Row = Row {
    nr: 4,
    name: "KVM_HC_PPC_MAP_MAGIC_PAGE",
    purpose: "Map the page that guest and hypervisor share, which contains parts of the \
              supervisor visible register state: the guest accesses its supervisor registers \
              through memory, without an exit.",
    notes: "The page is a struct kvm_vcpu_arch_shared \
            (arch/powerpc/include/uapi/asm/kvm_para.h). The registers are as in the code; \
            ppc-pv.rst names the two the other way round, and Linux passes one address, -4096, \
            in both. A guest checks for a feature of the page before it uses it.",
    inputs: &[
        Field::new(
            Place::In(Register::R3),
            Width::Mode,
            "address of the page in real mode, 4 KiB aligned",
        ),
        Field::new(
            Place::In(Register::R4),
            Width::Mode,
            "effective address of the page with the MMU on, 4 KiB aligned; in its low 12 bits \
             the guest's flags, bit 0 MAGIC_PAGE_FLAG_NOT_MAPPED_NX: the guest handles NX bits \
             correctly with respect to the page",
        ),
    ],
    outputs: &[Field::new(
        Place::In(Register::R4),
        Width::Mode,
        "bitmap of what the page holds: bit 0 KVM_MAGIC_FEAT_SR (the SR registers), bit 1 \
         KVM_MAGIC_FEAT_MAS0_TO_SPRG7 (MASn, ESR, PIR and high SPRGs)",
    )],
    returns: &[Return::new(Answer::Value(0), "mapped"), NOT_IMPLEMENTED],
    gate: match feature_named(FeatureArch::PowerPc, "KVM_FEATURE_MAGIC_PAGE") {
        Some(row) => Gate::Word(row),
        None => Gate::None,
    },
    ..ROW
};
