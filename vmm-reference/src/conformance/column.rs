//! The columns: the ways to halt and kick, and which of them are here.

use cpuid_features::KvmFeatures;
use kvm_bindings::CpuId;
use kvm_ioctls::{Cap, Kvm};

use super::ConformanceError;
use crate::backend::xen;
use crate::probe::{self, Doors};
use crate::way::{DoorKind, Halt, Instruction, Way};
use crate::{cpuid, host};

/// This host's KVM, and what has been found out about it.
#[derive(Debug)]
pub struct Host {
    /// The device.
    pub kvm: Kvm,
    /// KVM_GET_SUPPORTED_CPUID.
    pub cpuid: CpuId,
    /// The paravirtual features in it.
    pub features: KvmFeatures,
    /// How a hypercall leaves a guest here.
    pub doors: Doors,
}

impl Host {
    /// Finds it out.
    pub fn find(kvm: Kvm) -> Result<Self, ConformanceError> {
        let (cpuid, features) = cpuid::supported(&kvm)?;
        let doors = probe::doors(&kvm)?;
        Ok(Self {
            kvm,
            cpuid,
            features,
            doors,
        })
    }
}

/// A column of the matrix.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its head.
    pub name: &'static str,
    /// How its guests halt and kick, or why none can here.
    pub way: Result<Way, String>,
}

/// All columns, on this host or on one whose KVM is not to be had for that
/// reason.
pub fn all(host: Result<&Host, String>) -> Vec<Column> {
    let userspace = |door| Way {
        halt: Halt::Userspace,
        door,
    };
    // What KVM offers is taken at its word, whatever the probe made of it: a
    // door that does not work is to fail its cases, not to leave the matrix.
    let port = host.clone().map(|_| userspace(DoorKind::Port));
    let xen = host.clone().and_then(|host| match instruction(host) {
        None => Err(NO_INSTRUCTION.to_string()),
        Some(instruction) if xen::offered(&host.kvm) => Ok(userspace(DoorKind::Xen(instruction))),
        Some(_) => Err("this KVM has no Xen intercept (CONFIG_KVM_XEN)".to_string()),
    });
    let kernel = host.and_then(|host| {
        if !host.kvm.check_extension(Cap::Irqchip) || !host.kvm.check_extension(Cap::SignalMsi) {
            return Err("this KVM has no interrupt controllers".to_string());
        }
        // Where KVM serves no hypercall it can still halt: the kick comes by
        // the port and goes on by KVM_SIGNAL_MSI.
        let door = instruction(host).map_or(DoorKind::Port, DoorKind::Kvm);
        Ok(Way {
            halt: Halt::Kernel,
            door,
        })
    });
    let hosted = Ok(userspace(DoorKind::Hosted));
    [
        ("userspace-port", port),
        ("userspace-xen", xen),
        ("kernel", kernel),
        ("hosted", hosted),
    ]
    .map(|(name, way)| Column { name, way })
    .into()
}

/// The hypercall instruction of this host: the one that was seen to complete, or
/// the one that has to, on a processor with hardware virtualization.
fn instruction(host: &Host) -> Option<Instruction> {
    host.doors.instruction.or(match host::vendor() {
        "vmx" => Some(Instruction::Vmcall),
        "svm" => Some(Instruction::Vmmcall),
        _ => None,
    })
}

/// Said of a host without hardware virtualization.
pub const NO_INSTRUCTION: &str = "no hypercall instruction completes on this host";
