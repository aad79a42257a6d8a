//! Linux: the 64-bit boot protocol (Documentation/arch/x86/boot.rst) and PVH,
//! by linux-loader.

use linux_loader::configurator::{BootConfigurator as _, BootParams};
use linux_loader::configurator::{linux::LinuxBootConfigurator, pvh::PvhBootConfigurator};
use linux_loader::loader::bootparam::boot_params;
use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::elf::start_info::{
    XEN_HVM_START_MAGIC_VALUE, hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use linux_loader::loader::{BzImage, Elf, KernelLoader as _, KernelLoaderResult};
use vm_memory::GuestAddress;

use super::{
    BootError, BootSource, CMDLINE, EntryPoint, INFO, Image, InitrdPlace, KernelError, LISTS,
};
use crate::boot::elf;
use crate::boot::format::{self, Format, word};
use crate::memory::GuestMemory;
use crate::memory::ram::{HIGH_RAM_START, RamLayout};

/// `HdrS`.
const HEADER_MAGIC: u32 = 0x5372_6448;
const BOOT_FLAG: u16 = 0xaa55;
/// The first protocol with `xloadflags`.
const PROTOCOL_2_12: u16 = 0x20c;
/// There is an entry point for 64-bit mode, 0x200 bytes behind the 32-bit one.
const XLF_KERNEL_64: u16 = 1 << 0;
const ENTRY_64_OFFSET: u64 = 0x200;
/// "Undefined" boot loader.
const LOADER_OTHER: u8 = 0xff;
/// What x86 Linux takes (`COMMAND_LINE_SIZE`, less its NUL): an ELF file does
/// not say.
const CMDLINE_X86: usize = 2047;
/// Where an ELF kernel's initrd must end, as a bzImage would say.
const INITRD_MAX: u64 = 0x7fff_ffff;
const ELF_ALIGNMENT: u32 = 0x100_0000;
/// Offset of PVH's module list in the page of lists; before it the memory map.
const MODULES: u64 = 0x800;

pub(super) fn load(
    source: &BootSource,
    kernel: &mut Image,
    format: Format,
    memory: &GuestMemory,
    layout: RamLayout,
    rsdp: u64,
) -> Result<EntryPoint, BootError> {
    if format == Format::BzImage {
        whole(source, kernel)?;
        let file = &mut kernel.file;
        let loaded = BzImage::load(memory, None, file, Some(GuestAddress(HIGH_RAM_START)))
            .map_err(|e| source.kernel(e))?;
        return bzimage(source, &loaded, memory, layout, rsdp);
    }
    // linux-loader copies each segment, however often one is named.
    let headers = kernel.start(elf::HEADERS)?;
    let (segments, _) = elf::read(&headers).map_err(|e| source.kernel(e))?;
    elf::check_notes(&headers).map_err(|e| source.kernel(e))?;
    fits(source, elf::file_bytes(&segments), layout)?;
    let file = &mut kernel.file;
    let loaded = Elf::load(memory, None, file, Some(GuestAddress(HIGH_RAM_START)))
        .map_err(|e| source.kernel(e))?;
    fits(source, loaded.kernel_end, layout)?;
    match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(entry) => {
            pvh(source, entry, loaded.kernel_end, memory, layout, rsdp)
        }
        _ => {
            let mut params = boot_params::default();
            params.hdr.boot_flag = BOOT_FLAG;
            params.hdr.header = HEADER_MAGIC;
            params.hdr.kernel_alignment = ELF_ALIGNMENT;
            let max = INITRD_MAX;
            let end = loaded.kernel_end;
            zero_page(source, params, CMDLINE_X86, end, max, memory, layout, rsdp)?;
            Ok(EntryPoint::Bits64 {
                rip: loaded.kernel_load.0,
                rsi: INFO,
            })
        }
    }
}

/// Whether all of a bzImage is there that its header tells of: a part of it would
/// run until it found out.
fn whole(source: &BootSource, kernel: &Image) -> Result<(), BootError> {
    /// Of a header that says 0, from a time before it said so.
    const OLD_SETUP_SECTORS: u64 = 4;
    const SECTOR: u64 = 512;
    /// The unit of `syssize`.
    const PARAGRAPH: u64 = 16;
    let head = kernel.start(format::HEAD)?;
    let (Some(setup), Some(paragraphs)) = (head.get(0x1f1).copied(), word(&head, 0x1f4)) else {
        // So short that its header is cut: linux-loader says so.
        return Ok(());
    };
    let setup = match u64::from(setup) {
        0 => OLD_SETUP_SECTORS,
        sectors => sectors,
    };
    let need = (setup + 1) * SECTOR + u64::from(paragraphs) * PARAGRAPH;
    match kernel.bytes {
        have if have < need => Err(source.kernel(KernelError::Cut { need, have })),
        _ => Ok(()),
    }
}

