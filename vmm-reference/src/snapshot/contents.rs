//! What is saved of a VM beside its memory.

use std::collections::BTreeMap;

use kvm_bindings::kvm_clock_data;
use pv_lock_host::SavedScheduler;
use serde::{Deserialize, Serialize};

use crate::devices::SavedDevices;
use crate::irqchip::kernel::SavedIrqchip;
use crate::irqchip::userspace::IoApic;
use crate::stats::KvmStats;
use crate::transport::HaltKick;
use crate::vcpu::SavedProcessor;

/// All of a paused VM but its memory.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedVm {
    /// What it is.
    pub machine: SavedMachine,
    /// Its vCPUs; their APIC IDs are their indexes.
    pub vcpus: Vec<SavedProcessor>,
    /// Who is halted, and for whom a kick waits: in this process. What waits in
    /// KVM can't be known.
    pub scheduler: SavedScheduler,
    /// What KVM has of the VM.
    pub kvm: SavedKvm,
    /// This process's I/O APIC, if it has one.
    pub ioapic: Option<IoApic>,
    /// Its devices.
    pub devices: SavedDevices,
    /// What was counted so far.
    pub counts: SavedCounts,
}

/// What a VM is, as far as its guest's state and what it is shown do not say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedMachine {
    /// The hardware around its vCPUs.
    pub platform: SavedPlatform,
    /// How its vCPUs halt and are kicked.
    pub halt_kick: HaltKick,
    /// The guest may use x2APIC mode, where that is this process's.
    pub x2apic: bool,
    /// What the guest was not shown is refused.
    pub enforce_features: bool,
    /// KVM_HC_MAP_GPA_RANGE is served by this process.
    pub map_gpa_range: bool,
}

/// The hardware around the vCPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SavedPlatform {
    /// Nothing but the exit port.
    Bare,
    /// The same with local APICs.
    BareApics,
    /// A PC.
    Pc,
}

/// KVM's state of a VM, beside its vCPUs'.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedKvm {
    /// KVM_GET_CLOCK: the guest's time by kvmclock.
    pub clock: kvm_clock_data,
    /// KVM's interrupt controllers, if it has them.
    pub irqchip: Option<SavedIrqchip>,
}

/// Statistics, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedCounts {
    /// KVM's.
    pub kvm: KvmStats,
    /// This process's.
    pub vmm: BTreeMap<String, u64>,
}
