//! From a description to a VM that is ready to start. The only place where one
//! is put together.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cpuid_features::{KvmFeatures, Negotiated};
use hypercall_abi::Enforcement;
use kvm_ioctls::Cap;
use pv_lock_host::{ApicId, HaltScheduler, VcpuParker};
use rustix::thread::Pid;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::jailed_threads::JailedThreads;
use super::kvm_vm::KvmVm;
use super::running::RunningVm;
use super::spec::{Platform, VmSpec};
use super::state::{StateInKvm, StateOfVm};
use super::vm_error::system;
use super::{VmError, pc};
use crate::backend::hosted::HostedVcpu;
use crate::backend::kvm::KvmVcpu;
use crate::backend::{BackendError, GuestImage, VcpuBackend};
use crate::cpuid::{self, ApicFeatures};
use crate::devices::Bus;
use crate::devices::output::Output;
use crate::devices::serial::{COM1_GSI, Com1, InterruptLine};
use crate::devices::test_device::{GsiLines, TestDevice};
use crate::halt_mode::HaltMode;
use crate::host::KvmHost;
use crate::hypercall::Calls;
use crate::interrupts::{Controllers, IoApicLine, VcpuApic};
use crate::irqchip::KernelSignals;
use crate::irqchip::userspace::Features;
use crate::kicks::Kicks;
use crate::memory::GuestMemory;
use crate::signals::ending;
use crate::stats::{VcpuCounts, VcpuStats, VmmStats};
use crate::threads::VcpuThreads;
use crate::transport::{HaltKick, Transport};
use crate::vcpu::{Gauge, Vcpu};

/// A VM that is built and not started.
#[derive(Debug)]
pub struct Vm {
    vcpus: Vcpus,
    pub(super) scheduler: Arc<HaltScheduler>,
    threads: VcpuThreads,
    pub(super) parts: VmParts,
}

#[derive(Debug)]
enum Vcpus {
    Kvm(Vec<Vcpu<KvmVcpu>>),
    Hosted(Vec<Vcpu<HostedVcpu>>),
}

/// What the owner of a VM keeps of it while it runs, and afterwards.
#[derive(Debug)]
pub struct VmParts {
    /// Guest memory.
    pub memory: Arc<GuestMemory>,
    /// The features that the guest was offered, with a reason for each bit.
    pub negotiated: Negotiated,
    /// Kicks from the host.
    pub kicks: Kicks,
    /// The APIC IDs of its vCPUs, by index.
    pub apic_ids: Vec<ApicId>,
    /// Its devices.
    pub bus: Arc<Bus>,
    /// Its serial port, if it is a PC.
    pub com1: Option<Com1>,
    /// Its interrupt controllers, if they are this process's.
    controllers: Option<Arc<Controllers>>,
    /// KVM's statistics of its vCPUs. None without KVM.
    pub stats: Option<VcpuStats>,
    /// What this process counts of its vCPUs.
    pub vmm_stats: VmmStats,
    /// Its vCPUs while they run, by index.
    pub gauges: Vec<Arc<Gauge>>,
    /// Ticks of the guest's clock a second: of the TSC, or of the hosted
    /// backend's nanoseconds.
    pub clock_hz: u64,
    /// What else of it goes into a snapshot.
    pub(super) state: StateOfVm,
}

impl VmParts {
    /// Interrupts one vCPU with this vector, as a device's MSI would. Where there are
    /// no interrupt controllers its halt ends as for an interrupt. Whether there is
    /// such a vCPU.
    ///
    /// # Errors
    /// KVM_SIGNAL_MSI failed.
    pub fn interrupt(&self, id: ApicId, vector: u8) -> Result<bool, BackendError> {
        match &self.controllers {
            Some(controllers) => Ok(controllers.interrupt(id, vector)),
            None => self.kicks.interrupt(id, vector),
        }
    }

    /// The threads of its vCPUs, by index, once it was started: those that have
    /// begun within a while.
    pub fn threads(&self) -> Vec<Pid> {
        let limit = Instant::now() + BEGIN_LIMIT;
        let begun = |gauge: &Arc<Gauge>| loop {
            match gauge.thread() {
                None if Instant::now() < limit => std::thread::yield_now(),
                thread => return thread,
            }
        };
        self.gauges.iter().filter_map(begun).collect()
    }
}

