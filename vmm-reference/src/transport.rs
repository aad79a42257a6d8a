//! The hypercall transport: how a guest's hypercalls reach whoever serves them.

use serde::{Deserialize, Serialize};

use crate::halt_mode::HaltMode;

/// How a guest's hypercalls reach whoever serves them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum, Serialize, Deserialize)]
pub enum Transport {
    /// The guest writes to the doorbell port of hypercall-abi; this process
    /// serves the call. Works on every KVM.
    Port,
    /// The guest executes a hypercall instruction, and KVM's Xen intercept turns
    /// it into KVM_EXIT_XEN; this process serves the call.
    Xen,
    /// The guest executes a hypercall instruction, and KVM serves the call: all
    /// but KVM_HC_MAP_GPA_RANGE.
    #[value(skip)]
    Kvm,
    /// The guest is a program of this process, which calls: the hosted backend.
    #[value(skip)]
    Hosted,
}

impl Transport {
    /// Its name in reports. Calls that KVM serves go by the name of the guest's
    /// instruction.
    pub const fn name(self, instruction: Instruction) -> &'static str {
        match self {
            Self::Port => "port",
            Self::Xen => "xen",
            Self::Kvm => instruction.name(),
            Self::Hosted => "hosted",
        }
    }
}

/// A hypercall instruction, for the transports that use one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Instruction {
    /// VMCALL, Intel's instruction.
    Vmcall,
    /// VMMCALL, AMD's instruction.
    Vmmcall,
}

impl Instruction {
    /// `vmcall` or `vmmcall`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vmcall => "vmcall",
            Self::Vmmcall => "vmmcall",
        }
    }
}

/// How the vCPUs of a VM halt and how they are kicked.
///
/// | halts in | transport | who it is for |
/// |---|---|---|
/// | this process | port, Xen, hosted | VMMs without an in-kernel local APIC |
/// | KVM | KVM | most VMMs today |
/// | KVM | port, Xen | kicks come through this process, which passes them on to KVM |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HaltKick {
    /// Who puts a halted vCPU to sleep.
    pub halt: HaltMode,
    /// How the guest's hypercalls, the kicks among them, are made.
    pub transport: Transport,
}

impl HaltKick {
    /// Whether kicks come through this process.
    pub const fn kicks_come_here(self) -> bool {
        !matches!(self.transport, Transport::Kvm)
    }
}
