//! The interrupt controllers in KVM.

use std::sync::Arc;

use kvm_bindings::{
    KVM_CAP_ENFORCE_PV_FEATURE_CPUID, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, kvm_enable_cap, kvm_irqchip, kvm_lapic_state, kvm_pit_state2,
};
use kvm_ioctls::{VcpuFd, VmFd};
use serde::{Deserialize, Serialize};

use crate::backend::{BackendError, ioctl};
use crate::devices::test_device::GsiLines;

/// Spurious interrupt vector register, an offset into the local APIC's page.
const SPIV: usize = 0xf0;
/// The local APIC is on, by software; the vector is that of a PC's reset.
const SPIV_ENABLED: u32 = 0x1ff;
/// The local APICs of this VM are xAPICs: 8 bits of ID, of which 255 is
/// everyone.
pub const MAX_APIC_ID: u32 = 254;

/// Makes the VM's interrupt controllers; before its first vCPU.
pub fn create(vm: &VmFd) -> Result<(), BackendError> {
    vm.create_irq_chip().map_err(ioctl("KVM_CREATE_IRQCHIP"))
}

/// The pins of KVM's interrupt controllers.
#[derive(Debug)]
pub struct KernelLines(Arc<VmFd>);

impl KernelLines {
    /// Of this VM, which has them.
    pub fn new(vm: Arc<VmFd>) -> Self {
        Self(vm)
    }
}

impl GsiLines for KernelLines {
    fn set(&self, gsi: u32, asserted: bool) {
        // KVM_IRQ_LINE fails only for a VM without interrupt controllers.
        let _ = self.0.set_irq_line(gsi, asserted);
    }
}

/// The state of a VM's interrupt controllers in KVM, but for the local APICs,
/// which are their vCPUs'.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedIrqchip {
    /// The two 8259 and the I/O APIC.
    chips: Vec<kvm_irqchip>,
    /// The 8254, which a PC has.
    pit: Option<kvm_pit_state2>,
}

/// The state of the VM's interrupt controllers, while no vCPU runs.
pub fn save(vm: &VmFd) -> Result<SavedIrqchip, BackendError> {
    const CHIPS: [u32; 3] = [
        KVM_IRQCHIP_PIC_MASTER,
        KVM_IRQCHIP_PIC_SLAVE,
        KVM_IRQCHIP_IOAPIC,
    ];
    let chip = |&chip_id: &u32| {
        let mut chip = kvm_irqchip {
            chip_id,
            ..Default::default()
        };
        (vm.get_irqchip(&mut chip).map(|()| chip)).map_err(ioctl("KVM_GET_IRQCHIP"))
    };
    Ok(SavedIrqchip {
        chips: CHIPS.iter().map(chip).collect::<Result<_, _>>()?,
        // It fails exactly where there is none.
        pit: vm.get_pit2().ok(),
    })
}

/// Puts a saved state in, before a vCPU runs.
pub fn restore(vm: &VmFd, saved: &SavedIrqchip) -> Result<(), BackendError> {
    for chip in &saved.chips {
        vm.set_irqchip(chip).map_err(ioctl("KVM_SET_IRQCHIP"))?;
    }
    match &saved.pit {
        Some(pit) => vm.set_pit2(pit).map_err(ioctl("KVM_SET_PIT2")),
        None => Ok(()),
    }
}

/// Turns the vCPU's local APIC on, as a BIOS does. Before that, or another
/// write to it, the vCPU is not in KVM's map of APIC IDs and a kick of it
/// reaches nobody.
pub fn enable_lapic(vcpu: &VcpuFd) -> Result<(), BackendError> {
    let mut state = vcpu.get_lapic().map_err(ioctl("KVM_GET_LAPIC"))?;
    set_register(&mut state, SPIV, SPIV_ENABLED);
    vcpu.set_lapic(&state).map_err(ioctl("KVM_SET_LAPIC"))
}

/// Writes a 32-bit register at this offset of a local APIC's page.
pub(crate) fn set_register(state: &mut kvm_lapic_state, offset: usize, value: u32) {
    let bytes = state.regs.iter_mut().skip(offset);
    for (byte, new) in bytes.zip(value.to_le_bytes()) {
        *byte = new.cast_signed();
    }
}

/// Has KVM refuse this vCPU the calls and MSRs that its CPUID does not show.
/// Without it KVM serves them all.
pub fn enforce_cpuid(vcpu: &VcpuFd) -> Result<(), BackendError> {
    let mut cap = kvm_enable_cap {
        cap: KVM_CAP_ENFORCE_PV_FEATURE_CPUID,
        ..Default::default()
    };
    cap.args = [1, 0, 0, 0];
    vcpu.enable_cap(&cap)
        .map_err(ioctl("KVM_ENABLE_CAP(ENFORCE_PV_FEATURE_CPUID)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_is_four_bytes_little_endian() {
        let mut state = kvm_lapic_state::default();
        set_register(&mut state, SPIV, 0x8182_83ff);
        let changed: Vec<(usize, u8)> = state
            .regs
            .iter()
            .map(|b| b.cast_unsigned())
            .enumerate()
            .filter(|&(_, b)| b != 0)
            .collect();
        // Offset 0xf0: Intel SDM volume 3, table "Local APIC Register Address Map".
        assert_eq!(
            changed,
            [(0xf0, 0xff), (0xf1, 0x83), (0xf2, 0x82), (0xf3, 0x81)]
        );
    }
}
