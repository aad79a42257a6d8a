//! An interrupt without an exit behind it.
//!
//! A KVM without a local APIC takes the vector that it has just injected for one more
//! that waits (`kvm_cpu_has_injectable_intr` in `arch/x86/kvm/irq.c`), and so makes
//! the guest leave again at once (`req_immediate_exit` in
//! `kvm_check_and_inject_events`, `arch/x86/kvm/x86.c`): each KVM_INTERRUPT costs an
//! exit that is for nobody. With KVM_GUESTDBG_BLOCKIRQ it looks no further than what
//! is queued already, which it injects all the same. NMIs have to wait then: for
//! them the flag is taken back.

use kvm_bindings::{
    KVM_CAP_SET_GUEST_DEBUG2, KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, kvm_guest_debug,
};
use kvm_ioctls::{VcpuFd, VmFd};

use super::backend_error::{BackendError, ioctl};

/// Whether KVM looks for more than what is queued for a vCPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Injection {
    /// It does: it knows nothing else, or was not asked.
    #[default]
    Ordinary,
    /// It does not.
    QueuedOnly,
    /// It does until an NMI is in.
    ForNmi,
}

impl Injection {
    /// Without an exit, if this KVM can do that (Linux 5.15).
    pub(super) fn without_exit(vm: &VmFd, vcpu: &VcpuFd) -> Result<Self, BackendError> {
        // The flags that it knows; a flag that it does not know is not refused.
        let known = vm.check_extension_raw(u64::from(KVM_CAP_SET_GUEST_DEBUG2));
        if known.cast_unsigned() & KVM_GUESTDBG_BLOCKIRQ == 0 {
            return Ok(Self::Ordinary);
        }
        queued_only(vcpu)
    }

    /// An NMI is about to be queued.
    pub(super) fn before_nmi(&mut self, vcpu: &VcpuFd) -> Result<(), BackendError> {
        if *self == Self::QueuedOnly {
            set_guest_debug(vcpu, 0)?;
            *self = Self::ForNmi;
        }
        Ok(())
    }

    /// An interrupt is about to be queued.
    pub(super) fn before_interrupt(&mut self, vcpu: &VcpuFd) -> Result<(), BackendError> {
        if *self == Self::ForNmi {
            let events = vcpu.get_vcpu_events();
            let events = events.map_err(ioctl("KVM_GET_VCPU_EVENTS"))?;
            if events.nmi.pending == 0 {
                *self = queued_only(vcpu)?;
            }
        }
        Ok(())
    }
}

fn queued_only(vcpu: &VcpuFd) -> Result<Injection, BackendError> {
    set_guest_debug(vcpu, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_BLOCKIRQ)?;
    Ok(Injection::QueuedOnly)
}

fn set_guest_debug(vcpu: &VcpuFd, control: u32) -> Result<(), BackendError> {
    let debug = kvm_guest_debug {
        control,
        ..Default::default()
    };
    vcpu.set_guest_debug(&debug)
        .map_err(ioctl("KVM_SET_GUEST_DEBUG"))
}
