//! The columns: how a guest can halt and be kicked, and what of it is here.

use kvm_ioctls::Cap;

use crate::backend::xen;
use crate::halt_mode::HaltMode;
use crate::host::Virtualization;
use crate::probe::ProbedHost;
use crate::transport::{HaltKick, Instruction, Transport};

/// A column of the matrix.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name, at its head.
    pub name: &'static str,
    /// How its guests halt and are kicked, or why none can here.
    pub halt_kick: Result<HaltKick, String>,
    /// The hypercall instruction of its guests, for the transports that use one.
    pub instruction: Instruction,
}

/// All columns, on this host or on one whose KVM is not to be had for that
/// reason.
pub fn all(host: Result<&ProbedHost, String>) -> Vec<Column> {
    let userspace = |transport| HaltKick {
        halt: HaltMode::Userspace,
        transport,
    };
    // What KVM offers is taken at its word, whatever the probe made of it: a
    // transport that does not work is to fail its cases, not to leave the matrix.
    let port = host.clone().map(|_| userspace(Transport::Port));
    let known = host.clone().ok().and_then(instruction);
    let xen = host.clone().and_then(|probed| match known {
        None => Err(NO_INSTRUCTION.to_string()),
        Some(_) if xen::offered(&probed.host.kvm) => Ok(userspace(Transport::Xen)),
        Some(_) => Err("this KVM has no Xen intercept (CONFIG_KVM_XEN)".to_string()),
    });
    let kernel = host.and_then(|probed| {
        let kvm = &probed.host.kvm;
        if !kvm.check_extension(Cap::Irqchip) || !kvm.check_extension(Cap::SignalMsi) {
            return Err("this KVM has no interrupt controllers".to_string());
        }
        // Where KVM serves no hypercall it can still halt: the kick comes by
        // the port and goes on by KVM_SIGNAL_MSI.
        let transport = known.map_or(Transport::Port, |_| Transport::Kvm);
        Ok(HaltKick {
            halt: HaltMode::Kernel,
            transport,
        })
    });
    let hosted = Ok(userspace(Transport::Hosted));
    [
        ("userspace-port", port),
        ("userspace-xen", xen),
        ("kernel", kernel),
        ("hosted", hosted),
    ]
    .map(|(name, halt_kick)| Column {
        name,
        halt_kick,
        instruction: known.unwrap_or(Instruction::Vmcall),
    })
    .into()
}

/// The hypercall instruction of this host: the one that was seen to complete, or
/// the one that has to, on a processor with hardware virtualization.
fn instruction(probed: &ProbedHost) -> Option<Instruction> {
    probed
        .transports
        .instruction
        .or(match Virtualization::here() {
            Virtualization::Vmx => Some(Instruction::Vmcall),
            Virtualization::Svm => Some(Instruction::Vmmcall),
            Virtualization::Pvm | Virtualization::Unknown => None,
        })
}

/// Said of a host without hardware virtualization.
pub const NO_INSTRUCTION: &str = "no hypercall instruction completes on this host";
