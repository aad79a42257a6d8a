//! Which halts and doors the demo takes: what was asked for, or all that this
//! host has.

use kvm_ioctls::Cap;

use super::Backend;
use crate::irqchip::kernel;
use crate::way::{DoorKind, Halt, Way};
use cpuid_features::KvmFeatures;

/// Who puts halted vCPUs to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum HaltChoice {
    /// Each that this host has, a row for each.
    Auto,
    /// This process.
    Userspace,
    /// KVM.
    Kernel,
}

/// Where kicks go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DoorChoice {
    /// Each that this host has, a row for each.
    Auto,
    /// To this process, by the doorbell port.
    Port,
    /// To this process, by a hypercall instruction and KVM's Xen intercept.
    Xen,
}

/// What was asked for is not to be had here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WaysError {
    /// `--halt kernel` or a door of KVM's on the hosted backend.
    #[error("{0}: the hosted backend runs without KVM")]
    Hosted(&'static str),
    /// `--door xen`.
    #[error("--door xen: on this host no hypercall comes out as KVM_EXIT_XEN (see probe)")]
    NoXen,
    /// `--door port`, or nothing else left.
    #[error("--door port: on this host the doorbell does not work (see probe)")]
    NoPort,
    /// `--halt kernel`.
    #[error("--halt kernel: this host's KVM {0}")]
    NoKernelHalts(&'static str),
}

/// vCPUs that a VM with KVM's interrupt controllers has at most here: APIC IDs
/// of 8 bits.
pub const KERNEL_VCPUS: u32 = kernel::MAX_APIC_ID + 1;

/// Whether a VM by this way may have `vcpus` vCPUs.
pub fn has_room(way: Way, vcpus: u32) -> bool {
    way.halt == Halt::Userspace || vcpus <= KERNEL_VCPUS
}

/// The ways to measure, halts in userspace first.
pub fn find(backend: &Backend, halt: HaltChoice, door: DoorChoice) -> Result<Vec<Way>, WaysError> {
    let Backend::Kvm {
        kvm,
        features,
        doors,
        ..
    } = backend
    else {
        return match (halt, door) {
            (HaltChoice::Kernel, _) => Err(WaysError::Hosted("--halt kernel")),
            (_, DoorChoice::Xen) => Err(WaysError::Hosted("--door xen")),
            (_, DoorChoice::Port) => Err(WaysError::Hosted("--door port")),
            (_, DoorChoice::Auto) => Ok(vec![Way {
                halt: Halt::Userspace,
                door: DoorKind::Hosted,
            }]),
        };
    };
    let port = doors
        .port
        .then_some(DoorKind::Port)
        .ok_or(WaysError::NoPort);
    let xen = doors.xen.map(DoorKind::Xen).ok_or(WaysError::NoXen);
    let mut ways = Vec::new();
    if halt != HaltChoice::Kernel {
        let found = match door {
            DoorChoice::Auto => match (port, xen) {
                (Ok(port), Ok(xen)) => vec![port, xen],
                (port, xen) => vec![port.or(xen)?],
            },
            DoorChoice::Port => vec![port?],
            DoorChoice::Xen => vec![xen?],
        };
        ways.extend(found.into_iter().map(|door| Way {
            halt: Halt::Userspace,
            door,
        }));
    }
    if halt != HaltChoice::Userspace {
        let possible = if !kvm.check_extension(Cap::Irqchip) {
            Err(WaysError::NoKernelHalts("has no interrupt controllers"))
        } else if !kvm.check_extension(Cap::SignalMsi) {
            Err(WaysError::NoKernelHalts("has no KVM_SIGNAL_MSI"))
        } else if !features.contains(KvmFeatures::PV_UNHALT) {
            Err(WaysError::NoKernelHalts("does not report PV_UNHALT"))
        } else {
            Ok(())
        };
        let door = match (door, doors.instruction) {
            // KVM serves it by itself: the way of an ordinary guest.
            (DoorChoice::Auto, Some(instruction)) => Ok(DoorKind::Kvm(instruction)),
            (DoorChoice::Auto | DoorChoice::Port, _) => port,
            (DoorChoice::Xen, _) => xen,
        };
        match possible.and(door) {
            Ok(door) => ways.push(Way {
                halt: Halt::Kernel,
                door,
            }),
            Err(_) if halt == HaltChoice::Auto => {}
            Err(e) => return Err(e),
        }
    }
    Ok(ways)
}
