//! Guest memory: words of it, and page tables in it.
//!
//! - [`ram`]: the RAM of a PC, and the map of it that a guest is given.

mod dump;
pub mod ram;

use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap as Mmap, VolatileSlice,
};

/// Guest memory of this VMM: mapped, no dirty log.
pub type GuestMemory = Mmap<()>;

/// GPA of the PML4; PDPT and PD in the next two pages.
pub const PAGE_TABLES: u64 = 0x1000;
const PAGE: u64 = 0x1000;
/// Bytes that an entry of the PD maps.
pub const LARGE_PAGE: u64 = 0x20_0000;

const PRESENT_WRITABLE: u64 = 0b11;
const LARGE: u64 = 1 << 7;

/// Why guest memory could not be made or filled.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The mapping was refused.
    #[error("can't map {bytes} bytes of guest memory: {source}")]
    Map {
        /// Size asked for, in bytes.
        bytes: u64,
        /// The error of the mapping.
        source: vm_memory::mmap::FromRangesError,
    },
    /// An access outside guest memory.
    #[error("guest memory: {0}")]
    Access(#[from] vm_memory::GuestMemoryError),
    /// A program that does not fit its place.
    #[error("a guest program of {bytes} bytes is larger than {most} bytes")]
    CodeSize {
        /// Its size, in bytes.
        bytes: usize,
        /// The most there is room for, in bytes.
        most: usize,
    },
}

/// Maps memory for a guest: ranges of GPA and bytes. Nothing is touched: a page
/// costs when it is used.
///
/// # Errors
/// The mapping was refused.
pub fn allocate(ranges: &[(u64, u64)]) -> Result<GuestMemory, MemoryError> {
    let bytes = ranges.iter().map(|&(_, bytes)| bytes).sum();
    let ranges: Option<Vec<_>> = ranges
        .iter()
        .map(|&(start, len)| Some((GuestAddress(start), usize::try_from(len).ok()?)))
        .collect();
    ranges
        .ok_or(vm_memory::mmap::FromRangesError::InvalidGuestRegion)
        .and_then(|ranges| Mmap::from_ranges(&ranges))
        .map_err(|source| MemoryError::Map { bytes, source })
        .inspect(dump::leave_out)
}

/// The first GiB one to one, by large pages: one PML4 entry, one PDPT entry, 512
/// PD entries at [`PAGE_TABLES`].
///
/// # Errors
/// The guest has no memory there.
pub fn write_page_tables(memory: &GuestMemory) -> Result<(), MemoryError> {
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
///
/// # Errors
/// The guest has no memory there.
pub fn write_word(memory: &GuestMemory, gpa: u64, value: u64) -> Result<(), MemoryError> {
    Ok(memory.write_obj(value.to_le(), GuestAddress(gpa))?)
}

/// Reads one 64-bit word.
///
/// # Errors
/// The guest has no memory there.
pub fn read_word(memory: &GuestMemory, gpa: u64) -> Result<u64, MemoryError> {
    Ok(u64::from_le(memory.read_obj(GuestAddress(gpa))?))
}

/// `len` bytes at `gpa`, for atomics on guest memory.
///
/// # Errors
/// The guest has no memory there.
pub fn slice(
    memory: &GuestMemory,
    gpa: u64,
    len: usize,
) -> Result<VolatileSlice<'_, ()>, MemoryError> {
    Ok(memory.get_slice(GuestAddress(gpa), len)?)
}
