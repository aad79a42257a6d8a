//! Multiboot 1 (the GNU Multiboot Specification 0.6.96): ELF files, and flat
//! images that say in their header where they go. One module.
//!
//! [`plan`] reads the headers and decides; nothing of the guest is touched
//! before all of them are known to be sound. Segments go from the file straight
//! to guest memory, however large they are.
//!
//! A kernel may lie below 1 MiB too, beside what the VMM puts there. That is at the
//! end of the RAM below 640 KiB, for programs of real mode begin low.

use std::ops::Range;

use std::io::{Seek as _, SeekFrom};

use vm_memory::{Bytes as _, GuestAddress};

use super::elf::{self, ElfError, Segment};
use super::format::word;
use super::{BootError, BootSource, CMDLINE_MAX, EntryPoint, GDT, GDT_BYTES, Image, InitrdPlace};
use crate::memory::GuestMemory;
use crate::memory::ram::{HIGH_RAM_START, LOW_RAM_END, RamLayout};

/// In EAX when the kernel starts.
const LOADER_MAGIC: u32 = 0x2bad_b002;
/// Header flags 0 to 15 are demands. Known: 0, modules on pages; 1, memory
/// information; 2, a video mode, which no multiboot loader without a screen
/// gives, and which kernels take as a wish.
const KNOWN_DEMANDS: u32 = 0b111;
const DEMANDS: u32 = 0xffff;
/// The header says where the image goes: no ELF file.
const FLAT: u32 = 1 << 16;

/// Information: what of it is valid.
const INFO_MEMORY: u32 = 1 << 0;
const INFO_CMDLINE: u32 = 1 << 2;
const INFO_MODULES: u32 = 1 << 3;
const INFO_MEMORY_MAP: u32 = 1 << 6;
const INFO_LOADER_NAME: u32 = 1 << 9;
/// Bytes of the information as of version 0.6.96.
const INFO_BYTES: usize = 116;
/// GPA of the information, and in the same page of what it points to.
const INFO: u64 = 0x9_e000;
const MEMORY_MAP: u64 = INFO + 0x100;
const MODULE_LIST: u64 = INFO + 0x800;
const LOADER_NAME: u64 = INFO + 0x900;
const INFO_END: u64 = INFO + 0x1000;
/// GPA of the command line, before it.
const CMDLINE: u64 = INFO - CMDLINE_MAX as u64;
/// A memory map entry, without its own size.
const MAP_ENTRY_BYTES: u32 = 20;

/// What is wrong with a multiboot kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MultibootError {
    /// Flags that this loader does not know.
    #[error("its multiboot header demands what this loader does not know, flags {0:#x}")]
    Demands(u32),
    /// A field, a header or a segment that should be there is not.
    #[error("the file ends in its {0}")]
    Truncated(&'static str),
    /// The addresses in the header contradict each other.
    #[error("the addresses in its multiboot header make no sense")]
    Addresses,
    /// It has no addresses, and is no sound ELF file either.
    #[error("its multiboot header has no load addresses, and {0}")]
    Elf(#[from] ElfError),
    /// Segments that lie over each other, many times.
    #[error("its segments are {bytes} bytes of the file, and RAM ends at {ram_end:#x}")]
    TooLarge {
        /// Bytes of all segments.
        bytes: u64,
        /// Where RAM ends.
        ram_end: u64,
    },
    /// Nothing to load.
    #[error("no segment to load")]
    NoSegment,
    /// A segment that lies where it can't.
    #[error("a segment at {start:#x} to {end:#x}, and RAM for it ends at {ram_end:#x}")]
    Place {
        /// First address.
        start: u64,
        /// Address behind it.
        end: u64,
        /// Where RAM for kernels ends.
        ram_end: u64,
    },
    /// A segment where the VMM puts something itself.
    #[error(
        "a segment at {start:#x} to {end:#x}, over the VMM's own {what} at {from:#x} to {to:#x}"
    )]
    Taken {
        /// First address.
        start: u64,
        /// Address behind it.
        end: u64,
        /// What is there.
        what: &'static str,
        /// Its first address.
        from: u64,
        /// Address behind it.
        to: u64,
    },
    /// An entry point that is in no segment.
    #[error("its entry point {0:#x} is in no segment")]
    EntryPoint(u64),
}

