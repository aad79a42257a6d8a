//! PowerPC: number in r11, combined with 42 << 16.

use super::{Gate, Row, Server, Since, Status, field, ret};
use crate::arch::Arch;

pub(super) const FEATURES: Row = Row {
    arch: Arch::PowerPc,
    nr: 3,
    name: "KVM_HC_FEATURES",
    status: Status::Active,
    purpose: "Tell the guest which hypercalls there are. The device tree's /hypervisor node is \
              the other way to find out; x86 uses CPUID.",
    inputs: &[],
    outputs: &[field("r4", "bitmap of features")],
    returns: &[ret("0", "done"), ret("12", "not implemented")],
    gate: Gate::Other("device tree node /hypervisor"),
    since: Since::Unverified,
    server: Server::Kernel,
    source: "Documentation/virt/kvm/ppc-pv.rst",
};

pub(super) const PPC_MAP_MAGIC_PAGE: Row = Row {
    arch: Arch::PowerPc,
    nr: 4,
    name: "KVM_HC_PPC_MAP_MAGIC_PAGE",
    status: Status::Active,
    purpose: "Map the page that guest and hypervisor share, which holds part of the supervisor \
              register state: the guest then reads and writes those registers as memory.",
    inputs: &[],
    outputs: &[],
    returns: &[ret("0", "done"), ret("12", "not implemented")],
    gate: Gate::Other("a bit of the result of KVM_HC_FEATURES"),
    since: Since::Unverified,
    server: Server::Kernel,
    source: "Documentation/virt/kvm/ppc-pv.rst",
};
