//! A VM of /dev/kvm, put together for a [`Way`]: what has to be arranged before
//! its vCPUs, for each of them, and in which order.

use std::sync::Arc;

use kvm_bindings::{CpuId, KVM_CAP_EXIT_HYPERCALL, kvm_enable_cap};
use kvm_ioctls::{Kvm, VmFd};
use pv_lock_host::KvmKickError;

use crate::backend::kvm::{KvmVcpu, ioctl, map_memory};
use crate::backend::{BackendError, xen};
use crate::irqchip::{Irqchip, KernelSignals, kernel};
use crate::memory::GuestMemory;
use crate::way::{DoorKind, Halt, Way};

/// What a VM is to be.
#[derive(Clone, Copy, Debug)]
pub struct VmSetup {
    /// Who halts its vCPUs, and where its hypercalls go.
    pub way: Way,
    /// KVM refuses the guest what its CPUID does not show. Of no effect on
    /// hypercalls that this process serves.
    pub enforce_cpuid: bool,
    /// KVM_HC_MAP_GPA_RANGE comes to this process.
    pub exit_map_gpa_range: bool,
}

impl VmSetup {
    /// The usual VM: with enforcement, without KVM_HC_MAP_GPA_RANGE.
    pub const fn new(way: Way) -> Self {
        Self {
            way,
            enforce_cpuid: true,
            exit_map_gpa_range: false,
        }
    }
}

/// A VM of /dev/kvm.
#[derive(Debug)]
pub struct KvmVm {
    fd: Arc<VmFd>,
    memory: Arc<GuestMemory>,
    setup: VmSetup,
}

impl KvmVm {
    /// A VM without vCPUs.
    pub fn new(kvm: &Kvm, memory: Arc<GuestMemory>, setup: VmSetup) -> Result<Self, BackendError> {
        let fd = kvm.create_vm().map_err(ioctl("KVM_CREATE_VM"))?;
        map_memory(&fd, &memory)?;
        if setup.way.halt == Halt::Kernel {
            kernel::create(&fd)?;
        }
        if matches!(setup.way.door, DoorKind::Xen(_)) {
            xen::intercept(&fd)?;
        }
        if setup.exit_map_gpa_range {
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
            setup,
        })
    }

    /// Its ioctls.
    pub fn fd(&self) -> &VmFd {
        &self.fd
    }

    /// Its interrupt controller.
    pub fn irqchip(&self) -> Irqchip {
        match self.setup.way.halt {
            Halt::Userspace => Irqchip::None,
            Halt::Kernel => Irqchip::Kernel,
        }
    }

    /// A vCPU with this APIC ID and CPUID, its registers as of a reset.
    pub fn vcpu(&self, apic_id: u32, cpuid: &CpuId) -> Result<KvmVcpu, BackendError> {
        let fd = self
            .fd
            .create_vcpu(u64::from(apic_id))
            .map_err(ioctl("KVM_CREATE_VCPU"))?;
        if self.irqchip() == Irqchip::Kernel {
            kernel::enable_lapic(&fd)?;
            if self.setup.enforce_cpuid {
                kernel::enforce_cpuid(&fd)?;
            }
        }
        let mut vcpu = KvmVcpu::new(fd, Arc::clone(&self.memory));
        if self.setup.way.door == DoorKind::Port {
            vcpu.open_port();
        }
        vcpu.set_cpuid(cpuid)?;
        Ok(vcpu)
    }

    /// Kicks and interrupts for its vCPUs while they halt in KVM.
    pub fn signals(&self) -> KernelSignals {
        KernelSignals::new(Arc::clone(&self.fd))
    }

    /// The same where APIC IDs go beyond [`kernel::MAX_APIC_ID`].
    ///
    /// # Errors
    /// This KVM has no way to name them.
    pub fn signals_with_32bit_ids(&self) -> Result<KernelSignals, KvmKickError> {
        KernelSignals::with_32bit_ids(Arc::clone(&self.fd))
    }
}