/// Where everything of a kernel goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadPlan {
    /// Its parts.
    pub segments: Vec<Segment>,
    /// Where it starts.
    pub entry: u32,
    /// Behind its last byte of memory.
    pub end: u64,
}

/// What the VMM puts into guest memory itself: where, and what it is.
pub type Taken = (Range<u64>, &'static str);

/// Reads the multiboot header at `header` of a file of `file_bytes` that begins
/// with `head` and decides where its parts go. RAM for it ends at `ram_end`, and these
/// parts of it are `taken`.
///
/// # Errors
/// Whatever the file says, an error or a plan that fits.
pub fn plan(
    head: &[u8],
    file_bytes: u64,
    header: usize,
    ram_end: u64,
    taken: &[Taken],
) -> Result<LoadPlan, MultibootError> {
    let field = |i: usize| {
        header
            .checked_add(4 * i)
            .and_then(|offset| word(head, offset))
            .ok_or(MultibootError::Truncated("multiboot header"))
    };
    let flags = field(1)?;
    let unknown = flags & DEMANDS & !KNOWN_DEMANDS;
    if unknown != 0 {
        return Err(MultibootError::Demands(unknown));
    }
    let (segments, entry) = if flags & FLAT != 0 {
        let addresses = [field(3)?, field(4)?, field(5)?, field(6)?, field(7)?];
        flat(file_bytes, header as u64, addresses)?
    } else {
        elf::read(head)?
    };
    let bytes = elf::file_bytes(&segments);
    if bytes > ram_end {
        return Err(MultibootError::TooLarge { bytes, ram_end });
    }
    for segment in &segments {
        let end = segment.offset.checked_add(segment.file_bytes);
        if end.is_none_or(|end| end > file_bytes) {
            return Err(MultibootError::Truncated("segments"));
        }
        let (start, end) = (segment.gpa, segment.end());
        if end > ram_end {
            return Err(MultibootError::Place {
                start,
                end,
                ram_end,
            });
        }
        let over = |(range, _): &&Taken| start < range.end && range.start < end;
        if let Some((range, what)) = taken.iter().find(over) {
            return Err(MultibootError::Taken {
                start,
                end,
                what,
                from: range.start,
                to: range.end,
            });
        }
    }
    let end = segments
        .iter()
        .map(Segment::end)
        .max()
        .ok_or(MultibootError::NoSegment)?;
    let inside = |s: &Segment| (s.gpa..s.end()).contains(&entry);
    let entry = match u32::try_from(entry) {
        Ok(entry) if segments.iter().any(inside) => entry,
        _ => return Err(MultibootError::EntryPoint(entry)),
    };
    Ok(LoadPlan {
        segments,
        entry,
        end,
    })
}

/// By header_addr, load_addr, load_end_addr, bss_end_addr and entry_addr.
fn flat(
    file_bytes: u64,
    header: u64,
    addresses: [u32; 5],
) -> Result<(Vec<Segment>, u64), MultibootError> {
    let [header_addr, load, load_end, bss_end, entry] = addresses.map(u64::from);
    // The header says where in memory it is itself: the file begins as far below.
    let before_header = header_addr
        .checked_sub(load)
        .ok_or(MultibootError::Addresses)?;
    let offset = header
        .checked_sub(before_header)
        .ok_or(MultibootError::Addresses)?;
    let bytes = match load_end {
        0 => file_bytes.checked_sub(offset),
        end => end.checked_sub(load),
    }
    .ok_or(MultibootError::Addresses)?;
    let memory_bytes = match bss_end {
        0 => bytes,
        end => end
            .checked_sub(load)
            .filter(|&all| all >= bytes)
            .ok_or(MultibootError::Addresses)?,
    };
    let segment = Segment {
        offset,
        file_bytes: bytes,
        gpa: load,
        memory_bytes,
    };
    Ok((vec![segment], entry))
}

pub(super) fn load(
    source: &BootSource,
    kernel: &mut Image,
    header: usize,
    memory: &GuestMemory,
    layout: RamLayout,
    tables: Range<u64>,
) -> Result<EntryPoint, BootError> {
    let head = kernel.start(elf::HEADERS)?;
    // With its NUL; one that is too long is refused below.
    let cmdline_end = CMDLINE + (source.cmdline.len() + 1).min(CMDLINE_MAX) as u64;
    let taken = [
        (GDT..GDT + u64::from(GDT_BYTES), "GDT"),
        (CMDLINE..cmdline_end, "command line"),
        (INFO..INFO_END, "multiboot information"),
        (tables, "ACPI tables"),
    ];
    let plan = plan(&head, kernel.bytes, header, layout.low_end(), &taken)
        .map_err(|e| source.kernel(e))?;
    for segment in &plan.segments {
        let from = SeekFrom::Start(segment.offset);
        let sought = kernel.file.seek(from);
        sought.map_err(|e| kernel.unreadable(e))?;
        // What is beyond the file's bytes is zero: nobody has written there, but
        // for another segment.
        kernel.read_to(memory, segment.gpa, segment.file_bytes)?;
    }
    source.write_cmdline(memory, CMDLINE, usize::MAX)?;
    let behind = plan.end.max(HIGH_RAM_START);
    let module = source.load_initrd(memory, behind, layout.low_end(), InitrdPlace::Low)?;
    write_info(memory, layout, module)?;
    Ok(EntryPoint::Bits32 {
        eip: plan.entry,
        eax: LOADER_MAGIC,
        ebx: low(INFO),
    })
}

/// The information structure and what it points to.
fn write_info(
    memory: &GuestMemory,
    layout: RamLayout,
    module: Option<(u64, u64)>,
) -> Result<(), BootError> {
    let mut map = Vec::new();
    for range in layout.map() {
        map.extend(MAP_ENTRY_BYTES.to_le_bytes());
        map.extend(range.start.to_le_bytes());
        map.extend(range.len.to_le_bytes());
        map.extend(range.kind.e820().to_le_bytes());
    }
    memory.write_slice(&map, GuestAddress(MEMORY_MAP))?;
    memory.write_slice(b"vmm-reference\0", GuestAddress(LOADER_NAME))?;
    if let Some((start, bytes)) = module {
        // Start, end, string, reserved. The string is empty: the map's end.
        let list = [low(start), low(start + bytes), low(LOADER_NAME + 13), 0];
        let list: Vec<u8> = list.iter().flat_map(|word| word.to_le_bytes()).collect();
        memory.write_slice(&list, GuestAddress(MODULE_LIST))?;
    }
    let modules = if module.is_some() { INFO_MODULES } else { 0 };
    let mut info = [0u8; INFO_BYTES];
    let fields = [
        (
            0,
            INFO_MEMORY | INFO_CMDLINE | INFO_MEMORY_MAP | INFO_LOADER_NAME | modules,
        ),
        // KiB below 640 KiB, and from 1 MiB on.
        (4, low(LOW_RAM_END >> 10)),
        (8, low((layout.low_end() - HIGH_RAM_START) >> 10)),
        (16, low(CMDLINE)),
        (20, u32::from(module.is_some())),
        (24, low(MODULE_LIST)),
        (44, low(map.len() as u64)),
        (48, low(MEMORY_MAP)),
        (64, low(LOADER_NAME)),
    ];
    for (offset, value) in fields {
        if let Some(to) = info.get_mut(offset..offset + 4) {
            to.copy_from_slice(&value.to_le_bytes());
        }
    }
    Ok(memory.write_slice(&info, GuestAddress(INFO))?)
}

/// What is known to be below the hole for devices, in 32 bits.
fn low(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