/// How long the vCPUs' threads may take to begin.
const BEGIN_LIMIT: Duration = Duration::from_secs(1);
/// Nanoseconds a second.
const NANOS: u64 = 1_000_000_000;

/// What becomes the vCPUs of a VM, and what is known once they exist.
struct Backends<B> {
    vcpus: Vec<B>,
    signals: Option<KernelSignals>,
    com1: Option<Com1>,
    lines: Option<Arc<dyn GsiLines>>,
    stats: Option<VcpuStats>,
    counts: Vec<Arc<VcpuCounts>>,
    clock_hz: u64,
    physical_address_bits: u8,
    own_steal_time: bool,
    kvm: Option<StateInKvm>,
}

impl Vm {
    /// Builds a VM like this for `guest`: on KVM, or without a host on the hosted
    /// backend.
    ///
    /// # Errors
    /// The host can't give what the description says.
    pub fn build(
        spec: &VmSpec,
        host: Option<&KvmHost>,
        guest: &dyn GuestImage,
    ) -> Result<Self, VmError> {
        let negotiated = spec.negotiate(host)?;
        match (host, spec.halt_kick.transport) {
            (Some(host), Transport::Port | Transport::Xen | Transport::Kvm) => {
                let backends = on_kvm(spec, host, guest, &negotiated)?;
                assemble(spec, guest, negotiated, backends, Vcpus::Kvm)
            }
            (None, Transport::Hosted) => {
                let backends = hosted(spec, guest)?;
                assemble(spec, guest, negotiated, backends, Vcpus::Hosted)
            }
            _ => Err(VmError::HostedTransport),
        }
    }

    /// Starts its vCPUs, each on a new thread.
    ///
    /// # Errors
    /// The system refused a thread or an event; none of its threads is left.
    pub fn start(self) -> Result<(RunningVm, VmParts), VmError> {
        let vcpus = match &self.vcpus {
            Vcpus::Kvm(vcpus) => vcpus.len(),
            Vcpus::Hosted(vcpus) => vcpus.len(),
        };
        self.start_on(JailedThreads::spawn(vcpus)?)
    }

    /// Starts its vCPUs on threads that began before it was built. If there are more
    /// or fewer of them than vCPUs, as [`Vm::start`] does.
    ///
    /// # Errors
    /// As those of [`Vm::start`].
    pub fn start_on(self, jailed: JailedThreads) -> Result<(RunningVm, VmParts), VmError> {
        let (scheduler, threads) = (self.scheduler, self.threads);
        let running = match self.vcpus {
            Vcpus::Kvm(vcpus) => RunningVm::start(vcpus, jailed, scheduler, threads),
            Vcpus::Hosted(vcpus) => RunningVm::start(vcpus, jailed, scheduler, threads),
        }?;
        Ok((running, self.parts))
    }

    /// Its parts, before it is started.
    pub fn parts(&self) -> &VmParts {
        &self.parts
    }

    /// Its vCPUs of KVM, for whoever runs them by hand instead of starting it.
    /// None on the hosted backend.
    pub fn into_kvm_vcpus(self) -> Vec<KvmVcpu> {
        // They keep the vCPUs' state within reach.
        drop(self.parts);
        match self.vcpus {
            Vcpus::Kvm(vcpus) => vcpus.into_iter().filter_map(Vcpu::into_backend).collect(),
            Vcpus::Hosted(_) => Vec::new(),
        }
    }
}

