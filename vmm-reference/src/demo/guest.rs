//! A VM with the lock program in it, on either backend.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use cpuid_features::Negotiated;
use pv_lock_host::{ApicId, BuildError, HaltScheduler, VcpuParker};
use vm_memory::{Bytes as _, GuestAddress};

use super::{Backend, Policy};
use crate::backend::hosted::HostedVcpu;
use crate::backend::kvm::{KvmVcpu, ioctl, map_memory};
use crate::backend::{BackendError, state};
use crate::cpuid::{self, CpuidError};
use crate::devices::Bus;
use crate::hypercall::Calls;
use crate::memory::{
    self, CODE, GuestMemory, LOCK_PAGE, LockProgram, MemoryError, PAGE_TABLES, PARAM_PAGE,
};
use crate::payload::layout::{lock, param, result};
use crate::payload::{code, machine::LockMachine};
use crate::vcpu::Vcpu;
use crate::vmm::{Nudge, Vmm, VmmError};

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
    // Its slots are read for as long as the threads run.
    _scheduler: HaltScheduler,
}

impl Guest {
    /// Starts `program` on `vcpus` vCPUs.
    pub fn start(
        backend: &Backend,
        program: &LockProgram,
        vcpus: u32,
        offered: &Negotiated,
        policy: Policy,
    ) -> Result<Self, GuestError> {
        // No interrupt controller looks at the IDs: an index does for one.
        let ids: Vec<u32> = (0..vcpus).collect();
        let memory = Arc::new(memory::build(vcpus, code::lock())?);
        program.install(&memory, &ids)?;
        let slots: Vec<ApicId> = ids.iter().copied().map(ApicId).collect();
        let (scheduler, parkers) = policy
            .builder()
            .build(&slots)
            .map_err(GuestError::Scheduler)?;
        let calls = Calls::new(scheduler.kicker());
        let bus = Arc::new(Bus::default());
        let vcpu = |backend, parker: VcpuParker| {
            Vcpu::new(
                backend,
                parker,
                calls.clone(),
                offered.features,
                Arc::clone(&bus),
            )
        };
        let (vmm, tsc_hz) = match backend {
            Backend::Kvm { kvm, cpuid, .. } => {
                let vm = kvm.create_vm().map_err(ioctl("KVM_CREATE_VM"))?;
                map_memory(&vm, &memory)?;
                let mut tsc_hz = None;
                let mut ready = Vec::with_capacity(parkers.len());
                for (index, parker) in (0u32..).zip(parkers) {
                    let fd = vm
                        .create_vcpu(u64::from(index))
                        .map_err(ioctl("KVM_CREATE_VCPU"))?;
                    let cpuid = cpuid::for_vcpu(cpuid, offered, index)?;
                    let page = memory::result_page(index);
                    let kvm_vcpu = KvmVcpu::new(fd, Arc::clone(&memory));
                    kvm_vcpu.set_cpuid(&cpuid)?;
                    state::long_mode(&kvm_vcpu, PAGE_TABLES, CODE, page, PARAM_PAGE)?;
                    if index == 0 {
                        cpuid::check_kept(offered, &kvm_vcpu.cpuid()?)?;
                    }
                    tsc_hz = tsc_hz.or_else(|| kvm_vcpu.tsc_hz());
                    ready.push((kvm_vcpu, parker));
                }
                let ready = ready.into_iter().map(|(b, p)| vcpu(b, p)).collect();
                (
                    Vmm::start(ready, scheduler.kicker(), Nudge::Signal)?,
                    tsc_hz.unwrap_or(NS),
                )
            }
            Backend::Hosted => {
                let vcpu = |backend, parker: VcpuParker| {
                    Vcpu::new(
                        backend,
                        parker,
                        calls.clone(),
                        offered.features,
                        Arc::clone(&bus),
                    )
                };
                let epoch = Instant::now();
                let mut flags = Vec::new();
                let mut ready = Vec::with_capacity(parkers.len());
                for (index, parker) in (0u32..).zip(parkers) {
                    let page = memory::result_page(index);
                    let machine = LockMachine::new(Arc::clone(&memory), page, epoch)?;
                    let flag = Arc::new(AtomicBool::new(false));
                    flags.push(Arc::clone(&flag));
                    ready.push(vcpu(HostedVcpu::new(machine, flag), parker));
                }
                (
                    Vmm::start(ready, scheduler.kicker(), Nudge::Flags(flags))?,
                    NS,
                )
            }
        };
        Ok(Self {
            vmm,
            memory,
            tsc_hz,
            vcpus,
            _scheduler: scheduler,
        })
    }

    /// Asks the guest to leave: running vCPUs see the flag, halted ones are
    /// woken to see it.
    pub fn ask_to_leave(&self) -> Result<(), MemoryError> {
        let stop = GuestAddress(PARAM_PAGE + param::STOP);
        // Release, though nothing else is handed over: the flag is read in a
        // loop by the guest, and the kick's RMW behind it makes a woken vCPU
        // see it.
        self.memory.store(1u64.to_le(), stop, Ordering::Release)?;
        self.vmm.kicker().kick_all();
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
