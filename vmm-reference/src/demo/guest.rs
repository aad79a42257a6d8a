//! A VM with the lock program in it, on either backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use cpuid_features::Negotiated;
use hypercall_abi::Enforcement;
use kvm_bindings::CpuId;
use kvm_ioctls::Kvm;
use pv_lock_host::{ApicId, BuildError, HaltScheduler, VcpuParker};
use vm_memory::{Bytes as _, GuestAddress};

use super::{Backend, Policy, YieldChoice};
use crate::backend::hosted::HostedVcpu;
use crate::backend::kvm::KvmVcpu;
use crate::backend::{BackendError, VcpuBackend, state};
use crate::cpuid::{self, CpuidError};
use crate::devices::Bus;
use crate::hypercall::{Calls, Kicks};
use crate::memory::{
    self, CODE, GuestMemory, LOCK_PAGE, LockProgram, MemoryError, PAGE_TABLES, PARAM_PAGE,
};
use crate::payload::layout::{lock, param, result};
use crate::payload::{code, machine::LockMachine};
use crate::stats::{KvmStats, StatsError, StatsFd};
use crate::threads::VcpuThreads;
use crate::vcpu::Vcpu;
use crate::vm::{KvmVm, VmSetup};
use crate::vmm::{Vmm, VmmError};
use crate::way::{Halt, Way};

/// Why the guest could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// Its memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Its CPUID.
    #[error(transparent)]
    Cpuid(#[from] CpuidError),
    /// Its vCPUs.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Its scheduler.
    #[error("halt/kick scheduler: {0}")]
    Scheduler(BuildError),
    /// Its threads.
    #[error(transparent)]
    Vmm(#[from] VmmError),
}

/// The guest, running.
#[derive(Debug)]
pub struct Guest {
    /// Its threads.
    pub vmm: Vmm,
    /// What it reports into.
    pub memory: Arc<GuestMemory>,
    /// TSC ticks a second.
    pub tsc_hz: u64,
    /// vCPUs.
    pub vcpus: u32,
    ids: Vec<ApicId>,
    kicks: Kicks,
    stats: Option<Vec<StatsFd>>,
    // Its slots are read for as long as the threads run.
    _scheduler: HaltScheduler,
}

/// What both backends' guests are made of.
struct Parts<'a> {
    memory: Arc<GuestMemory>,
    offered: &'a Negotiated,
    ids: Vec<ApicId>,
    scheduler: HaltScheduler,
    parkers: Vec<VcpuParker>,
    threads: VcpuThreads,
}

impl Parts<'_> {
    fn vcpus<B: VcpuBackend>(
        &mut self,
        backends: Vec<B>,
        kicks: &Kicks,
    ) -> (Vec<Vcpu<B>>, pv_lock_host::Kicker) {
        let calls = Calls::new(kicks.clone(), &self.ids);
        let enforcement = Enforcement::Enforced(self.offered.features);
        let bus = Arc::new(Bus::default());
        let parkers = std::mem::take(&mut self.parkers);
        let vcpus = backends.into_iter().zip(parkers).map(|(backend, parker)| {
            Vcpu::new(
                backend,
                parker,
                calls.clone(),
                enforcement,
                Arc::clone(&bus),
            )
        });
        (vcpus.collect(), self.scheduler.kicker())
    }

    fn running(self, vmm: Vmm, kicks: Kicks) -> Guest {
        Guest {
            vmm,
            memory: self.memory,
            tsc_hz: NS,
            vcpus: u32::try_from(self.ids.len()).unwrap_or(u32::MAX),
            ids: self.ids,
            kicks,
            stats: None,
            _scheduler: self.scheduler,
        }
    }
}

impl Guest {
    /// Starts `program` on `vcpus` vCPUs that halt and kick by `way`.
    pub fn start(
        backend: &Backend,
        way: Way,
        program: &LockProgram,
        vcpus: u32,
        offered: &Negotiated,
        policy: Policy,
    ) -> Result<Self, GuestError> {
        // Nobody looks at what the IDs mean: an index does for one.
        let ids: Vec<u32> = (0..vcpus).collect();
        let memory = Arc::new(memory::build(vcpus, code::lock())?);
        program.install(&memory, &ids)?;
        let ids: Vec<ApicId> = ids.into_iter().map(ApicId).collect();
        // Each hosted vCPU has a flag in the place of a signal.
        let flags: Vec<_> = match backend {
            Backend::Kvm { .. } => Vec::new(),
            Backend::Hosted => ids.iter().map(|_| Arc::default()).collect(),
        };
        let threads = VcpuThreads::by_flag(flags.clone());
        // As far as the scheduler knows, a vCPU that sleeps in KVM runs: a cap
        // would count it.
        let policy = match way.halt {
            Halt::Userspace => policy,
            Halt::Kernel => Policy {
                yielding: YieldChoice::Nothing,
                ..policy
            },
        };
        let (scheduler, parkers) = policy
            .builder(&threads)
            .build(&ids)
            .map_err(GuestError::Scheduler)?;
        let parts = Parts {
            memory,
            offered,
            ids,
            scheduler,
            parkers,
            threads,
        };
        match backend {
            Backend::Kvm { kvm, cpuid, .. } => Self::on_kvm(kvm, cpuid, way, parts),
            Backend::Hosted => Self::hosted(parts, flags),
        }
    }

