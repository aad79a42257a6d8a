//! PowerPC, `include/uapi/linux/kvm_para.h` and
//! `Documentation/virt/kvm/ppc-pv.rst`: number in r11 combined with the vendor
//! code, inputs from r3 on, result in r3, outputs from r4 on.

use super::{Field, Gate, Return, Row, Server, Since, Status, field, ret};
use crate::arch::Arch;

const NOT_IMPLEMENTED: Return = ret("12", "not implemented");
const SOURCE: &str = "arch/powerpc/kvm/powerpc.c, kvmppc_kvm_pv; Documentation/virt/kvm/ppc-pv.rst";

pub(super) const FEATURES: Row = Row {
    arch: Arch::PowerPc,
    nr: 3,
    name: "KVM_HC_FEATURES",
    status: Status::Active,
    purpose: "Tell the guest which hypercalls there are. The device tree is the other way to \
              find out; x86 uses CPUID for this.",
    inputs: Field::NONE,
    outputs: &[field(
        "r4",
        "bitmap of features: bit 1 KVM_FEATURE_MAGIC_PAGE",
    )],
    returns: &[ret("0", "done"), NOT_IMPLEMENTED],
    gate: Gate::Other("node /hypervisor in the device tree, compatible with linux,kvm"),
    since: Since::Unverified,
    server: Server::Kernel,
    source: SOURCE,
};

pub(super) const PPC_MAP_MAGIC_PAGE: Row = Row {
    arch: Arch::PowerPc,
    nr: 4,
    name: "KVM_HC_PPC_MAP_MAGIC_PAGE",
    status: Status::Active,
    purpose: "Map the page that guest and hypervisor share, which holds part of the supervisor \
              register state: the guest then reads and writes those registers as memory, \
              without an exit.",
    inputs: &[
        field("r3", "address of the page in real mode, 4 KiB aligned"),
        field(
            "r4",
            "effective address of the page with the MMU on, 4 KiB aligned; in its low 12 bits \
             the guest's flags, bit 0 MAGIC_PAGE_FLAG_NOT_MAPPED_NX. (Register order as in the \
             code; ppc-pv.rst names the two the other way round, and Linux passes one address \
             in both.)",
        ),
    ],
    outputs: &[field(
        "r4",
        "bitmap of what the page holds: bit 0 KVM_MAGIC_FEAT_SR, bit 1 \
         KVM_MAGIC_FEAT_MAS0_TO_SPRG7",
    )],
    returns: &[ret("0", "mapped"), NOT_IMPLEMENTED],
    gate: Gate::Other("KVM_FEATURE_MAGIC_PAGE (bit 1) in the result of KVM_HC_FEATURES"),
    since: Since::Unverified,
    server: Server::Kernel,
    source: SOURCE,
};