fn fits(source: &BootSource, need: u64, layout: RamLayout) -> Result<(), BootError> {
    let have = layout.low_end();
    if need > have {
        return Err(source.kernel(KernelError::TooLarge { need, have }));
    }
    Ok(())
}

fn bzimage(
    source: &BootSource,
    loaded: &KernelLoaderResult,
    memory: &GuestMemory,
    layout: RamLayout,
    rsdp: u64,
) -> Result<EntryPoint, BootError> {
    let header = loaded.setup_header.unwrap_or_default();
    if header.version < PROTOCOL_2_12 || header.xloadflags & XLF_KERNEL_64 == 0 {
        let version = header.version;
        return Err(source.kernel(KernelError::No64BitEntry { version }));
    }
    // It unpacks itself to where it prefers to be, or to where it is.
    let unpacked = header.pref_address.max(loaded.kernel_load.0);
    let end = unpacked
        .saturating_add(u64::from(header.init_size))
        .max(loaded.kernel_end);
    fits(source, end, layout)?;
    let params = boot_params {
        hdr: header,
        ..Default::default()
    };
    let cmdline_max = usize::try_from(header.cmdline_size).unwrap_or(usize::MAX);
    let initrd_max = u64::from(header.initrd_addr_max);
    zero_page(
        source,
        params,
        cmdline_max,
        end,
        initrd_max,
        memory,
        layout,
        rsdp,
    )?;
    Ok(EntryPoint::Bits64 {
        rip: loaded.kernel_load.0 + ENTRY_64_OFFSET,
        rsi: INFO,
    })
}

/// Fills in the boot loader's fields of the kernel's setup header, and writes it.
#[expect(
    clippy::too_many_arguments,
    reason = "one call a kernel format; a struct for it would only rename them"
)]
fn zero_page(
    source: &BootSource,
    mut params: boot_params,
    cmdline_max: usize,
    kernel_end: u64,
    initrd_max: u64,
    memory: &GuestMemory,
    layout: RamLayout,
    rsdp: u64,
) -> Result<(), BootError> {
    source.write_cmdline(memory, CMDLINE, cmdline_max)?;
    params.hdr.type_of_loader = LOADER_OTHER;
    params.hdr.cmd_line_ptr = below_4g(CMDLINE);
    let to = layout.low_end().min(initrd_max.saturating_add(1));
    if let Some((start, bytes)) = source.load_initrd(memory, kernel_end, to, InitrdPlace::High)? {
        params.hdr.ramdisk_image = below_4g(start);
        params.hdr.ramdisk_size = below_4g(bytes);
    }
    params.acpi_rsdp_addr = rsdp;
    let mut entries = 0u8;
    for (to, range) in params.e820_table.iter_mut().zip(layout.map()) {
        to.addr = range.start;
        to.size = range.len;
        to.r#type = range.kind.e820();
        entries += 1;
    }
    params.e820_entries = entries;
    LinuxBootConfigurator::write_bootparams(&BootParams::new(&params, GuestAddress(INFO)), memory)
        .map_err(|e| source.kernel(e))
}

/// PVH (xen/include/public/arch-x86/hvm/start_info.h).
fn pvh(
    source: &BootSource,
    entry: GuestAddress,
    kernel_end: u64,
    memory: &GuestMemory,
    layout: RamLayout,
    rsdp: u64,
) -> Result<EntryPoint, BootError> {
    source.write_cmdline(memory, CMDLINE, CMDLINE_X86)?;
    let to = layout.low_end().min(INITRD_MAX + 1);
    let initrd = source.load_initrd(memory, kernel_end, to, InitrdPlace::High)?;
    let map: Vec<hvm_memmap_table_entry> = layout
        .map()
        .iter()
        .map(|range| hvm_memmap_table_entry {
            addr: range.start,
            size: range.len,
            type_: range.kind.e820(),
            reserved: 0,
        })
        .collect();
    let modules: Vec<hvm_modlist_entry> = initrd
        .map(|(paddr, size)| hvm_modlist_entry {
            paddr,
            size,
            ..Default::default()
        })
        .into_iter()
        .collect();
    let info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: 1,
        nr_modules: u32::from(initrd.is_some()),
        modlist_paddr: if initrd.is_some() { LISTS + MODULES } else { 0 },
        cmdline_paddr: CMDLINE,
        rsdp_paddr: rsdp,
        memmap_paddr: LISTS,
        memmap_entries: below_4g(map.len() as u64),
        ..Default::default()
    };
    let mut params = BootParams::new(&info, GuestAddress(INFO));
    params.set_sections(&map, GuestAddress(LISTS));
    params.set_modules(&modules, GuestAddress(LISTS + MODULES));
    PvhBootConfigurator::write_bootparams(&params, memory).map_err(|e| source.kernel(e))?;
    Ok(EntryPoint::Bits32 {
        eip: below_4g(entry.0),
        eax: 0,
        ebx: below_4g(INFO),
    })
}

/// What is known to be below the hole for devices, in 32 bits.
fn below_4g(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