    fn on_kvm(
        kvm: &Kvm,
        cpuid: &CpuId,
        way: Way,
        mut parts: Parts<'_>,
    ) -> Result<Self, GuestError> {
        let vm = KvmVm::new(kvm, Arc::clone(&parts.memory), VmSetup::new(way))?;
        let mut ready = Vec::with_capacity(parts.ids.len());
        for (index, id) in (0u32..).zip(&parts.ids) {
            let cpuid = cpuid::for_vcpu(cpuid, parts.offered, id.0)?;
            let vcpu = vm.vcpu(id.0, &cpuid)?;
            let page = memory::result_page(index);
            state::long_mode(&vcpu, PAGE_TABLES, CODE, page, PARAM_PAGE)?;
            if index == 0 {
                cpuid::check_kept(parts.offered, &vcpu.cpuid()?)?;
            }
            ready.push(vcpu);
        }
        let tsc_hz = ready.first().and_then(KvmVcpu::tsc_hz);
        // A KVM without them is no reason not to measure.
        let stats = ready.iter().map(|vcpu| StatsFd::of_vcpu(vcpu.fd()).ok());
        let stats = stats.collect();
        let kicks = match way.halt {
            Halt::Userspace => Kicks::Userspace(parts.scheduler.kicker()),
            Halt::Kernel => Kicks::Kernel(vm.signals()),
        };
        let (vcpus, kicker) = parts.vcpus(ready, &kicks);
        let vmm = Vmm::start(vcpus, kicker, parts.threads.clone())?;
        let mut guest = parts.running(vmm, kicks);
        guest.tsc_hz = tsc_hz.unwrap_or(NS);
        guest.stats = stats;
        Ok(guest)
    }

    fn hosted(mut parts: Parts<'_>, flags: Vec<Arc<AtomicBool>>) -> Result<Self, GuestError> {
        let epoch = Instant::now();
        let mut ready = Vec::with_capacity(parts.ids.len());
        for (index, flag) in (0u32..).zip(flags) {
            let page = memory::result_page(index);
            let machine = LockMachine::new(Arc::clone(&parts.memory), page, epoch)?;
            ready.push(HostedVcpu::new(machine, flag));
        }
        let kicks = Kicks::Userspace(parts.scheduler.kicker());
        let (vcpus, kicker) = parts.vcpus(ready, &kicks);
        let vmm = Vmm::start(vcpus, kicker, parts.threads.clone())?;
        Ok(parts.running(vmm, kicks))
    }

    /// What KVM counted of its vCPUs, where there is a KVM that does.
    pub fn kvm_stats(&self) -> Option<Result<KvmStats, StatsError>> {
        self.stats.as_deref().map(KvmStats::of_vcpus)
    }

    /// Asks the guest to leave: running vCPUs see the flag, halted ones are
    /// woken to see it.
    pub fn ask_to_leave(&self) -> Result<(), MemoryError> {
        let stop = GuestAddress(PARAM_PAGE + param::STOP);
        // Release, though nothing else is handed over: the flag is read in a
        // loop by the guest, and the kick behind it makes a woken vCPU see it.
        self.memory.store(1u64.to_le(), stop, Ordering::Release)?;
        for &id in &self.ids {
            self.kicks.kick(id);
        }
        Ok(())
    }

    /// The counter that the lock protects.
    pub fn counter(&self) -> Result<u64, MemoryError> {
        memory::read_word(&self.memory, LOCK_PAGE + lock::COUNTER)
    }
}

/// Nanoseconds a second: the tick of the hosted backend.
const NS: u64 = 1_000_000_000;

/// What the vCPUs of a guest that has ended wrote into their result pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Results {
    /// Sum of all vCPUs' critical sections.
    pub acquisitions: u64,
    /// HLTs.
    pub halts: u64,
    /// Kicks.
    pub kicks: u64,
    /// Kicks not answered with 0.
    pub kick_errors: u64,
    /// Times mutual exclusion did not hold.
    pub violations: u64,
    /// Ticks that calibration took, summed.
    pub calibration: u64,
    /// Critical sections of the vCPU that had the fewest.
    pub least: u64,
    /// All vCPUs' waits.
    pub histogram: Vec<u64>,
}

impl Results {
    /// Sums the result pages of `vcpus` vCPUs.
    pub fn read(memory: &GuestMemory, vcpus: u32) -> Result<Self, MemoryError> {
        let sum = |offset: u64| {
            (0..vcpus).try_fold(0u64, |sum, index| {
                let value = memory::read_word(memory, memory::result_page(index) + offset)?;
                // The guest wrote it: nothing says that the sum fits.
                Ok::<_, MemoryError>(sum.saturating_add(value))
            })
        };
        let buckets = (0..result::HISTOGRAM_BUCKETS as u64).map(|i| sum(result::HISTOGRAM + 8 * i));
        Ok(Self {
            acquisitions: sum(result::ACQUISITIONS)?,
            halts: sum(result::HALTS)?,
            kicks: sum(result::KICKS)?,
            kick_errors: sum(result::KICK_ERRORS)?,
            violations: sum(result::VIOLATIONS)?,
            calibration: sum(result::CALIBRATION)?,
            least: (0..vcpus).try_fold(u64::MAX, |least, index| {
                let page = memory::result_page(index);
                let own = memory::read_word(memory, page + result::ACQUISITIONS)?;
                Ok::<_, MemoryError>(least.min(own))
            })?,
            histogram: buckets.collect::<Result<_, _>>()?,
        })
    }

    /// The wait, in ticks, that a share `q` of all waits did not exceed.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let total: u64 = self.histogram.iter().sum();
        let rank = (total as f64 * q).ceil().max(1.0);
        let mut seen = 0u64;
        let bucket = self.histogram.iter().position(|&count| {
            seen = seen.saturating_add(count);
            seen as f64 >= rank
        })?;
        Some(result::bucket_limit(bucket))
    }
}