/// KVM's part of the VM. The order is KVM's: interrupt controllers before vCPUs,
/// a vCPU's CPUID before its MSRs and registers.
fn on_kvm(
    spec: &VmSpec,
    host: &KvmHost,
    guest: &dyn GuestImage,
    negotiated: &Negotiated,
) -> Result<Backends<KvmVcpu>, VmError> {
    let vm = KvmVm::new(&host.kvm, Arc::clone(guest.memory()), spec)?;
    let is_pc = matches!(spec.platform, Platform::Pc(_));
    let mut com1 = None;
    if is_pc {
        pc::real_mode(vm.fd())?;
    }
    if let (Platform::Pc(output), true) = (&spec.platform, spec.kvm_irqchip()) {
        let irqfd = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(system("make an event"))?;
        pc::interrupts(vm.fd(), &irqfd)?;
        com1 = Some(serial_port(output, Arc::new(irqfd))?);
    }
    let apic = if spec.kvm_irqchip() {
        ApicFeatures::Kernel {
            // The embedded guests have no use for it.
            tsc_deadline: is_pc && host.kvm.check_extension(Cap::TscDeadlineTimer),
        }
    } else if spec.own_irqchip() {
        ApicFeatures::Userspace {
            x2apic: spec.x2apic,
        }
    } else {
        ApicFeatures::None
    };
    let mut vcpus = Vec::new();
    let mut kept = host.cpuid.clone();
    let mut stats = VcpuStats::default();
    for index in 0..spec.vcpus {
        // Thousands of them take their time.
        ending::check()?;
        let cpuid = match &spec.platform {
            Platform::Bare | Platform::BareApics => {
                cpuid::for_vcpu(&host.cpuid, negotiated, index, apic)?
            }
            Platform::Pc(_) => {
                cpuid::for_smp_vcpu(&host.cpuid, negotiated, index, spec.vcpus, apic)?
            }
        };
        let vcpu = vm.vcpu(index, &cpuid)?;
        if apic == ApicFeatures::None {
            vcpu.disable_apic()?;
        }
        if is_pc {
            pc::memory_types(vcpu.fd())?;
            if spec.kvm_irqchip() {
                pc::local_apic(vcpu.fd())?;
            }
        }
        if index == 0 {
            kept = vcpu.cpuid()?;
            cpuid::check_kept(negotiated, &kept)?;
        }
        guest.set_registers(&vcpu, index)?;
        stats.add(vcpu.fd());
        vcpus.push(vcpu);
    }
    Ok(Backends {
        signals: vm.signals()?,
        com1,
        lines: vm.lines(),
        stats: Some(stats),
        counts: vcpus.iter().map(|vcpu| Arc::clone(vcpu.counts())).collect(),
        clock_hz: vcpus.first().and_then(KvmVcpu::tsc_hz).unwrap_or(NANOS),
        physical_address_bits: cpuid::physical_address_bits(&host.cpuid),
        own_steal_time: spec.own_steal_time(&host.kvm),
        kvm: Some(StateInKvm {
            fd: Arc::clone(vm.shared_fd()),
            msrs: host.msrs()?,
            cpuid: kept,
        }),
        vcpus,
    })
}

fn serial_port(output: &Output, line: Arc<dyn InterruptLine>) -> Result<Com1, VmError> {
    Com1::new(output.clone(), line).map_err(system("make a serial port"))
}

fn hosted(spec: &VmSpec, guest: &dyn GuestImage) -> Result<Backends<HostedVcpu>, VmError> {
    let programs = (0..spec.vcpus).map(|index| guest.program(index).map(HostedVcpu::new));
    Ok(Backends {
        vcpus: programs.collect::<Result<_, _>>()?,
        signals: None,
        com1: None,
        lines: None,
        stats: None,
        counts: (0..spec.vcpus).map(|_| Arc::default()).collect(),
        clock_hz: NANOS,
        physical_address_bits: 0,
        own_steal_time: false,
        kvm: None,
    })
}

/// A local APIC that serves what its guest was offered of KVM's own MSRs.
fn served(
    mut apic: VcpuApic,
    negotiated: &Negotiated,
    own_steal_time: bool,
    memory: &Arc<GuestMemory>,
) -> VcpuApic {
    if negotiated.features.contains(KvmFeatures::PV_EOI) {
        apic = apic.with_pv_eoi(Arc::clone(memory));
    }
    if own_steal_time && negotiated.features.contains(KvmFeatures::STEAL_TIME) {
        apic = apic.with_steal_time(Arc::clone(memory));
    }
    apic
}

