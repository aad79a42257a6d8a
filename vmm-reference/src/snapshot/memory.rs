//! Guest memory in a file: sparse, with a checksum a MiB, and mapped lazily.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, OnceLock};

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use serde::{Deserialize, Serialize};
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend as _, GuestMemoryRegion as _, GuestRegionMmap,
    MemoryRegionAddress, MmapRegion,
};

use super::error::Fault;
use super::preamble;
use crate::memory::{GuestMemory, MemoryError};

const PAGE: usize = 4096;
/// What one checksum is for: small enough that a damaged place is named, large
/// enough that the checksums of a TiB are 4 MiB.
const CHUNK: usize = 1 << 20;
/// A PC has two.
const REGIONS_MAX: usize = 16;

/// Where guest memory is in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MemoryMap {
    regions: Vec<Region>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Region {
    gpa: u64,
    len: u64,
    /// In the file.
    offset: u64,
    /// CRC-32 of each MiB; none: zeroes, and a hole.
    checksums: Vec<Option<u32>>,
}

/// Why memory was not written.
#[derive(Debug)]
pub(super) enum WriteFailure {
    Io(std::io::Error),
    Memory(MemoryError),
    GivenUp,
}

/// Writes `memory` behind the preamble; where it is, and where it ends. `pages`
/// says which of it has never been used; `give_up` is asked after each MiB.
///
/// No vCPU runs meanwhile.
pub(super) fn write(
    file: &File,
    memory: &GuestMemory,
    give_up: &dyn Fn() -> bool,
) -> Result<(MemoryMap, u64), WriteFailure> {
    let used = UsedPages::open();
    let mut map = MemoryMap::default();
    let mut offset = preamble::LEN as u64;
    let mut buffer = vec![0; CHUNK];
    for region in memory.iter() {
        let len = region.len();
        let mut checksums = Vec::new();
        let mut at = 0;
        while at < len {
            if give_up() {
                return Err(WriteFailure::GivenUp);
            }
            let size = usize::try_from(len - at).map_or(CHUNK, |left| left.min(CHUNK));
            let chunk = buffer.get_mut(..size).unwrap_or_default();
            checksums.push(if used.any(region, at, size) {
                read(region, at, chunk).map_err(WriteFailure::Memory)?;
                write_chunk(file, chunk, offset + at).map_err(WriteFailure::Io)?
            } else {
                None
            });
            at += size as u64;
        }
        map.regions.push(Region {
            gpa: region.start_addr().0,
            len,
            offset,
            checksums,
        });
        offset += len;
    }
    Ok((map, offset))
}

fn read(region: &GuestRegionMmap, at: u64, chunk: &mut [u8]) -> Result<(), MemoryError> {
    let slice = region.get_slice(MemoryRegionAddress(at), chunk.len())?;
    slice.copy_to(chunk);
    Ok(())
}

/// Writes what is not zero of it; its checksum, if there is anything.
fn write_chunk(file: &File, chunk: &[u8], offset: u64) -> std::io::Result<Option<u32>> {
    let mut written = false;
    let mut at = offset;
    for run in chunk.chunks(PAGE).collect::<Vec<_>>().chunk_by(same_kind) {
        let len: usize = run.iter().map(|page| page.len()).sum();
        if run.first().is_some_and(|page| !is_zero(page)) {
            let begin = usize::try_from(at - offset).unwrap_or(usize::MAX);
            let bytes = chunk.get(begin..begin + len).unwrap_or_default();
            file.write_all_at(bytes, at)?;
            written = true;
        }
        at += len as u64;
    }
    Ok(written.then(|| crc32fast::hash(chunk)))
}

fn same_kind(a: &&[u8], b: &&[u8]) -> bool {
    is_zero(a) == is_zero(b)
}

fn is_zero(page: &[u8]) -> bool {
    page.iter().all(|&byte| byte == 0)
}

impl MemoryMap {
    /// Whether it can be one of a file whose state begins at `end`.
    pub(super) fn check(&self, end: u64) -> Result<(), Fault> {
        let wrong = |what| Err(Fault::Inconsistent(what));
        if self.regions.is_empty() || self.regions.len() > REGIONS_MAX {
            return wrong("the number of its memory's regions");
        }
        let (mut offset, mut free) = (preamble::LEN as u64, 0);
        for region in &self.regions {
            let Region { gpa, len, .. } = *region;
            let Some(after) = gpa.checked_add(len) else {
                return wrong("the place of its memory");
            };
            let paged = (gpa | len) % PAGE as u64 == 0;
            if len == 0 || gpa < free || !paged || region.offset != offset {
                return wrong("the place of its memory");
            }
            if region.checksums.len() as u64 != len.div_ceil(CHUNK as u64) {
                return wrong("the number of its memory's checksums");
            }
            (offset, free) = (offset.saturating_add(len), after);
        }
        if offset != end {
            return wrong("the size of its memory");
        }
        Ok(())
    }

