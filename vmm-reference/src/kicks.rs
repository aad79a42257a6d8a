//! How the kicks of one VM are delivered. The one place where it matters who
//! halts its vCPUs.

use pv_lock_host::{ApicId, KickOutcome, Kicker, VcpuParker};

use crate::backend::BackendError;
use crate::irqchip::KernelSignals;

/// Delivers the kicks and interrupts of one VM.
#[derive(Clone, Debug)]
pub struct Kicks {
    scheduler: Kicker,
    /// There if KVM halts the vCPUs: it is KVM then that has to wake them.
    kvm: Option<KernelSignals>,
}

impl Kicks {
    /// For vCPUs of this scheduler; `kvm` if they halt in KVM.
    pub fn new(scheduler: Kicker, kvm: Option<KernelSignals>) -> Self {
        Self { scheduler, kvm }
    }

    /// Kicks one vCPU from outside of the guest. Whether there is one with this
    /// APIC ID.
    pub fn kick(&self, id: ApicId) -> bool {
        match &self.kvm {
            None => self.scheduler.kick_by_host(id) != KickOutcome::NoSuchVcpu,
            Some(kvm) => kvm.kick(id),
        }
    }

    /// Announces something that is not a kick to a vCPU that halts in this process.
    pub(crate) fn notify(&self, id: ApicId) -> KickOutcome {
        self.scheduler.notify(id)
    }

    /// Kicks one vCPU for the guest of another, whose thread this is. What the
    /// kicker does for the woken one is a policy of the scheduler.
    pub(crate) fn kick_by(&self, parker: &mut VcpuParker, id: ApicId) {
        match &self.kvm {
            None => drop(parker.kick_by_guest(id)),
            Some(kvm) => drop(parker.kick_elsewhere(id, || kvm.kick(id))),
        }
    }

    /// Interrupts one vCPU: with this vector through KVM's interrupt
    /// controllers; where there are none, its halt ends as for an interrupt.
    /// Whether anybody took it.
    ///
    /// # Errors
    /// KVM_SIGNAL_MSI failed.
    pub fn interrupt(&self, id: ApicId, vector: u8) -> Result<bool, BackendError> {
        match &self.kvm {
            None => Ok(self.scheduler.notify(id) != KickOutcome::NoSuchVcpu),
            Some(kvm) => kvm.interrupt(id, vector),
        }
    }
}
