//! What KVM is asked for to make a VM and its vCPUs, and in which order.

use std::sync::Arc;

use kvm_bindings::{CpuId, KVM_CAP_EXIT_HYPERCALL, kvm_enable_cap};
use kvm_ioctls::{Kvm, VmFd};

use super::VmError;
use super::spec::VmSpec;
use crate::backend::kvm::{KvmVcpu, map_memory};
use crate::backend::{BackendError, exit_on_msrs, ioctl, run_states, xen};
use crate::devices::test_device::GsiLines;
use crate::irqchip::{KernelLines, KernelSignals, kernel};
use crate::memory::GuestMemory;
use crate::transport::Transport;

/// A VM of /dev/kvm, to which vCPUs can be added.
#[derive(Debug)]
pub(super) struct KvmVm<'a> {
    fd: Arc<VmFd>,
    memory: Arc<GuestMemory>,
    spec: &'a VmSpec,
}

impl<'a> KvmVm<'a> {
    /// A VM without vCPUs.
    pub(super) fn new(
        kvm: &Kvm,
        memory: Arc<GuestMemory>,
        spec: &'a VmSpec,
    ) -> Result<Self, BackendError> {
        let fd = kvm.create_vm().map_err(ioctl("KVM_CREATE_VM"))?;
        map_memory(&fd, &memory)?;
        if spec.kvm_irqchip() {
            kernel::create(&fd)?;
        }
        if spec.own_irqchip() {
            exit_on_msrs(&fd, spec.served_msrs(kvm))?;
        }
        if spec.halt_kick.transport == Transport::Xen {
            xen::intercept(&fd)?;
        }
        if spec.own_steal_time(kvm) {
            run_states::of_64_bits(&fd)?;
        }
        // Where hypercalls come to this process anyway there is nothing to enable.
        if spec.map_gpa_range && spec.halt_kick.transport == Transport::Kvm {
            let mut cap = kvm_enable_cap {
                cap: KVM_CAP_EXIT_HYPERCALL,
                ..Default::default()
            };
            cap.args = [1 << hypercall_abi::KVM_HC_MAP_GPA_RANGE, 0, 0, 0];
            fd.enable_cap(&cap)
                .map_err(ioctl("KVM_ENABLE_CAP(EXIT_HYPERCALL)"))?;
        }
        Ok(Self {
            fd: Arc::new(fd),
            memory,
            spec,
        })
    }

    /// Its descriptor, for ioctls.
    pub(super) fn fd(&self) -> &VmFd {
        &self.fd
    }

    /// The same, for whoever keeps it.
    pub(super) fn shared_fd(&self) -> &Arc<VmFd> {
        &self.fd
    }

    /// A vCPU with this APIC ID and CPUID, its registers as of a reset.
    pub(super) fn vcpu(&self, apic_id: u32, cpuid: &CpuId) -> Result<KvmVcpu, BackendError> {
        let fd = self
            .fd
            .create_vcpu(u64::from(apic_id))
            .map_err(ioctl("KVM_CREATE_VCPU"))?;
        if self.spec.kvm_irqchip() {
            kernel::enable_lapic(&fd)?;
        }
        if self.spec.enforce_features && (self.spec.kvm_irqchip() || self.spec.own_irqchip()) {
            kernel::enforce_cpuid(&fd)?;
        }
        let mut vcpu = KvmVcpu::new(fd, Arc::clone(&self.memory))?;
        if self.spec.halt_kick.transport == Transport::Port {
            vcpu.open_doorbell();
        }
        if self.spec.own_irqchip() {
            vcpu.inject_without_exit(&self.fd)?;
        }
        vcpu.set_cpuid(cpuid)?;
        Ok(vcpu)
    }

    /// The pins of its interrupt controllers, if they are KVM's.
    pub(super) fn lines(&self) -> Option<Arc<dyn GsiLines>> {
        let lines = self.spec.kvm_irqchip().then(|| Arc::clone(&self.fd));
        lines.map(|fd| Arc::new(KernelLines::new(fd)) as Arc<dyn GsiLines>)
    }

    /// Kicks and interrupts for its vCPUs, if they halt in KVM.
    pub(super) fn signals(&self) -> Result<Option<KernelSignals>, VmError> {
        if !self.spec.kvm_irqchip() {
            return Ok(None);
        }
        let fd = Arc::clone(&self.fd);
        Ok(Some(if self.spec.vcpus > kernel::MAX_APIC_ID + 1 {
            KernelSignals::with_32bit_ids(fd)?
        } else {
            KernelSignals::new(fd)
        }))
    }
}
