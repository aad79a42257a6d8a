//! A booted guest, loaded.

use std::sync::Arc;

use super::acpi::{Hardware, Tables};
use super::format::Format;
use super::{BootError, BootSource, EntryPoint, first_vcpu};
use crate::backend::kvm::KvmVcpu;
use crate::backend::{BackendError, GuestImage};
use crate::memory::GuestMemory;
use crate::memory::ram::RamLayout;

/// A kernel and all that it is handed, in guest memory.
#[derive(Debug)]
pub struct BootImage {
    memory: Arc<GuestMemory>,
    entry: EntryPoint,
    format: Format,
}

impl BootImage {
    /// Loads `source` into `bytes` of memory, for `vcpus` vCPUs whose APIC IDs
    /// are their indexes and whose tables tell of `hardware`.
    ///
    /// # Errors
    /// There is no such memory, or no such kernel.
    pub fn load(
        source: &BootSource,
        bytes: u64,
        vcpus: u32,
        hardware: Hardware,
    ) -> Result<Self, BootError> {
        let layout = RamLayout::new(bytes);
        let memory = layout.allocate()?;
        let apic_ids: Vec<u32> = (0..vcpus).collect();
        let (entry, format) =
            super::load(source, &memory, layout, &Tables::new(&apic_ids, hardware))?;
        Ok(Self {
            memory: Arc::new(memory),
            entry,
            format,
        })
    }

    /// What the kernel turned out to be.
    pub fn format(&self) -> Format {
        self.format
    }
}

impl GuestImage for BootImage {
    fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    fn set_registers(&self, vcpu: &KvmVcpu, index: u32) -> Result<(), BackendError> {
        // The others wait for the first one's INIT and SIPI.
        match index {
            0 => first_vcpu::set(vcpu, self.entry),
            _ => Ok(()),
        }
    }
}
