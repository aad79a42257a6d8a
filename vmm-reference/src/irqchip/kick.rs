//! A kick from this process for a vCPU that halts inside KVM.

use std::sync::Arc;

use kvm_bindings::kvm_msi;
use kvm_ioctls::VmFd;
use pv_lock_host::ApicId;
use vmm_sys_util::errno;

/// Delivery mode "remote read", bits 10:8 of MSI data. KVM has no use for it
/// but this one: it sets `pv_unhalted` and wakes the vCPU, just as
/// KVM_HC_KICK_CPU does (`__apic_accept_irq` in `arch/x86/kvm/lapic.c`).
const DATA_REMOTE_READ: u32 = 3 << 8;
/// Bits 19:12 of an MSI address are the destination's APIC ID.
const ADDRESS_ID_SHIFT: u32 = 12;
/// Where MSI addresses are.
const ADDRESS: u32 = 0xfee0_0000;

/// Kicks vCPUs of a VM with an in-kernel interrupt controller, by
/// KVM_SIGNAL_MSI: an ioctl of the VM's, which waits for no vCPU.
///
/// Unlike the hypercall it is not followed by a directed yield, and it asks for
/// no CPUID bit.
#[derive(Clone, Debug)]
pub struct KvmKick {
    vm: Arc<VmFd>,
}

impl KvmKick {
    /// For the vCPUs of `vm`, whose local APICs are on.
    pub fn new(vm: Arc<VmFd>) -> Self {
        Self { vm }
    }

    /// Ends the halt of the vCPU with this APIC ID, or its next one. Whether
    /// there is one.
    ///
    /// # Errors
    /// What KVM_SIGNAL_MSI says: `EINVAL` without an in-kernel irqchip.
    pub fn kick(&self, id: ApicId) -> Result<bool, errno::Error> {
        // An xAPIC ID; above it there is nobody.
        let Ok(id) = u8::try_from(id.0) else {
            return Ok(false);
        };
        self.signal(u32::from(id), DATA_REMOTE_READ)
    }

    /// Delivers an interrupt with this vector.
    ///
    /// # Errors
    /// As [`KvmKick::kick`].
    pub fn interrupt(&self, id: ApicId, vector: u8) -> Result<bool, errno::Error> {
        let Ok(id) = u8::try_from(id.0) else {
            return Ok(false);
        };
        self.signal(u32::from(id), u32::from(vector))
    }

    fn signal(&self, id: u32, data: u32) -> Result<bool, errno::Error> {
        let delivered = self.vm.signal_msi(kvm_msi {
            address_lo: ADDRESS | (id << ADDRESS_ID_SHIFT),
            data,
            ..Default::default()
        })?;
        Ok(delivered > 0)
    }
}
