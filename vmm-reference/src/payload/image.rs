//! The embedded guests in memory.
//!
//! | GPA | what |
//! |---|---|
//! | 0x1000 | PML4, PDPT, PD: the first GiB mapped one to one |
//! | 0x8000 | parameter page |
//! | 0x9000 | lock page |
//! | 0x10000 | code, up to 64 KiB |
//! | 0x20000 | waiter table; of the study's guest a second one behind it |
//! | 0x100000 + 0x1000 x index | result page of a vCPU |
//! | behind them | what else the study's guest notes |

use std::sync::Arc;

use vm_memory::{Bytes as _, GuestAddress};

use crate::backend::kvm::KvmVcpu;
use crate::backend::{BackendError, GuestImage, long_mode};
use crate::memory::{self, GuestMemory, LARGE_PAGE, MemoryError, PAGE_TABLES};

/// GPA of the parameter page.
pub const PARAM_PAGE: u64 = 0x8000;
/// GPA of the lock page.
pub const LOCK_PAGE: u64 = 0x9000;
/// GPA of the code.
pub const CODE: u64 = 0x1_0000;
const CODE_MAX: usize = 0x1_0000;
/// GPA of the waiter table.
pub const WAITERS: u64 = 0x2_0000;
/// GPA of the first result page.
pub(super) const RESULTS: u64 = 0x10_0000;
const PAGE: u64 = 0x1000;
/// As many vCPUs as the layout has room for, and more than any KVM runs.
pub const MAX_VCPUS: u32 = 4096;

/// GPA of the result page of the vCPU with this index.
pub const fn result_page(index: u32) -> u64 {
    RESULTS + index as u64 * PAGE
}

/// Guest memory for `vcpus` vCPUs with page tables and `code` in place.
///
/// # Errors
/// The mapping was refused, or the code is too long.
pub fn build(vcpus: u32, code: &[u8]) -> Result<GuestMemory, MemoryError> {
    build_with(vcpus, code, 0)
}

/// The same with `room` bytes behind the result pages.
///
/// # Errors
/// The mapping was refused, or the code is too long.
pub fn build_with(vcpus: u32, code: &[u8], room: u64) -> Result<GuestMemory, MemoryError> {
    if code.len() > CODE_MAX {
        return Err(MemoryError::CodeSize {
            bytes: code.len(),
            most: CODE_MAX,
        });
    }
    let end = result_page(vcpus).saturating_add(room);
    let memory = memory::allocate(&[(0, end.next_multiple_of(LARGE_PAGE))])?;
    memory::write_page_tables(&memory)?;
    memory.write_slice(code, GuestAddress(CODE))?;
    Ok(memory)
}

/// Sets the registers that every embedded guest starts with: 64-bit mode at the
/// code, RDI = the vCPU's result page, RSI = `argument`.
///
/// # Errors
/// KVM refused them.
pub fn set_registers(vcpu: &KvmVcpu, index: u32, argument: u64) -> Result<(), BackendError> {
    long_mode::set(vcpu, PAGE_TABLES, CODE, result_page(index), argument)
}

/// An embedded guest that is machine code alone: for measurements and probes.
#[derive(Debug)]
pub struct CodeImage(Arc<GuestMemory>);

impl CodeImage {
    /// `code` for `vcpus` vCPUs.
    ///
    /// # Errors
    /// The mapping was refused, or the code is too long.
    pub fn new(vcpus: u32, code: &[u8]) -> Result<Self, MemoryError> {
        Ok(Self(Arc::new(build(vcpus, code)?)))
    }
}

impl GuestImage for CodeImage {
    fn memory(&self) -> &Arc<GuestMemory> {
        &self.0
    }

    fn set_registers(&self, vcpu: &KvmVcpu, index: u32) -> Result<(), BackendError> {
        set_registers(vcpu, index, PARAM_PAGE)
    }
}
