//! What a VM is to be.

use cpuid_features::msr::{self, Msr};
use cpuid_features::{KvmFeatures, Negotiated, Selection, VmmSupport};
use kvm_ioctls::Kvm;

use crate::backend::run_states;
use crate::cpuid::{self, CpuidError};
use crate::devices::output::Output;
use crate::halt_mode::HaltMode;
use crate::host::KvmHost;
use crate::policy::Policy;
use crate::snapshot::{SavedMachine, SavedPlatform};
use crate::trace::VmTrace;
use crate::transport::{HaltKick, Transport};

/// The hardware around the vCPUs.
#[derive(Clone, Debug)]
pub enum Platform {
    /// Nothing but the exit port: for the embedded guests, which run with
    /// interrupts off and do not look at their processors.
    Bare,
    /// The same with local APICs, for embedded guests that take interrupts. They are
    /// on and, where they are this process's, in x2APIC mode from the start, and no
    /// vCPU waits for a SIPI.
    BareApics,
    /// A PC without disks, whose COM1 writes to this output.
    Pc(Output),
}

/// What a VM is to be, but for its guest.
#[derive(Clone, Debug)]
pub struct VmSpec {
    /// vCPUs; their APIC IDs are their indexes.
    pub vcpus: u32,
    /// How they halt and are kicked. With it, whether KVM has interrupt
    /// controllers for them: it does exactly if it halts them, whatever `platform`
    /// says.
    pub halt_kick: HaltKick,
    /// The scheduler's policies, where vCPUs halt in this process.
    pub policy: Policy,
    /// Paravirtual features by name, on and off.
    pub pv: Selection,
    /// A hypercall or an MSR whose feature the guest's CPUID does not show is
    /// refused.
    pub enforce_features: bool,
    /// KVM_HC_MAP_GPA_RANGE is served by this process.
    pub map_gpa_range: bool,
    /// The hardware around the vCPUs.
    pub platform: Platform,
    /// The guest may switch its local APIC to x2APIC mode, where that is this
    /// process's.
    pub x2apic: bool,
    /// There is a test device, for other people's test suites; where there are
    /// interrupt controllers.
    pub test_device: bool,
    /// What its vCPUs do is recorded.
    pub trace: Option<VmTrace>,
}

impl VmSpec {
    /// A VM for an embedded guest: the default policies and features, enforced,
    /// and no hardware.
    pub fn bare(vcpus: u32, halt_kick: HaltKick) -> Self {
        Self {
            vcpus,
            halt_kick,
            policy: Policy::default(),
            pv: Selection::default(),
            enforce_features: true,
            map_gpa_range: false,
            platform: Platform::Bare,
            x2apic: true,
            test_device: false,
            trace: None,
        }
    }

    /// What of it goes into a snapshot.
    pub(super) fn saved(&self) -> SavedMachine {
        SavedMachine {
            platform: match self.platform {
                Platform::Bare => SavedPlatform::Bare,
                Platform::BareApics => SavedPlatform::BareApics,
                Platform::Pc(_) => SavedPlatform::Pc,
            },
            halt_kick: self.halt_kick,
            x2apic: self.x2apic,
            enforce_features: self.enforce_features,
            map_gpa_range: self.map_gpa_range,
        }
    }

    /// KVM's interrupt controllers are there.
    pub fn kvm_irqchip(&self) -> bool {
        self.halt_kick.halt == HaltMode::Kernel
    }

    /// This process's interrupt controllers are there.
    pub(super) fn own_irqchip(&self) -> bool {
        !self.kvm_irqchip() && !matches!(self.platform, Platform::Bare)
    }

    /// Steal time is this process's, by what this KVM records of run states: where KVM
    /// would serve it but for the Xen intercept, and MSRs come here.
    pub(super) fn own_steal_time(&self, kvm: &Kvm) -> bool {
        self.own_irqchip() && self.halt_kick.transport == Transport::Xen && run_states::offered(kvm)
    }

    /// Which of KVM's own MSRs are served by this process.
    pub(super) fn served_msrs(&self, kvm: &Kvm) -> &'static [Msr] {
        match self.own_steal_time(kvm) {
            true => &[msr::STEAL_TIME, msr::PV_EOI_EN],
            false => &[msr::PV_EOI_EN],
        }
    }

    fn support(&self, host: Option<&KvmHost>) -> VmmSupport {
        let own_steal_time = host.is_some_and(|host| self.own_steal_time(&host.kvm));
        let mut support = cpuid::support(self.halt_kick, self.vcpus, own_steal_time);
        if self.own_irqchip() {
            support.implements |= KvmFeatures::PV_EOI;
            support
                .implements
                .set(KvmFeatures::PV_SEND_IPI, self.halt_kick.kicks_come_here());
        }
        VmmSupport {
            exit_hypercall: self.map_gpa_range,
            ..support
        }
    }

    /// What the guest is offered on this host, with a reason for each bit; without
    /// a host, on the hosted backend.
    ///
    /// # Errors
    /// A feature that was asked for can't be had.
    pub fn negotiate(&self, host: Option<&KvmHost>) -> Result<Negotiated, CpuidError> {
        let features = host.map_or(KvmFeatures::empty(), |host| host.features);
        cpuid::offer(features, &self.support(host), &self.pv)
    }

    /// What the selection of features changed, one sentence a bit: nothing if
    /// nothing was selected.
    ///
    /// # Errors
    /// A feature that was asked for can't be had.
    pub fn effects_of_pv(&self, host: Option<&KvmHost>) -> Result<Vec<String>, CpuidError> {
        if self.pv == Selection::default() {
            return Ok(Vec::new());
        }
        let without = Self {
            pv: Selection::default(),
            ..self.clone()
        };
        let (negotiated, without) = (self.negotiate(host)?, without.negotiate(host)?);
        Ok(cpuid::effects(&negotiated, &self.pv, &without))
    }
}
