//! The study's guest, loaded.

use std::sync::Arc;
use std::time::Instant;

use super::clock::HostClock;
use super::code;
use super::layout::{NOTES, WaiterProgram};
use super::machine::WaiterMachine;
use crate::backend::hosted::Program;
use crate::backend::kvm::KvmVcpu;
use crate::backend::{BackendError, GuestImage};
use crate::memory::{GuestMemory, MemoryError};
use crate::payload::image::{self, PARAM_PAGE, result_page};

/// The study's program in the memory of a VM.
#[derive(Debug)]
pub struct WaiterImage {
    memory: Arc<GuestMemory>,
    /// When the hosted guest's clock was 0.
    epoch: Instant,
}

impl WaiterImage {
    /// `program` for `vcpus` vCPUs, whose APIC IDs are their indexes.
    ///
    /// # Errors
    /// The mapping was refused.
    pub fn new(program: &WaiterProgram, vcpus: u32) -> Result<Self, MemoryError> {
        let notes = if program.notes_holds { NOTES } else { 0 };
        let memory = image::build_with(vcpus, code::waiters(), notes)?;
        program.install(&memory, &(0..vcpus).collect::<Vec<u32>>())?;
        Ok(Self {
            memory: Arc::new(memory),
            epoch: Instant::now(),
        })
    }

    /// A clock of the host that ticks as the guest's does: in KVM, or hosted.
    pub fn clock(&self, kvm: bool) -> HostClock {
        if kvm {
            HostClock::Tsc
        } else {
            HostClock::Since(self.epoch)
        }
    }
}

impl GuestImage for WaiterImage {
    fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    fn set_registers(&self, vcpu: &KvmVcpu, index: u32) -> Result<(), BackendError> {
        image::set_registers(vcpu, index, PARAM_PAGE)
    }

    fn program(&self, index: u32) -> Result<Box<dyn Program>, BackendError> {
        let (memory, page) = (Arc::clone(&self.memory), result_page(index));
        Ok(Box::new(WaiterMachine::new(memory, page, self.epoch)?))
    }
}
