//! What the demo measures by: the halt modes and hypercall transports that were
//! asked for, or all that this host has.

use cpuid_features::KvmFeatures;
use kvm_ioctls::Cap;

use super::Backend;
use crate::halt_mode::HaltMode;
use crate::irqchip::kernel;
use crate::transport::{HaltKick, Transport};

/// What was asked for is not to be had here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// `--halt kernel` or a transport of KVM's on the hosted backend.
    #[error("{0}: the hosted backend runs without KVM")]
    Hosted(&'static str),
    /// `--transport xen`.
    #[error("--transport xen: on this host no hypercall comes out as KVM_EXIT_XEN (see probe)")]
    NoXen,
    /// `--transport port`, or nothing else left.
    #[error("--transport port: on this host the doorbell does not work (see probe)")]
    NoPort,
    /// `--halt kernel`.
    #[error("--halt kernel: this host's KVM {0}")]
    NoKernelHalts(&'static str),
}

/// vCPUs that a VM with KVM's interrupt controllers has at most here: APIC IDs
/// of 8 bits.
pub const KERNEL_VCPUS: u32 = kernel::MAX_APIC_ID + 1;

/// Whether a VM like this may have `vcpus` vCPUs.
pub fn has_room(halt_kick: HaltKick, vcpus: u32) -> bool {
    halt_kick.halt == HaltMode::Userspace || vcpus <= KERNEL_VCPUS
}

/// What to measure by, halts in userspace first. None: all that this host has.
///
/// # Errors
/// This host does not have what was asked for.
pub fn find(
    backend: &Backend,
    halt: Option<HaltMode>,
    transport: Option<Transport>,
) -> Result<Vec<HaltKick>, ChoiceError> {
    let Backend::Kvm(probed) = backend else {
        return match (halt, transport) {
            (Some(HaltMode::Kernel), _) => Err(ChoiceError::Hosted("--halt kernel")),
            (_, Some(Transport::Xen)) => Err(ChoiceError::Hosted("--transport xen")),
            (_, Some(Transport::Port)) => Err(ChoiceError::Hosted("--transport port")),
            (_, None | Some(Transport::Kvm | Transport::Hosted)) => Ok(vec![HaltKick {
                halt: HaltMode::Userspace,
                transport: Transport::Hosted,
            }]),
        };
    };
    let (kvm, found) = (&probed.host.kvm, &probed.transports);
    let usable = |there: bool, transport, error| if there { Ok(transport) } else { Err(error) };
    let port = usable(found.port, Transport::Port, ChoiceError::NoPort);
    let xen = usable(found.xen, Transport::Xen, ChoiceError::NoXen);
    let mut all = Vec::new();
    if halt != Some(HaltMode::Kernel) {
        let transports = match transport {
            Some(Transport::Port) => vec![port?],
            Some(Transport::Xen) => vec![xen?],
            _ => match (port, xen) {
                (Ok(port), Ok(xen)) => vec![port, xen],
                (port, xen) => vec![port.or(xen)?],
            },
        };
        all.extend(transports.into_iter().map(|transport| HaltKick {
            halt: HaltMode::Userspace,
            transport,
        }));
    }
    if halt != Some(HaltMode::Userspace) {
        let possible = if !kvm.check_extension(Cap::Irqchip) {
            Err(ChoiceError::NoKernelHalts("has no interrupt controllers"))
        } else if !kvm.check_extension(Cap::SignalMsi) {
            Err(ChoiceError::NoKernelHalts("has no KVM_SIGNAL_MSI"))
        } else if !probed.host.features.contains(KvmFeatures::PV_UNHALT) {
            Err(ChoiceError::NoKernelHalts("does not report PV_UNHALT"))
        } else {
            Ok(())
        };
        let transport = match (transport, found.instruction) {
            (Some(Transport::Xen), _) => xen,
            // KVM serves it by itself, as it does for an ordinary guest.
            (None | Some(Transport::Kvm | Transport::Hosted), Some(_)) => Ok(Transport::Kvm),
            _ => port,
        };
        match possible.and(transport) {
            Ok(transport) => all.push(HaltKick {
                halt: HaltMode::Kernel,
                transport,
            }),
            Err(_) if halt.is_none() => {}
            Err(e) => return Err(e),
        }
    }
    Ok(all)
}
