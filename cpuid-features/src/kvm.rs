//! A [`kvm_bindings::CpuId`] as a table of leaves.
//!
//! ```no_run
//! use cpuid_features::{KvmFeatures, Selection, VmmSupport, kvm, negotiate};
//! use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
//!
//! fn set(
//!     kvm_fd: &kvm_ioctls::Kvm,
//!     vcpu: &kvm_ioctls::VcpuFd,
//!     vmm: &VmmSupport,
//!     want: &Selection,
//! ) -> Result<(), Box<dyn std::error::Error>> {
//!     let mut cpuid = kvm_fd.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
//!     let host = kvm::read(&cpuid).map_or(KvmFeatures::empty(), |leaf| leaf.features);
//!     let negotiated = negotiate(host, vmm, want)?;
//!     kvm::write(&mut cpuid, &negotiated)?;
//!     // Before the vCPU first runs.
//!     vcpu.set_cpuid2(&cpuid)?;
//!
//!     // KVM_SET_CPUID2 succeeds and may clear bits: look.
//!     let verified = kvm::verify(&negotiated, &vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES)?);
//!     if !verified.is_exact() {
//!         eprintln!("{verified}");
//!     }
//!     Ok(())
//! }
//! ```

use core::error::Error;
use core::fmt;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};

use crate::dump::DumpEntry;
use crate::leaf::{CpuidReader, CpuidRegs, HYPERVISOR_BASE_STEP, KvmLeaf};
use crate::write::CpuidTable;

pub use crate::verify::{Verified, verify};
pub use crate::write::{write, write_at};

/// Why the leaves could not be written to a [`CpuId`].
pub type WriteError = crate::write::WriteError<TooManyEntries>;

/// This many entries are needed and the list ends at
/// [`KVM_MAX_CPUID_ENTRIES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyEntries(pub usize);

impl fmt::Display for TooManyEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} CPUID entries are needed and the limit is {KVM_MAX_CPUID_ENTRIES}",
            self.0
        )
    }
}

impl Error for TooManyEntries {}

impl CpuidReader for CpuId {
    fn leaf(&self, leaf: u32) -> Option<CpuidRegs> {
        self.as_slice()
            .iter()
            .find(|entry| entry.function == leaf && entry.index == 0)
            .map(|entry| DumpEntry::from(entry).regs)
    }
}

/// Sub-leaves move with their leaves.
impl CpuidTable for CpuId {
    type Error = TooManyEntries;

    fn set_leaf(&mut self, leaf: u32, regs: CpuidRegs) -> Result<(), TooManyEntries> {
        let entry = kvm_cpuid_entry2::from(DumpEntry {
            leaf,
            subleaf: 0,
            regs,
        });
        let mut entries = self.as_mut_slice().iter_mut();
        if let Some(there) = entries.find(|entry| entry.function == leaf && entry.index == 0) {
            *there = entry;
            return Ok(());
        }
        let count = self.as_slice().len() + 1;
        self.push(entry).map_err(|_| TooManyEntries(count))
    }

    fn remove_leaf(&mut self, leaf: u32) {
        self.retain(|entry| entry.function != leaf);
    }

    fn has_leaves(&self, base: u32) -> bool {
        self.as_slice().iter().any(|entry| within(entry, base))
    }

    fn move_leaves(&mut self, from: u32, to: u32) -> Result<(), TooManyEntries> {
        for entry in self.as_mut_slice() {
            if within(entry, from) {
                entry.function = to | (entry.function & (HYPERVISOR_BASE_STEP - 1));
            }
        }
        Ok(())
    }
}

/// Whether `entry` is one of the 0x100 leaves that start at `base`.
fn within(entry: &kvm_cpuid_entry2, base: u32) -> bool {
    entry.function & !(HYPERVISOR_BASE_STEP - 1) == base
}

impl From<&kvm_cpuid_entry2> for DumpEntry {
    fn from(entry: &kvm_cpuid_entry2) -> Self {
        Self {
            leaf: entry.function,
            subleaf: entry.index,
            regs: CpuidRegs {
                eax: entry.eax,
                ebx: entry.ebx,
                ecx: entry.ecx,
                edx: entry.edx,
            },
        }
    }
}

/// A dump does not say whether the sub-leaf is significant: `flags` is 0.
impl From<DumpEntry> for kvm_cpuid_entry2 {
    fn from(entry: DumpEntry) -> Self {
        Self {
            function: entry.leaf,
            index: entry.subleaf,
            eax: entry.regs.eax,
            ebx: entry.regs.ebx,
            ecx: entry.regs.ecx,
            edx: entry.regs.edx,
            ..Self::default()
        }
    }
}

/// KVM's leaves in `cpuid`, be it what `KVM_GET_SUPPORTED_CPUID` reports or
/// what a vCPU has; `None` if no base has the signature.
#[must_use]
pub fn read(cpuid: &CpuId) -> Option<KvmLeaf> {
    KvmLeaf::read(cpuid)
}
