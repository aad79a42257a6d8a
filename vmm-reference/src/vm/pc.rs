//! A PC around the vCPUs: what KVM has of it, and what a BIOS leaves behind.

use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, Msrs, kvm_msr_entry, kvm_pit_config};
use kvm_ioctls::{VcpuFd, VmFd};
use vmm_sys_util::eventfd::EventFd;

use crate::backend::{BackendError, ioctl};
use crate::devices::serial::COM1_GSI;
use crate::irqchip::kernel::set_register;

/// Three pages that Intel hosts need, in the hole for devices.
const TSS: usize = 0xfffb_d000;
/// Local vector table entries for the two pins of a local APIC, offsets into
/// its page: as a BIOS leaves them, the 8259 on one and NMI on the other.
const LVT_LINT0: usize = 0x350;
const LVT_LINT1: usize = 0x360;
const MODE_EXTINT: u32 = 7 << 8;
const MODE_NMI: u32 = 4 << 8;
/// MTRR default type: enabled, write-back, and no range that says otherwise.
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
const MTRR_ENABLED_WRITE_BACK: u64 = (1 << 11) | 6;

/// What Intel hosts need for a guest in real mode; before the first vCPU.
pub(super) fn real_mode(vm: &VmFd) -> Result<(), BackendError> {
    vm.set_tss_address(TSS).map_err(ioctl("KVM_SET_TSS_ADDR"))
}

/// What a PC has beside the interrupt controllers, in KVM; before the first
/// vCPU. `com1` becomes the irqfd of its interrupt.
pub(super) fn interrupts(vm: &VmFd, com1: &EventFd) -> Result<(), BackendError> {
    // Port 0x61 too: guests look there for the timer's second channel.
    let pit = kvm_pit_config {
        flags: KVM_PIT_SPEAKER_DUMMY,
        ..Default::default()
    };
    vm.create_pit2(pit).map_err(ioctl("KVM_CREATE_PIT2"))?;
    vm.register_irqfd(com1, COM1_GSI)
        .map_err(ioctl("KVM_IRQFD"))
}

/// Memory is write-back, as a BIOS says.
pub(super) fn memory_types(vcpu: &VcpuFd) -> Result<(), BackendError> {
    let entry = kvm_msr_entry {
        index: MSR_MTRR_DEF_TYPE,
        data: MTRR_ENABLED_WRITE_BACK,
        ..Default::default()
    };
    if let Ok(msrs) = Msrs::from_entries(&[entry]) {
        // A KVM without MTRRs takes none of it, and its guest sees none.
        vcpu.set_msrs(&msrs).map_err(ioctl("KVM_SET_MSRS"))?;
    }
    Ok(())
}

/// The two pins of the local APIC, as a BIOS leaves them.
pub(super) fn local_apic(vcpu: &VcpuFd) -> Result<(), BackendError> {
    let mut lapic = vcpu.get_lapic().map_err(ioctl("KVM_GET_LAPIC"))?;
    set_register(&mut lapic, LVT_LINT0, MODE_EXTINT);
    set_register(&mut lapic, LVT_LINT1, MODE_NMI);
    vcpu.set_lapic(&lapic).map_err(ioctl("KVM_SET_LAPIC"))
}
