//! A VM with the lock program in it, on either backend.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vm_memory::{Bytes as _, GuestAddress};

use crate::host::KvmHost;
use crate::memory::{self, GuestMemory, MemoryError};
use crate::payload::image::{LOCK_PAGE, PARAM_PAGE, result_page};
use crate::payload::layout::{lock, param, result};
use crate::payload::lock::{LockImage, LockProgram};
use crate::stats::{KvmStats, StatsError};
use crate::vm::{RunningVm, Vm, VmError, VmParts, VmSpec};

/// Why the guest could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LockVmError {
    /// Its memory could not be made.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Its VM could not be built or started.
    #[error(transparent)]
    Vm(#[from] VmError),
}

/// The VM, running.
#[derive(Debug)]
pub struct LockVm {
    /// Its threads.
    pub running: RunningVm,
    /// What is kept of it.
    pub parts: VmParts,
}

impl LockVm {
    /// Starts `program` in a VM like this; without a host on the hosted backend.
    ///
    /// # Errors
    /// The VM can't be had.
    pub fn start(
        spec: &VmSpec,
        host: Option<&KvmHost>,
        program: &LockProgram,
    ) -> Result<Self, LockVmError> {
        let image = LockImage::new(program, spec.vcpus)?;
        let (running, parts) = Vm::build(spec, host, &image)?.start()?;
        Ok(Self { running, parts })
    }

    /// What the guest reports into.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.parts.memory
    }

    /// What KVM counted of its vCPUs, where there is a KVM that does.
    ///
    /// # Errors
    /// The counters can't be read.
    pub fn kvm_stats(&self) -> Result<Option<KvmStats>, StatsError> {
        // A KVM without them is no reason not to measure.
        let stats = self.parts.stats.as_ref().filter(|s| s.are_complete());
        stats.map(|stats| stats.sums()).transpose()
    }

    /// Asks the guest to leave: running vCPUs see the flag, halted ones are
    /// woken to see it.
    ///
    /// # Errors
    /// The guest's memory ends before the flag.
    pub fn ask_to_leave(&self) -> Result<(), MemoryError> {
        let stop = GuestAddress(PARAM_PAGE + param::STOP);
        // Release, though nothing else is handed over: the flag is read in a
        // loop by the guest, and the kick behind it makes a woken vCPU see it.
        self.memory().store(1u64.to_le(), stop, Ordering::Release)?;
        for &id in &self.parts.apic_ids {
            self.parts.kicks.kick(id);
        }
        Ok(())
    }

    /// The counter that the lock protects.
    ///
    /// # Errors
    /// The guest's memory ends before the counter.
    pub fn counter(&self) -> Result<u64, MemoryError> {
        memory::read_word(self.memory(), LOCK_PAGE + lock::COUNTER)
    }
}

/// What the vCPUs of a guest that has ended wrote into their result pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockResults {
    /// Sum of all vCPUs' critical sections.
    pub acquisitions: u64,
    /// Number of HLTs that the guest executed.
    pub halts: u64,
    /// Number of kicks that the guest issued.
    pub kicks: u64,
    /// Number of kicks that were not answered with 0.
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

impl LockResults {
    /// Sums the result pages of `vcpus` vCPUs.
    pub fn read(memory: &GuestMemory, vcpus: u32) -> Result<Self, MemoryError> {
        let sum = |offset: u64| {
            (0..vcpus).try_fold(0u64, |sum, index| {
                let value = memory::read_word(memory, result_page(index) + offset)?;
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
                let page = result_page(index);
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
