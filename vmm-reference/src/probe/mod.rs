//! What this host offers, found out by running guests, each for a bounded time:
//! on a host without hardware virtualization a VMCALL never completes, and only
//! a signal gets the vCPU back.

mod trial;

use std::fmt::Write as _;

use cpuid_features::{FEATURES, KvmFeatures, Negotiated};
use serde::Serialize;

use crate::backend::BackendError;
use crate::cpuid::CpuidError;
use crate::halt_mode::HaltMode;
use crate::host::{self, HostError, KvmHost, Virtualization};
use crate::jail::{self, JailError, ThreadKind};
use crate::memory::MemoryError;
use crate::signals::ending::Interrupted;
use crate::transport::{HaltKick, Instruction, Transport};
use crate::vm::{VmError, VmSpec};

pub use trial::{Transports, transports};

/// This host's KVM, and what has been found out about it.
#[derive(Debug)]
pub struct ProbedHost {
    /// The host itself.
    pub host: KvmHost,
    /// Its hypercall transports.
    pub transports: Transports,
}

impl ProbedHost {
    /// Finds it out.
    ///
    /// # Errors
    /// A trial failed.
    pub fn probe(host: KvmHost) -> Result<Self, ProbeError> {
        let transports = transports(&host)?;
        Ok(Self { host, transports })
    }
}

/// Why the probe itself failed. No KVM is an answer, not an error.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The main thread can't be put into the jail.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// KVM's CPUID.
    #[error(transparent)]
    Cpuid(#[from] CpuidError),
    /// A test guest's memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A test guest's VM.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// A test guest's vCPU failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The system refused a thread or a signal handler.
    #[error("probe: {0}")]
    System(#[from] std::io::Error),
    /// A signal ended it.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// A test guest did not let its thread go.
    #[error("a test guest's vCPU did not come back from KVM_RUN")]
    Stuck,
}

/// The host's KVM.
#[derive(Clone, Debug, Serialize)]
pub struct KvmReport {
    /// KVM_GET_API_VERSION.
    pub api_version: i32,
    /// `vmx`, `svm`, `pvm` or `unknown`.
    pub vendor: Virtualization,
    /// KVM_CAP_MAX_VCPUS.
    pub max_vcpus: usize,
    /// KVM_CAP_MAX_VCPU_ID.
    pub max_vcpu_id: usize,
}

/// A paravirtual feature on this host.
#[derive(Clone, Debug, Serialize)]
pub struct FeatureReport {
    /// Bit of CPUID 0x40000001 EAX.
    pub bit: u8,
    /// As `--pv` takes it.
    pub name: &'static str,
    /// KVM reports it.
    pub host: bool,
    /// This VMM offers it to a guest whose vCPUs halt in userspace.
    pub offered: bool,
    /// Why it does, or does not.
    pub reason: String,
}

/// What this host offers.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeReport {
    /// Null where there is no KVM.
    pub kvm: Option<KvmReport>,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kvm_error: Option<String>,
    /// CPUs that this process may run on.
    pub host_cpus: usize,
    /// A hypercall instruction comes back with KVM's answer.
    pub vmcall_completes: bool,
    /// The instruction that did.
    pub hypercall_instruction: Option<&'static str>,
    /// KVM turned a hypercall into KVM_EXIT_XEN and took the answer back.
    pub xen_intercept: bool,
    /// The port doorbell brings a hypercall with its registers.
    pub port_doorbell: bool,
    /// HLT comes to userspace without an in-kernel interrupt controller.
    pub hlt_exits: bool,
    /// KVM reports KVM_FEATURE_PV_UNHALT.
    pub pv_unhalt: bool,
    /// Every feature bit.
    pub features: Vec<FeatureReport>,
}

/// Finds it all out.
///
/// # Errors
/// A trial failed.
pub fn probe() -> Result<ProbeReport, ProbeError> {
    match KvmHost::open() {
        Ok(host) => {
            jail::enter(ThreadKind::Builder)?;
            with_kvm(ProbedHost::probe(host)?)
        }
        Err(HostError::Cpuid(e)) => Err(e.into()),
        Err(e) => Ok(without_kvm(&e)),
    }
}

fn without_kvm(why: &HostError) -> ProbeReport {
    ProbeReport {
        kvm: None,
        kvm_error: Some(why.to_string()),
        host_cpus: host::cpus(),
        vmcall_completes: false,
        hypercall_instruction: None,
        xen_intercept: false,
        port_doorbell: false,
        hlt_exits: false,
        pv_unhalt: false,
        features: Vec::new(),
    }
}

fn with_kvm(probed: ProbedHost) -> Result<ProbeReport, ProbeError> {
    let ProbedHost { host, transports } = probed;
    let halt_kick = HaltKick {
        halt: HaltMode::Userspace,
        transport: Transport::Port,
    };
    let offered = VmSpec::bare(2, halt_kick).negotiate(Some(&host))?;
    Ok(ProbeReport {
        kvm: Some(KvmReport {
            api_version: host.kvm.get_api_version(),
            vendor: Virtualization::here(),
            max_vcpus: host.kvm.get_max_vcpus(),
            max_vcpu_id: host.kvm.get_max_vcpu_id(),
        }),
        kvm_error: None,
        host_cpus: host::cpus(),
        vmcall_completes: transports.instruction.is_some(),
        hypercall_instruction: transports.instruction.map(Instruction::name),
        xen_intercept: transports.xen,
        port_doorbell: transports.port,
        hlt_exits: transports.hlt_exits,
        pv_unhalt: host.features.contains(KvmFeatures::PV_UNHALT),
        features: features(host.features, &offered),
    })
}

fn features(host: KvmFeatures, offered: &Negotiated) -> Vec<FeatureReport> {
    FEATURES
        .iter()
        .map(|row| {
            let flag = KvmFeatures::from_bits_retain(1 << row.bit);
            FeatureReport {
                bit: row.bit,
                name: row.name,
                host: host.contains(flag),
                offered: offered.features.contains(flag),
                reason: offered
                    .reason(flag)
                    .map_or_else(String::new, |d| d.reason.to_string()),
            }
        })
        .collect()
}

impl ProbeReport {
    /// For a person.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = match (&self.kvm, &self.kvm_error) {
            (Some(kvm), _) => writeln!(
                out,
                "KVM API {}, {}; at most {} vCPUs a VM, vCPU IDs below {}; {} pCPUs",
                kvm.api_version,
                kvm.vendor.name(),
                kvm.max_vcpus,
                kvm.max_vcpu_id,
                self.host_cpus
            ),
            (None, why) => {
                writeln!(
                    out,
                    "no KVM: {}",
                    why.as_deref().unwrap_or("for no known reason")
                )
            }
        };
        let yes = |value| if value { "yes" } else { "no" };
        for (what, value) in [
            ("hypercall instruction completes", self.vmcall_completes),
            ("Xen intercept (hypercalls exit)", self.xen_intercept),
            ("port doorbell", self.port_doorbell),
            ("HLT exits to userspace", self.hlt_exits),
            ("KVM reports PV_UNHALT", self.pv_unhalt),
        ] {
            let _ = writeln!(out, "  {what:<34} {}", yes(value));
        }
        if !self.features.is_empty() {
            let _ = writeln!(out, "\nbit  feature             host  guest  why");
        }
        for f in &self.features {
            let (host, guest) = (yes(f.host), yes(f.offered));
            let _ = writeln!(
                out,
                "{:>3}  {:<18}  {host:<4}  {guest:<5}  {}",
                f.bit, f.name, f.reason
            );
        }
        out
    }
}
