//! What this host offers, found out by running guests, each for a bounded time:
//! on a host without hardware virtualization a VMCALL never completes, and only
//! a signal gets the vCPU back.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use cpuid_features::{FEATURES, KvmFeatures, Negotiated, Selection};
use kvm_bindings::{KVM_CAP_XEN_HVM, KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL};
use kvm_ioctls::Kvm;
use serde::Serialize;
use vmm_sys_util::signal::Killable as _;

use crate::backend::kvm::{KvmVcpu, ioctl, map_memory};
use crate::backend::{BackendError, Exit, VcpuBackend as _, state};
use crate::cpuid::{self, CpuidError};
use crate::demo::guest::GuestError;
use crate::devices::Bus;
use crate::host::{self, HostError};
use crate::payload::code;
use crate::{memory, signals};

/// A few instructions, even emulated ones, take far less.
const GUEST_LIMIT: Duration = Duration::from_millis(300);
/// Between two signals to a vCPU that does not come back.
const NUDGE_INTERVAL: Duration = Duration::from_millis(5);
/// Signals to a vCPU before it is given up.
const NUDGES: u32 = 200;

/// Why the probe itself failed. No KVM is an answer, not an error.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// KVM's CPUID.
    #[error(transparent)]
    Cpuid(#[from] CpuidError),
    /// A test guest could not be set up.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// A test guest's vCPU failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The system refused a thread or a signal handler.
    #[error("probe: {0}")]
    System(#[from] std::io::Error),
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
    pub vendor: &'static str,
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
    /// Why.
    pub reason: String,
}

/// What this host offers.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeReport {
    /// Null where there is no KVM.
    pub kvm: Option<KvmReport>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kvm_error: Option<String>,
    /// CPUs that this process may run on.
    pub host_cpus: usize,
    /// A hypercall instruction comes back with KVM's answer.
    pub vmcall_completes: bool,
    /// Which one did.
    pub hypercall_instruction: Option<&'static str>,
    /// KVM can turn every hypercall into KVM_EXIT_XEN.
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
pub fn probe() -> Result<ProbeReport, ProbeError> {
    match host::open_kvm() {
        Ok(kvm) => with_kvm(&kvm),
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

fn with_kvm(kvm: &Kvm) -> Result<ProbeReport, ProbeError> {
    signals::install()?;
    let (_, host) = cpuid::supported(kvm)?;
    let offered = cpuid::offer(host, &cpuid::userspace_halts(2), &Selection::default())?;
    let mut instruction = None;
    for (name, code) in [("vmcall", code::vmcall()), ("vmmcall", code::vmmcall())] {
        if run_guest(kvm, &offered, code)?.halted_with == Some(0) {
            instruction = Some(name);
            break;
        }
    }
    let doorbell = run_guest(kvm, &offered, code::doorbell_kick())?;
    let xen = kvm.check_extension_raw(u64::from(KVM_CAP_XEN_HVM));
    Ok(ProbeReport {
        kvm: Some(KvmReport {
            api_version: kvm.get_api_version(),
            vendor: host::vendor(),
            max_vcpus: kvm.get_max_vcpus(),
            max_vcpu_id: kvm.get_max_vcpu_id(),
        }),
        kvm_error: None,
        host_cpus: host::cpus(),
        vmcall_completes: instruction.is_some(),
        hypercall_instruction: instruction,
        xen_intercept: u32::try_from(xen)
            .is_ok_and(|flags| flags & KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL != 0),
        port_doorbell: doorbell.rang && doorbell.halted_with == Some(DOORBELL_ANSWER),
        hlt_exits: doorbell.halted_with.is_some(),
        pv_unhalt: host.contains(KvmFeatures::PV_UNHALT),
        features: features(host, &offered),
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

/// Put into RAX by the probe, to see that it arrives.
const DOORBELL_ANSWER: u64 = 0x5eed;

/// How a test guest ended.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    /// It came to the doorbell.
    rang: bool,
    /// It came to its HLT, with this in RAX.
    halted_with: Option<u64>,
}

/// Runs `code` on one vCPU until it halts, or for [`GUEST_LIMIT`].
fn run_guest(kvm: &Kvm, offered: &Negotiated, code: &[u8]) -> Result<Outcome, ProbeError> {
    let memory = Arc::new(memory::build(1, code).map_err(GuestError::from)?);
    let vm = kvm.create_vm().map_err(ioctl("KVM_CREATE_VM"))?;
    map_memory(&vm, &memory)?;
    let fd = vm.create_vcpu(0).map_err(ioctl("KVM_CREATE_VCPU"))?;
    let (host, _) = cpuid::supported(kvm)?;
    let guest = cpuid::for_vcpu(&host, offered, 0)?;
    let mut vcpu = KvmVcpu::new(fd, memory);
    vcpu.set_cpuid(&guest)?;
    let (rdi, rsi) = (memory::result_page(0), memory::PARAM_PAGE);
    state::long_mode(&vcpu, memory::PAGE_TABLES, memory::CODE, rdi, rsi)?;

    let (report, reports) = channel();
    let (halt, halted) = channel::<()>();
    let thread = std::thread::Builder::new()
        .name("probe".to_string())
        .spawn(move || {
            let bus = Bus::default();
            let mut outcome = Outcome::default();
            let result = loop {
                match vcpu.run(&bus) {
                    Ok(Exit::Doorbell) => {
                        outcome.rang = vcpu.hypercall().is_ok_and(|call| {
                            call.nr == hypercall_abi::KVM_HC_KICK_CPU
                                && call.args.get(1) == Some(&super::payload::ABSENT_APIC_ID.into())
                        });
                        vcpu.set_result(DOORBELL_ANSWER);
                    }
                    Ok(Exit::Halt) => {
                        outcome.halted_with = Some(vcpu.rax());
                        break Ok(outcome);
                    }
                    // Asked to give up: the sender is gone.
                    Ok(_)
                        if halted.try_recv()
                            == Err(std::sync::mpsc::TryRecvError::Disconnected) =>
                    {
                        break Ok(outcome);
                    }
                    Ok(Exit::Shutdown | Exit::Bus(_)) => break Ok(outcome),
                    Ok(Exit::Interrupted) => {}
                    // A host that refuses the instruction does not complete it.
                    Err(BackendError::Internal { .. } | BackendError::Unexpected { .. }) => {
                        break Ok(outcome);
                    }
                    Err(e) => break Err(e),
                }
            };
            // The receiver waits for as long as this thread may take.
            let _ = report.send(result);
        })?;

    let mut result = reports.recv_timeout(GUEST_LIMIT);
    drop(halt);
    for _ in 0..NUDGES {
        if !matches!(result, Err(RecvTimeoutError::Timeout)) {
            break;
        }
        // It fails only for a thread that has just ended.
        let _ = thread.kill(signals::vcpu_signal());
        result = reports.recv_timeout(NUDGE_INTERVAL);
    }
    let outcome = result.map_err(|_| ProbeError::Stuck)??;
    // It has reported: nothing but its return is left.
    let _ = thread.join();
    Ok(outcome)
}

impl ProbeReport {
    /// For a person.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        let _ = match (&self.kvm, &self.kvm_error) {
            (Some(kvm), _) => writeln!(
                out,
                "KVM API {}, {}; at most {} vCPUs a VM, vCPU IDs below {}; {} host CPUs",
                kvm.api_version, kvm.vendor, kvm.max_vcpus, kvm.max_vcpu_id, self.host_cpus
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
            ("Xen door (every hypercall exits)", self.xen_intercept),
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
