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
use kvm_ioctls::VmFd;

use super::backend_error::{BackendError, ioctl};
use super::kvm::KvmVcpu;

/// Whether KVM looks for more than what is queued.
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

impl KvmVcpu {
    /// From now on an interrupt costs no exit by itself, if this KVM can do that
    /// (Linux 5.15). For a vCPU without a local APIC in KVM.
    ///
    /// # Errors
    /// KVM_SET_GUEST_DEBUG failed.
    pub fn inject_without_exit(&mut self, vm: &VmFd) -> Result<(), BackendError> {
        // The flags that it knows; a flag that it does not know is not refused.
        let known = vm.check_extension_raw(u64::from(KVM_CAP_SET_GUEST_DEBUG2));
        if known.cast_unsigned() & KVM_GUESTDBG_BLOCKIRQ == 0 {
            return Ok(());
        }
        self.queued_only()
    }

    /// An NMI is about to be queued.
    pub(super) fn let_nmi_in(&mut self) -> Result<(), BackendError> {
        if self.injection == Injection::QueuedOnly {
            self.set_guest_debug(0)?;
            self.injection = Injection::ForNmi;
        }
        Ok(())
    }

    /// An interrupt is about to be queued.
    pub(super) fn before_interrupt(&mut self) -> Result<(), BackendError> {
        if self.injection == Injection::ForNmi {
            let events = self.fd().get_vcpu_events();
            let events = events.map_err(ioctl("KVM_GET_VCPU_EVENTS"))?;
            if events.nmi.pending == 0 {
                self.queued_only()?;
            }
        }
        Ok(())
    }

    fn queued_only(&mut self) -> Result<(), BackendError> {
        self.set_guest_debug(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_BLOCKIRQ)?;
        self.injection = Injection::QueuedOnly;
        Ok(())
    }

    fn set_guest_debug(&self, control: u32) -> Result<(), BackendError> {
        let debug = kvm_guest_debug {
            control,
            ..Default::default()
        };
        self.fd()
            .set_guest_debug(&debug)
            .map_err(ioctl("KVM_SET_GUEST_DEBUG"))
    }
}
