//! A paused VM as values, and a VM from such values.

use std::sync::Arc;

use cpuid_features::{KvmFeatures, KvmHints, Selection};
use kvm_bindings::{kvm_clock_data, kvm_cpuid_entry2};
use pv_lock_host::ApicId;

use super::VmError;
use super::build::{Vm, VmParts};
use super::handle::VmHandle;
use super::spec::{Platform, VmSpec};
use super::state::{StateInKvm, StateOfVm};
use super::vm_error::system;
use crate::backend::kvm::KvmVcpu;
use crate::backend::{BackendError, GuestImage, ioctl};
use crate::devices::output::Output;
use crate::halt_mode::HaltMode;
use crate::host::KvmHost;
use crate::irqchip::kernel;
use crate::memory::GuestMemory;
use crate::policy::Policy;
use crate::snapshot::{
    SavedCounts, SavedKvm, SavedMachine, SavedPlatform, SavedVm, Snapshot, check_cpu,
    check_features,
};
use crate::trace::VmTrace;

impl VmParts {
    /// The state of this VM, which is paused: its vCPUs, then what they share, then
    /// the clock, so that no vCPU has seen a later time.
    ///
    /// # Errors
    /// A vCPU is not at rest or has ended, or KVM refuses something.
    pub fn save(&self, vm: &VmHandle) -> Result<SavedVm, VmError> {
        let StateOfVm {
            machine,
            processors,
            kvm,
            controllers,
            test_device,
        } = &self.state;
        if *test_device {
            return Err(VmError::TestDevice);
        }
        let Some(StateInKvm { fd, msrs, .. }) = kvm else {
            return Err(BackendError::NotSaved.into());
        };
        if let Some(index) = vm.first_ended() {
            return Err(VmError::HasEnded { index });
        }
        // Says that all are at rest, and therefore stays first.
        vm.scheduler.save()?;
        let vcpus = processors.iter().map(|processor| processor.save(msrs));
        let vcpus = vcpus.collect::<Result<_, _>>()?;
        let irqchip = match machine.halt_kick.halt {
            HaltMode::Kernel => Some(kernel::save(fd)?),
            HaltMode::Userspace => None,
        };
        let vmm = self.vmm_stats.sums().into_iter();
        Ok(SavedVm {
            machine: machine.clone(),
            vcpus,
            // Again: an end of an interrupt, which a save may carry out, notifies.
            scheduler: vm.scheduler.save()?,
            kvm: SavedKvm {
                clock: fd.get_clock().map_err(ioctl("KVM_GET_CLOCK"))?,
                irqchip,
            },
            ioapic: controllers.as_ref().map(|shared| shared.save()),
            devices: self.bus.save(),
            counts: SavedCounts {
                // A KVM without statistics is no reason not to save.
                kvm: (self.stats.as_ref())
                    .and_then(|stats| stats.sums().ok())
                    .unwrap_or_default(),
                vmm: vmm.map(|(name, value)| (name.to_string(), value)).collect(),
            },
        })
    }
}

/// How a restored VM is to be run: what is the host's, not the guest's.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The scheduler's policies.
    pub policy: Policy,
    /// Where COM1 of a PC writes to.
    pub output: Output,
    /// What its vCPUs do is recorded.
    pub trace: Option<VmTrace>,
}

