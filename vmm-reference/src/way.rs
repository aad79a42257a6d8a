//! The ways of a guest's halts and kicks: who puts a vCPU to sleep, and by what
//! instruction it asks for another one to be woken.

use crate::payload::layout::transport;

/// Who puts a halted vCPU to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Halt {
    /// This process: no local APIC in KVM, HLT exits, pv-lock-host parks.
    Userspace,
    /// KVM: the local APIC is in the kernel and HLT does not leave it.
    Kernel,
}

impl Halt {
    /// As in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Userspace => "userspace",
            Self::Kernel => "kernel",
        }
    }
}

/// A hypercall instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Instruction {
    /// Intel's.
    Vmcall,
    /// AMD's.
    Vmmcall,
}

impl Instruction {
    /// Its mnemonic.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vmcall => "vmcall",
            Self::Vmmcall => "vmmcall",
        }
    }
}

/// Where a guest's hypercalls go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DoorKind {
    /// To this process, by `out` to the doorbell port.
    Port,
    /// To this process, by an instruction that KVM turns into KVM_EXIT_XEN.
    Xen(Instruction),
    /// To KVM, which serves all but KVM_HC_MAP_GPA_RANGE by itself.
    Kvm(Instruction),
    /// To this process, by a call: the hosted backend.
    Hosted,
}

impl DoorKind {
    /// As in reports. A hypercall that KVM serves goes by its instruction's
    /// name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Port => "port",
            Self::Xen(_) => "xen",
            Self::Kvm(instruction) => instruction.name(),
            Self::Hosted => "hosted",
        }
    }

    /// What the embedded guests are told: one of [`transport`].
    pub const fn transport(self) -> u64 {
        match self {
            Self::Port | Self::Hosted => transport::DOORBELL,
            Self::Xen(Instruction::Vmcall) | Self::Kvm(Instruction::Vmcall) => transport::VMCALL,
            Self::Xen(Instruction::Vmmcall) | Self::Kvm(Instruction::Vmmcall) => transport::VMMCALL,
        }
    }
}

/// How a guest halts and kicks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Way {
    /// Who puts its vCPUs to sleep.
    pub halt: Halt,
    /// Where its hypercalls go.
    pub door: DoorKind,
}