/// What the VMs of all backends have in common: scheduler, kicks, hypercalls,
/// devices.
fn assemble<B: VcpuBackend + fmt::Debug>(
    spec: &VmSpec,
    guest: &dyn GuestImage,
    negotiated: Negotiated,
    backends: Backends<B>,
    wrap: impl FnOnce(Vec<Vcpu<B>>) -> Vcpus,
) -> Result<Vm, VmError> {
    let apic_ids: Vec<ApicId> = (0..spec.vcpus).map(ApicId).collect();
    let threads = VcpuThreads::new(backends.vcpus.iter().map(VcpuBackend::exit_request));
    let HaltKick { halt, transport } = spec.halt_kick;
    // The policy of one who sees the guest's kicks, and not its halts.
    let seen = halt == HaltMode::Kernel && transport != Transport::Kvm;
    let stats = backends.stats.as_ref().filter(|_| seen);
    let halted = stats.and_then(VcpuStats::blocking_counter);
    let (scheduler, parkers) = spec
        .policy
        .scheduler(halt, halted, &apic_ids)
        .map_err(VmError::Scheduler)?;
    let scheduler = Arc::new(scheduler);
    let kicks = Kicks::new(scheduler.kicker(), backends.signals);
    let (mut com1, mut lines) = (backends.com1, backends.lines);
    let mut controllers = None;
    if spec.own_irqchip() {
        let shared = Controllers::new(&apic_ids, kicks.clone(), threads.clone());
        let shared = Arc::new(shared.map_err(VmError::ApicIds)?);
        if let Platform::Pc(output) = &spec.platform {
            let line = IoApicLine::new(Arc::clone(&shared), COM1_GSI as usize);
            com1 = Some(serial_port(output, Arc::new(line))?);
        }
        lines = Some(Arc::clone(&shared) as Arc<dyn GsiLines>);
        controllers = Some(shared);
    }
    let features = Features {
        x2apic: spec.x2apic,
        physical_address_bits: backends.physical_address_bits,
    };
    let calls = Calls::new(kicks.clone(), &apic_ids)
        .with_map_gpa_range(spec.map_gpa_range)
        .with_controllers(controllers.clone());
    let enforcement = match spec.enforce_features {
        true => Enforcement::Enforced(negotiated.features),
        false => Enforcement::NotEnforced,
    };
    let bus = com1.clone().map_or_else(Bus::default, Bus::pc);
    let lines = lines.filter(|_| spec.test_device);
    let bus = Arc::new(bus.with_test_device(lines.map(TestDevice::new)));
    let mut counts = backends.counts.iter();
    let vcpu = |(backend, parker): (B, VcpuParker)| {
        let (calls, bus) = (calls.clone(), Arc::clone(&bus));
        let apic = controllers
            .as_ref()
            .zip(counts.next().cloned())
            .and_then(|(shared, counts)| {
                VcpuApic::new(Arc::clone(shared), parker.apic_id(), features, counts)
            })
            .map(|apic| match spec.platform {
                Platform::BareApics => apic.started(),
                Platform::Bare | Platform::Pc(_) => apic,
            })
            .map(|apic| served(apic, &negotiated, backends.own_steal_time, guest.memory()));
        let id = parker.apic_id().0;
        let vcpu = Vcpu::new(backend, parker, calls, enforcement, bus);
        let mut vcpu = vcpu.with_apic(apic);
        if let Some(trace) = &spec.trace {
            vcpu.record(trace.recorder(id));
        }
        vcpu
    };
    let vcpus = backends.vcpus.into_iter().zip(parkers).map(vcpu);
    let vcpus: Vec<Vcpu<B>> = vcpus.collect();
    let gauges = vcpus.iter().map(|vcpu| Arc::clone(vcpu.gauge())).collect();
    let processors = vcpus.iter().map(Vcpu::processor).collect();
    Ok(Vm {
        vcpus: wrap(vcpus),
        scheduler: Arc::clone(&scheduler),
        threads,
        parts: VmParts {
            memory: Arc::clone(guest.memory()),
            negotiated,
            kicks,
            apic_ids,
            bus,
            com1,
            controllers: controllers.clone(),
            stats: backends.stats,
            vmm_stats: VmmStats::new(backends.counts, Arc::clone(&scheduler)),
            gauges,
            clock_hz: backends.clock_hz,
            state: StateOfVm {
                machine: spec.saved(),
                processors,
                kvm: backends.kvm,
                controllers,
                test_device: spec.test_device,
            },
        },
    })
}
