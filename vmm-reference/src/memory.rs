//! Guest memory: what lies where for the embedded guests.
//!
//! | GPA | what |
//! |---|---|
//! | 0x1000 | PML4, PDPT, PD: the first GiB mapped one to one |
//! | 0x8000 | parameter page |
//! | 0x9000 | lock page |
//! | 0x10000 | code, up to 64 KiB |
//! | 0x20000 | waiter table |
//! | 0x100000 + 0x1000 x index | result page of a vCPU |

pub mod ram;

use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap as Mmap, VolatileSlice,
};

use crate::payload::layout::{param, result, waiter};

/// Guest memory of this VMM: mapped, no dirty log.
pub type GuestMemory = Mmap<()>;

/// PML4 at this GPA, PDPT and PD in the next two pages.
pub const PAGE_TABLES: u64 = 0x1000;
/// GPA of the parameter page.
pub const PARAM_PAGE: u64 = 0x8000;
/// GPA of the lock page.
pub const LOCK_PAGE: u64 = 0x9000;
/// GPA of the code.
pub const CODE: u64 = 0x1_0000;
const CODE_MAX: usize = 0x1_0000;
/// GPA of the waiter table.
pub const WAITERS: u64 = 0x2_0000;
const RESULTS: u64 = 0x10_0000;
const PAGE: u64 = 0x1000;
const LARGE_PAGE: u64 = 0x20_0000;
/// As many vCPUs as the layout has room for, and more than any KVM runs.
pub const MAX_VCPUS: u32 = 4096;

const PRESENT_WRITABLE: u64 = 0b11;
const LARGE: u64 = 1 << 7;

/// Why guest memory could not be made or filled.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The mapping was refused.
    #[error("can't map {bytes} bytes of guest memory: {source}")]
    Map {
        /// Size asked for.
        bytes: u64,
        /// What the mapping said.
        source: vm_memory::mmap::FromRangesError,
    },
    /// An access outside guest memory.
    #[error("guest memory: {0}")]
    Access(#[from] vm_memory::GuestMemoryError),
    /// A program that does not fit its place.
    #[error("a guest program of {0} bytes is larger than {CODE_MAX} bytes")]
    CodeSize(usize),
}

/// GPA of the result page of the vCPU with this index.
pub const fn result_page(index: u32) -> u64 {
    RESULTS + index as u64 * PAGE
}

/// Guest memory for `vcpus` vCPUs with page tables and `code` in place.
pub fn build(vcpus: u32, code: &[u8]) -> Result<GuestMemory, MemoryError> {
    if code.len() > CODE_MAX {
        return Err(MemoryError::CodeSize(code.len()));
    }
    let bytes = result_page(vcpus).next_multiple_of(LARGE_PAGE);
    let memory = usize::try_from(bytes)
        .map_err(|_| vm_memory::mmap::FromRangesError::InvalidGuestRegion)
        .and_then(|len| Mmap::from_ranges(&[(GuestAddress(0), len)]))
        .map_err(|source| MemoryError::Map { bytes, source })?;
    write_page_tables(&memory)?;
    memory.write_slice(code, GuestAddress(CODE))?;
    Ok(memory)
}

/// One PML4 entry, one PDPT entry, 512 large pages.
pub(crate) fn write_page_tables(memory: &GuestMemory) -> Result<(), MemoryError> {
    let (pdpt, pd) = (PAGE_TABLES + PAGE, PAGE_TABLES + 2 * PAGE);
    write_word(memory, PAGE_TABLES, pdpt | PRESENT_WRITABLE)?;
    write_word(memory, pdpt, pd | PRESENT_WRITABLE)?;
    for i in 0..512 {
        write_word(
            memory,
            pd + 8 * i,
            (i * LARGE_PAGE) | LARGE | PRESENT_WRITABLE,
        )?;
    }
    Ok(())
}

/// Writes one 64-bit word.
pub fn write_word(memory: &GuestMemory, gpa: u64, value: u64) -> Result<(), MemoryError> {
    Ok(memory.write_obj(value.to_le(), GuestAddress(gpa))?)
}

/// Reads one 64-bit word.
pub fn read_word(memory: &GuestMemory, gpa: u64) -> Result<u64, MemoryError> {
    Ok(u64::from_le(memory.read_obj(GuestAddress(gpa))?))
}

/// What the lock program is to do, in guest terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockProgram {
    /// One of [`crate::payload::layout::mode`].
    pub mode: u64,
    /// One of [`crate::payload::layout::transport`].
    pub transport: u64,
    /// Spin rounds before HLT.
    pub threshold: u64,
    /// Rounds of work under the lock.
    pub hold: u64,
    /// Rounds of work between two critical sections.
    pub think: u64,
}

impl LockProgram {
    /// Writes the parameter page and each vCPU's APIC ID.
    pub fn install(&self, memory: &GuestMemory, apic_ids: &[u32]) -> Result<(), MemoryError> {
        let entries = apic_ids.len().next_power_of_two() as u64;
        debug_assert!(WAITERS + entries * waiter::SIZE <= RESULTS);
        for (offset, value) in [
            (param::MODE, self.mode),
            (param::THRESHOLD, self.threshold),
            (param::HOLD, self.hold),
            (param::THINK, self.think),
            (param::STOP, 0),
            (param::LOCK, LOCK_PAGE),
            (param::WAITERS, WAITERS),
            (param::WAITER_MASK, entries - 1),
            (param::TRANSPORT, self.transport),
        ] {
            write_word(memory, PARAM_PAGE + offset, value)?;
        }
        for (page, &id) in (0u32..).map(result_page).zip(apic_ids) {
            write_word(memory, page + result::APIC_ID, u64::from(id))?;
        }
        Ok(())
    }
}

/// `len` bytes at `gpa`, for atomics on guest memory.
pub fn slice(
    memory: &GuestMemory,
    gpa: u64,
    len: usize,
) -> Result<VolatileSlice<'_, ()>, MemoryError> {
    Ok(memory.get_slice(GuestAddress(gpa), len)?)
}
