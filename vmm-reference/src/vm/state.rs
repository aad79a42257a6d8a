//! Where the parts of a VM's state are, for a snapshot.

use std::sync::Arc;

use kvm_bindings::CpuId;
use kvm_ioctls::VmFd;

use crate::interrupts::Controllers;
use crate::snapshot::SavedMachine;
use crate::vcpu::SaveProcessor;

/// What a snapshot is made of, beside what every owner of a VM has.
#[derive(Debug)]
pub(super) struct StateOfVm {
    pub(super) machine: SavedMachine,
    pub(super) processors: Vec<Arc<dyn SaveProcessor>>,
    /// None without KVM.
    pub(super) kvm: Option<StateInKvm>,
    pub(super) controllers: Option<Arc<Controllers>>,
    /// It has a test device, whose state is not saved.
    pub(super) test_device: bool,
}

/// How KVM's part of it is reached.
#[derive(Debug)]
pub(super) struct StateInKvm {
    /// The VM's descriptor.
    pub(super) fd: Arc<VmFd>,
    /// The MSRs that are part of a vCPU's state.
    pub(super) msrs: Vec<u32>,
    /// What KVM keeps as the first vCPU's CPUID.
    pub(super) cpuid: CpuId,
}
