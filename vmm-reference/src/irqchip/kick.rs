//! What this process sends to the vCPUs of a VM whose interrupt controllers are
//! KVM's.

use std::sync::Arc;

use kvm_bindings::kvm_msi;
use kvm_ioctls::VmFd;
use pv_lock_host::{ApicId, KvmKick, KvmKickError};

use crate::backend::{BackendError, ioctl};

/// Bits 19:12 of an MSI's address are the destination's APIC ID.
const ADDRESS_ID_SHIFT: u32 = 12;
/// Where MSI addresses are.
const ADDRESS: u32 = 0xfee0_0000;

/// Kicks and interrupts for vCPUs that halt inside KVM.
#[derive(Clone, Debug)]
pub struct KernelSignals {
    vm: Arc<VmFd>,
    kick: Arc<KvmKick<Arc<VmFd>>>,
}

impl KernelSignals {
    /// For the vCPUs of `vm`, whose local APICs are on.
    pub fn new(vm: Arc<VmFd>) -> Self {
        Self {
            kick: Arc::new(KvmKick::new(Arc::clone(&vm))),
            vm,
        }
    }

    /// For the vCPUs of `vm`, whose APIC IDs may go beyond 254: KVM then takes
    /// 32 bits of them from this process.
    ///
    /// # Errors
    /// This KVM does not.
    pub fn with_32bit_ids(vm: Arc<VmFd>) -> Result<Self, KvmKickError> {
        Ok(Self {
            kick: Arc::new(KvmKick::with_32bit_ids(Arc::clone(&vm))?),
            vm,
        })
    }

    /// Ends the halt of the vCPU with this APIC ID, or its next one; whether
    /// there is one. An ID that no MSI can name has no vCPU here, and KVM
    /// refuses only a VM without local APICs, which this is not.
    pub fn kick(&self, id: ApicId) -> bool {
        self.kick.kick(id).unwrap_or(false)
    }

    /// Delivers an interrupt with this vector, as a device's MSI would be;
    /// whether anybody took it.
    ///
    /// # Errors
    /// KVM_SIGNAL_MSI failed.
    pub fn interrupt(&self, id: ApicId, vector: u8) -> Result<bool, BackendError> {
        let Ok(id) = u8::try_from(id.0) else {
            return Ok(false);
        };
        let msi = kvm_msi {
            address_lo: ADDRESS | (u32::from(id) << ADDRESS_ID_SHIFT),
            data: u32::from(vector),
            ..Default::default()
        };
        let taken = self.vm.signal_msi(msi).map_err(ioctl("KVM_SIGNAL_MSI"))?;
        Ok(taken > 0)
    }
}
