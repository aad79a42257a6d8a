//! The columns: the ways to halt and kick, and which of them are here.

use cpuid_features::KvmFeatures;
use kvm_bindings::CpuId;
use kvm_ioctls::{Cap, Kvm};

use super::ConformanceError;
use crate::cpuid;
use crate::probe::{self, Doors};
use crate::way::{DoorKind, Halt, Way};

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
    let port = host.clone().and_then(|host| match host.doors.port {
        true => Ok(userspace(DoorKind::Port)),
        false => Err("the doorbell port does not work".to_string()),
    });
    let xen = host.clone().and_then(|host| match host.doors.xen {
        Some(instruction) => Ok(userspace(DoorKind::Xen(instruction))),
        None if host.doors.instruction.is_none() => Err(NO_INSTRUCTION.to_string()),
        None => Err("this KVM has no Xen intercept (CONFIG_KVM_XEN)".to_string()),
    });
    let kernel = host.and_then(|host| {
        if !host.kvm.check_extension(Cap::Irqchip) || !host.kvm.check_extension(Cap::SignalMsi) {
            return Err("this KVM has no interrupt controllers".to_string());
        }
        // Where KVM serves no hypercall it can still halt: the kick comes by
        // the port and goes on by KVM_SIGNAL_MSI.
        let door = match host.doors.instruction {
            Some(instruction) => DoorKind::Kvm(instruction),
            None => DoorKind::Port,
        };
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

/// Said of a host without hardware virtualization.
pub const NO_INSTRUCTION: &str = "no hypercall instruction completes on this host";