    /// Where in the file there is anything, at most a MiB each.
    pub(super) fn pieces(&self) -> impl Iterator<Item = Range<u64>> {
        self.regions.iter().flat_map(|region| {
            let places = (0..region.len).step_by(CHUNK).zip(&region.checksums);
            let written = places.filter(|(_, checksum)| checksum.is_some());
            written.map(|(at, _)| {
                let end = region.len.min(at + CHUNK as u64);
                region.offset + at..region.offset + end
            })
        })
    }

    /// Bytes of guest memory.
    pub(super) fn bytes(&self) -> u64 {
        self.regions.iter().map(|region| region.len).sum()
    }

    /// Maps it, to be read as the guest needs it; what the guest writes does not
    /// reach the file.
    pub(super) fn map(&self, file: &Arc<File>) -> Result<GuestMemory, MemoryError> {
        let refused = |source| MemoryError::Map {
            bytes: self.bytes(),
            source,
        };
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let regions = self.regions.iter().map(|region| {
            let place = FileOffset::from_arc(Arc::clone(file), region.offset);
            let len = usize::try_from(region.len)
                .map_err(|_| vm_memory::mmap::FromRangesError::InvalidGuestRegion)?;
            let (prot, flags) = (prot.bits().cast_signed(), flags.bits().cast_signed());
            let mapped = MmapRegion::build(Some(place), len, prot, flags)
                .map_err(vm_memory::mmap::FromRangesError::MmapRegion)?;
            GuestRegionMmap::new(mapped, GuestAddress(region.gpa))
                .ok_or(vm_memory::mmap::FromRangesError::InvalidGuestRegion)
        });
        let regions: Vec<_> = regions.collect::<Result<_, _>>().map_err(refused)?;
        GuestMemory::from_regions(regions).map_err(|e| refused(e.into()))
    }

    /// Reads all of it and compares checksums; `give_up` is asked after each MiB.
    pub(super) fn verify(
        &self,
        file: &File,
        give_up: &dyn Fn() -> bool,
    ) -> std::io::Result<Result<(), Fault>> {
        let mut buffer = vec![0; CHUNK];
        for region in &self.regions {
            for (at, checksum) in (0..region.len).step_by(CHUNK).zip(&region.checksums) {
                if give_up() {
                    return Ok(Ok(()));
                }
                let size = usize::try_from(region.len - at).map_or(CHUNK, |left| left.min(CHUNK));
                let offset = region.offset + at;
                let chunk = buffer.get_mut(..size).unwrap_or_default();
                if checksum.is_none() && is_hole(file, offset, size) {
                    continue;
                }
                file.read_exact_at(chunk, offset)?;
                let intact = match checksum {
                    Some(checksum) => crc32fast::hash(chunk) == *checksum,
                    None => is_zero(chunk),
                };
                if !intact {
                    let gpa = region.gpa + at;
                    return Ok(Err(Fault::Memory { gpa }));
                }
            }
        }
        Ok(Ok(()))
    }
}

/// Whether there is no data at all, as the file system says. One that has no holes
/// says that all is data.
fn is_hole(file: &File, offset: u64, size: usize) -> bool {
    match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(data) => data >= offset + size as u64,
        Err(e) => e == Errno::NXIO,
    }
}

/// Which pages of this process's anonymous memory were ever used: what was not
/// reads as zeroes, and reading it would map a page for each.
#[derive(Clone, Copy)]
struct UsedPages(Option<&'static File>);

/// Opens what a [`write`] needs of the system besides its file. In the jail it can't
/// be opened any more, and without it all memory is read, and so comes to be used.
pub fn prepare() {
    UsedPages::open();
}

impl UsedPages {
    /// The process's, opened at the first use.
    fn open() -> Self {
        static PAGEMAP: OnceLock<Option<File>> = OnceLock::new();
        // Where it is not to be had all pages count as used.
        let pagemap = PAGEMAP.get_or_init(|| File::open("/proc/self/pagemap").ok());
        Self(pagemap.as_ref())
    }

    fn any(&self, region: &GuestRegionMmap, at: u64, size: usize) -> bool {
        /// Bits 63 and 62: present, swapped out
        /// (Documentation/admin-guide/mm/pagemap.rst).
        const USED: u64 = 0b11 << 62;
        // Of a mapped file, what is not present is in the file.
        let (Some(pagemap), None) = (self.0, region.file_offset()) else {
            return true;
        };
        let entry = size_of::<u64>();
        let mut entries = [0; CHUNK / PAGE * size_of::<u64>()];
        let page = (region.as_ptr() as u64 + at) / PAGE as u64;
        let wanted = size.div_ceil(PAGE) * entry;
        let Some(entries) = entries.get_mut(..wanted) else {
            return true;
        };
        if pagemap.read_exact_at(entries, page * entry as u64).is_err() {
            return true;
        }
        let (entries, _) = entries.as_chunks::<8>();
        entries
            .iter()
            .any(|entry| u64::from_le_bytes(*entry) & USED != 0)
    }
}
