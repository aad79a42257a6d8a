//! The lock program as a guest: what it is to do, and its image.

use std::sync::Arc;
use std::time::Instant;

use super::image::{self, LOCK_PAGE, PARAM_PAGE, RESULTS, WAITERS, result_page};
use super::layout::{param, result, waiter};
use super::lock_code;
use super::waiters::machine::WaiterMachine;
use crate::backend::hosted::Program;
use crate::backend::kvm::KvmVcpu;
use crate::backend::{BackendError, GuestImage};
use crate::memory::{self, GuestMemory, MemoryError};

/// What the lock program is to do, in guest terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockProgram {
    /// One of [`mode`](super::layout::mode).
    pub mode: u64,
    /// One of [`issue`](super::layout::issue).
    pub issue: u64,
    /// Spin rounds before HLT.
    pub threshold: u64,
    /// Rounds of work under the lock.
    pub hold: u64,
    /// Rounds of work between two critical sections.
    pub think: u64,
}

impl LockProgram {
    /// Writes the parameter page, and each vCPU's APIC ID and lock.
    ///
    /// # Errors
    /// The memory is not that of an embedded guest with as many vCPUs.
    pub fn install(&self, memory: &GuestMemory, apic_ids: &[u32]) -> Result<(), MemoryError> {
        let entries = apic_ids.len().next_power_of_two() as u64;
        debug_assert!(WAITERS + entries * waiter::SIZE <= RESULTS);
        for (offset, value) in [
            (param::MODE, self.mode),
            (param::THRESHOLD, self.threshold),
            (param::HOLD, self.hold),
            (param::THINK, self.think),
            (param::STOP, 0),
            (param::WAITER_MASK, entries - 1),
            (param::ISSUE, self.issue),
        ] {
            memory::write_word(memory, PARAM_PAGE + offset, value)?;
        }
        for (page, &id) in (0u32..).map(result_page).zip(apic_ids) {
            for (offset, value) in [
                (result::APIC_ID, u64::from(id)),
                (result::LOCK, LOCK_PAGE),
                (result::TABLE, WAITERS),
            ] {
                memory::write_word(memory, page + offset, value)?;
            }
        }
        Ok(())
    }
}

/// The lock program, loaded.
#[derive(Debug)]
pub struct LockImage {
    memory: Arc<GuestMemory>,
    /// When the hosted guest's clock was 0.
    epoch: Instant,
}

impl LockImage {
    /// `program` for `vcpus` vCPUs, whose APIC IDs are their indexes.
    ///
    /// # Errors
    /// The mapping was refused.
    pub fn new(program: &LockProgram, vcpus: u32) -> Result<Self, MemoryError> {
        let memory = image::build(vcpus, lock_code::lock())?;
        program.install(&memory, &(0..vcpus).collect::<Vec<u32>>())?;
        Ok(Self {
            memory: Arc::new(memory),
            epoch: Instant::now(),
        })
    }
}

impl GuestImage for LockImage {
    fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    fn set_registers(&self, vcpu: &KvmVcpu, index: u32) -> Result<(), BackendError> {
        image::set_registers(vcpu, index, PARAM_PAGE)
    }

    fn program(&self, index: u32) -> Result<Box<dyn Program>, BackendError> {
        // Of the study's program the lock program is a part.
        let (memory, page) = (Arc::clone(&self.memory), result_page(index));
        Ok(Box::new(WaiterMachine::new(memory, page, self.epoch)?))
    }
}
