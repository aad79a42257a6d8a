//! The machine of a booted guest: memory, interrupt controllers, devices,
//! vCPUs, in the order in which KVM wants them.

use std::sync::Arc;

use cpuid_features::Negotiated;
use hypercall_abi::Enforcement;
use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, Msrs, kvm_msr_entry, kvm_pit_config};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use pv_lock_host::{ApicId, HaltScheduler, Yielding};

use super::RunError;
use crate::backend::kvm::{KvmVcpu, ioctl};
use crate::backend::{BackendError, state};
use crate::boot::{self, format::Format};
use crate::config::{ConfigError, HaltMode, RunConfig};
use crate::cpuid;
use crate::devices::Bus;
use crate::devices::output::Output;
use crate::devices::serial::{COM1_GSI, Com1};
use crate::hypercall::{Calls, Kicks};
use crate::irqchip::kernel::{self, set_register};
use crate::memory::ram::RamLayout;
use crate::stats::StatsFd;
use crate::vcpu::Vcpu;
use crate::vm::{KvmVm, VmSetup};

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

/// A machine that is ready to be started.
#[derive(Debug)]
pub struct Machine {
    /// Its vCPUs.
    pub vcpus: Vec<Vcpu<KvmVcpu>>,
    /// Its scheduler: pause and stop go through it, halts only with
    /// [`HaltMode::Userspace`].
    pub scheduler: HaltScheduler,
    /// The way of a kick from this process.
    pub kicks: Kicks,
    /// KVM's statistics of each vCPU, where KVM has them.
    pub stats: Vec<StatsFd>,
    /// Its serial port.
    pub com1: Com1,
    /// All of its devices.
    pub bus: Arc<Bus>,
    /// What its guest sees of KVM.
    pub offered: Negotiated,
}

impl Machine {
    /// Builds it and loads its guest.
    pub fn build(kvm: &Kvm, config: &RunConfig, output: Output) -> Result<Self, RunError> {
        config.check(kvm.get_max_vcpus())?;
        let ids: Vec<u32> = (0..config.cpus).collect();
        let layout = RamLayout::new(config.memory.bytes());
        let memory = Arc::new(layout.allocate()?);
        let (entry, format) = boot::load(&config.boot, &memory, layout, &ids)?;
        if config.halt == HaltMode::Userspace && !matches!(format, Format::Multiboot(_)) {
            return Err(ConfigError::UserspaceLinux.into());
        }

        let (host, features) = cpuid::supported(kvm)?;
        let way = config.halt.way();
        let support = cpuid::support(way, config.cpus);
        let offered = cpuid::offer(features, &support, &config.pv)?;

        let vm = KvmVm::new(kvm, Arc::clone(&memory), VmSetup::new(way))?;
        let com1 = Com1::new(output).map_err(RunError::io("make a serial port"))?;
        if config.halt == HaltMode::Kernel {
            interrupts(vm.fd(), &com1)?;
        }
        let bus = Arc::new(Bus::pc(com1.clone()));

        let slots: Vec<ApicId> = ids.iter().copied().map(ApicId).collect();
        // It pauses and stops the vCPUs. As far as it knows, one that sleeps in
        // KVM runs: a cap on those that run would count it.
        let (scheduler, parkers) = HaltScheduler::builder()
            .yielding(Yielding::Nothing)
            // Nothing it does depends on their number: do not go and ask.
            .host_cpus(1)
            .build(&slots)
            .map_err(RunError::Scheduler)?;
        let kicks = match config.halt {
            HaltMode::Kernel if config.cpus > kernel::MAX_APIC_ID + 1 => {
                Kicks::Kernel(vm.signals_with_32bit_ids()?)
            }
            HaltMode::Kernel => Kicks::Kernel(vm.signals()),
            HaltMode::Userspace => Kicks::Userspace(scheduler.kicker()),
        };
        let calls = Calls::new(kicks.clone(), &slots);
        let enforcement = Enforcement::Enforced(offered.features);
        let tsc_deadline =
            config.halt == HaltMode::Kernel && kvm.check_extension(Cap::TscDeadlineTimer);
        let mut stats = Vec::new();
        let mut vcpus = Vec::with_capacity(ids.len());
        for (id, parker) in ids.into_iter().zip(parkers) {
            let cpuid = cpuid::for_smp_vcpu(&host, &offered, id, config.cpus, tsc_deadline)?;
            let vcpu = vm.vcpu(id, &cpuid)?;
            memory_types(vcpu.fd())?;
            if config.halt == HaltMode::Kernel {
                local_apic(vcpu.fd())?;
            }
            match StatsFd::of_vcpu(vcpu.fd()) {
                Ok(fd) => stats.push(fd),
                Err(e) if config.stats => return Err(e.into()),
                // Before Linux 5.14, or out of descriptors: nobody asked yet.
                Err(_) => {}
            }
            if id == 0 {
                cpuid::check_kept(&offered, &vcpu.cpuid()?)?;
                state::boot(&vcpu, entry)?;
            }
            let bus = Arc::clone(&bus);
            vcpus.push(Vcpu::new(vcpu, parker, calls.clone(), enforcement, bus));
        }
        Ok(Self {
            vcpus,
            scheduler,
            kicks,
            stats,
            com1,
            bus,
            offered,
        })
    }
}

/// What a PC has beside the interrupt controllers, in KVM; before the first
/// vCPU.
fn interrupts(vm: &VmFd, com1: &Com1) -> Result<(), BackendError> {
    vm.set_tss_address(TSS).map_err(ioctl("KVM_SET_TSS_ADDR"))?;
    // Port 0x61 too: guests look there for the timer's second channel.
    let pit = kvm_pit_config {
        flags: KVM_PIT_SPEAKER_DUMMY,
        ..Default::default()
    };
    vm.create_pit2(pit).map_err(ioctl("KVM_CREATE_PIT2"))?;
    vm.register_irqfd(com1.interrupt(), COM1_GSI)
        .map_err(ioctl("KVM_IRQFD"))
}

/// Memory is write-back, as a BIOS says.
fn memory_types(vcpu: &VcpuFd) -> Result<(), BackendError> {
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

fn local_apic(vcpu: &VcpuFd) -> Result<(), BackendError> {
    let mut lapic = vcpu.get_lapic().map_err(ioctl("KVM_GET_LAPIC"))?;
    set_register(&mut lapic, LVT_LINT0, MODE_EXTINT);
    set_register(&mut lapic, LVT_LINT1, MODE_NMI);
    vcpu.set_lapic(&lapic).map_err(ioctl("KVM_SET_LAPIC"))
}