impl Vm {
    /// The VM in `snapshot`, paused: start it, then resume it.
    ///
    /// For each vCPU that KVM was running a kick is sent to KVM: whether one waited
    /// for it there could not be known. A kick for nothing ends one halt, after
    /// which the guest looks at its lock again, as it does after any; one that is
    /// lost leaves it halted for ever.
    ///
    /// # Errors
    /// This host can't go on with it.
    pub fn restore(snapshot: &Snapshot, host: &KvmHost, how: Restore) -> Result<Self, VmError> {
        let saved = snapshot.vm();
        let spec = spec(saved, host, how)?;
        let memory = Arc::new(snapshot.map_memory()?);
        let mut vm = Self::build(&spec, Some(host), &Restored(memory))?;
        let Some(StateInKvm { fd, cpuid, .. }) = &vm.parts.state.kvm else {
            return Err(BackendError::NotSaved.into());
        };
        check_cpu(shown(saved), &host.cpuid, cpuid)?;
        let fd = Arc::clone(fd);
        for (processor, vcpu) in vm.parts.state.processors.iter().zip(&saved.vcpus) {
            processor.restore(vcpu)?;
        }
        if let Some(irqchip) = &saved.kvm.irqchip {
            kernel::restore(&fd, irqchip)?;
        }
        // The flags are what KVM says, not what it takes.
        let clock = kvm_clock_data {
            clock: saved.kvm.clock.clock,
            ..Default::default()
        };
        fd.set_clock(&clock).map_err(ioctl("KVM_SET_CLOCK"))?;
        if let (Some(shared), Some(ioapic)) = (&vm.parts.state.controllers, &saved.ioapic) {
            shared.restore(ioapic);
        }
        let devices = vm.parts.bus.restore(&saved.devices);
        devices.map_err(system("restore the devices"))?;
        // Behind all that may notify a vCPU; it pauses the VM.
        vm.scheduler.restore(&saved.scheduler)?;
        if saved.machine.halt_kick.halt == HaltMode::Kernel {
            let ran = saved.vcpus.iter().map(|vcpu| vcpu.kvm.ran());
            for (id, _) in (0..).map(ApicId).zip(ran).filter(|&(_, ran)| ran) {
                vm.parts.kicks.kick(id);
            }
        }
        let SavedCounts { kvm, vmm } = saved.counts.clone();
        vm.parts.vmm_stats.carry_on(vmm);
        if let Some(stats) = &mut vm.parts.stats {
            stats.carry_on(kvm);
        }
        Ok(vm)
    }
}

/// What its guest was shown by CPUID: all vCPUs but for their IDs the same.
fn shown(saved: &SavedVm) -> &[kvm_cpuid_entry2] {
    let first = saved.vcpus.first();
    first.map_or(&[], |vcpu| vcpu.kvm.cpuid())
}

/// What the saved VM is, with exactly the features that its guest was shown.
fn spec(saved: &SavedVm, host: &KvmHost, how: Restore) -> Result<VmSpec, VmError> {
    let SavedMachine {
        platform,
        halt_kick,
        x2apic,
        enforce_features,
        map_gpa_range,
    } = saved.machine;
    let vcpus = u32::try_from(saved.vcpus.len()).unwrap_or(u32::MAX);
    let spec = VmSpec {
        vcpus,
        halt_kick,
        policy: how.policy,
        pv: Selection::default(),
        enforce_features,
        map_gpa_range,
        platform: match platform {
            SavedPlatform::Bare => Platform::Bare,
            SavedPlatform::BareApics => Platform::BareApics,
            SavedPlatform::Pc => Platform::Pc(how.output),
        },
        x2apic,
        test_device: false,
        trace: how.trace,
    };
    let leaf = check_features(shown(saved), &spec.negotiate(Some(host))?)?;
    let (features, hints) = leaf.map_or(Default::default(), |leaf| (leaf.features, leaf.hints));
    Ok(VmSpec {
        pv: Selection {
            on: features,
            off: KvmFeatures::all() - features,
            hints_on: hints,
            hints_off: KvmHints::all() - hints,
        },
        ..spec
    })
}

/// The guest of a snapshot: its memory. Its registers come with all the rest.
#[derive(Debug)]
struct Restored(Arc<GuestMemory>);

impl GuestImage for Restored {
    fn memory(&self) -> &Arc<GuestMemory> {
        &self.0
    }

    fn set_registers(&self, _vcpu: &KvmVcpu, _index: u32) -> Result<(), BackendError> {
        Ok(())
    }
}
