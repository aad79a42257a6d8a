//! Boot protocols: from a kernel file to guest memory that is ready and the
//! registers of the first vCPU.
//!
//! | file | protocol | entry |
//! |---|---|---|
//! | bzImage | Linux, 64-bit | long mode, RSI = zero page |
//! | ELF with a Xen PVH note | PVH | 32-bit, EBX = start info |
//! | other x86-64 ELF (vmlinux) | Linux, 64-bit | long mode, RSI = zero page |
//! | multiboot 1, ELF or flat | multiboot | 32-bit, EBX = information |
//!
//! What lies where below 1 MiB:
//!
//! | GPA | what |
//! |---|---|
//! | 0x500 | GDT |
//! | 0x1000 | page tables for long mode: the first GiB one to one |
//! | 0x7000 | zero page or PVH start info |
//! | 0x8000 | lists that these point to: memory map, modules |
//! | 0x20000 | command line |
//! | 0x8e000 | command line of a multiboot kernel, which may lie below itself |
//! | 0x9e000 | multiboot information, and the lists that it points to |
//! | 0xe0000 | ACPI tables |
//! | 0xffff0 | the reset vector |

pub mod acpi;
mod boot_image;
pub mod elf;
mod first_vcpu;
pub mod format;
mod linux;
pub mod multiboot;
pub mod reset_vector;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use vm_memory::{Bytes as _, GuestAddress};

use crate::memory::ram::RamLayout;
use crate::memory::{GuestMemory, MemoryError};
use format::{Format, Unbootable};

pub use boot_image::BootImage;

/// GPA of the GDT.
pub const GDT: u64 = 0x500;
/// GPA of what the kernel is handed: zero page or start info.
pub const INFO: u64 = 0x7000;
/// GPA of the lists that it points to.
pub const LISTS: u64 = 0x8000;
/// GPA of the command line.
pub const CMDLINE: u64 = 0x2_0000;
/// Bytes of a command line, with its NUL, that have room there.
pub const CMDLINE_MAX: usize = 0x1_0000;

const PAGE: u64 = 0x1000;

/// Null, one unused, 64-bit code, data: at the selectors that the Linux boot
/// protocol asks for (`__BOOT_CS` 0x10, `__BOOT_DS` 0x18); then 32-bit code.
const GDT_ENTRIES: [u64; GDT_BYTES as usize / 8] = [
    0,
    0,
    0x00af_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x00cf_9b00_0000_ffff,
];
/// Bytes of the GDT.
pub const GDT_BYTES: u16 = 40;

/// What the first vCPU starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryPoint {
    /// 64-bit mode, the first GiB mapped one to one.
    Bits64 {
        /// Address of the first instruction.
        rip: u64,
        /// GPA of the zero page.
        rsi: u64,
    },
    /// Protected mode without paging.
    Bits32 {
        /// Address of the first instruction.
        eip: u32,
        /// A magic number, or 0.
        eax: u32,
        /// GPA of the information.
        ebx: u32,
    },
}

/// What is to be booted.
#[derive(Clone, Debug)]
pub struct BootSource {
    /// Path of the kernel.
    pub kernel: PathBuf,
    /// Path of an initial RAM disk, or of the module of a multiboot kernel.
    pub initrd: Option<PathBuf>,
    /// The command line.
    pub cmdline: String,
}

/// Why a guest can't be booted: one line that names the file or the option.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The file can't be read.
    #[error("{role} {}: {source}", path.display())]
    File {
        /// `kernel` or `initrd`.
        role: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// The error that the system returned.
        source: io::Error,
    },
    /// A directory, a device, a pipe.
    #[error("{role} {}: not a regular file", path.display())]
    NotAFile {
        /// `kernel` or `initrd`.
        role: &'static str,
        /// Path of the file.
        path: PathBuf,
    },
    /// No kernel, by its looks.
    #[error("kernel {} {reason}", path.display())]
    Format {
        /// Path of the file.
        path: PathBuf,
        /// What it is instead.
        reason: Unbootable,
    },
    /// It looks like a kernel, and is damaged or asks for what is not there.
    #[error("kernel {}: {reason}", path.display())]
    Kernel {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with it.
        reason: KernelError,
    },
    /// No room between the kernel and the end of what it can reach.
    #[error(
        "initrd {}: {bytes} bytes have no room between the kernel's end at {from:#x} and {to:#x}",
        path.display()
    )]
    InitrdSize {
        /// Path of the file.
        path: PathBuf,
        /// Size of the file, in bytes.
        bytes: u64,
        /// Where the kernel ends.
        from: u64,
        /// Where the initrd must end.
        to: u64,
    },
    /// Longer than the kernel, or this VMM, takes.
    #[error("--cmdline: {bytes} bytes, and this kernel takes at most {max}")]
    CmdlineLength {
        /// Length of the command line, in bytes.
        bytes: usize,
        /// The most there may be.
        max: usize,
    },
    /// A NUL would end it.
    #[error("--cmdline: a NUL byte in it")]
    CmdlineNul,
    /// More vCPUs than the ACPI tables have room for.
    #[error("{0} bytes of ACPI tables do not fit below 1 MiB: fewer --cpus")]
    AcpiSize(u64),
    /// Guest memory could not be mapped or written.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

impl From<vm_memory::GuestMemoryError> for BootError {
    fn from(e: vm_memory::GuestMemoryError) -> Self {
        Self::Memory(e.into())
    }
}

/// What is wrong with a kernel file.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// linux-loader's answer.
    #[error("{0}")]
    Loader(#[from] linux_loader::loader::Error),
    /// linux-loader could not write what the kernel is handed.
    #[error("{0}")]
    Configurator(#[from] linux_loader::configurator::Error),
    /// 32-bit, or from before boot protocol 2.12.
    #[error("no 64-bit entry point (boot protocol {}.{:02})", version >> 8, version & 0xff)]
    No64BitEntry {
        /// Of its boot protocol.
        version: u16,
    },
    /// Its file, or what becomes of it when it unpacks itself.
    #[error(
        "it needs memory up to {need:#x}, and below the hole for devices there is RAM up to {have:#x}: more --memory"
    )]
    TooLarge {
        /// Where it ends.
        need: u64,
        /// Where RAM ends.
        have: u64,
    },
    /// A bzImage of which the end is missing.
    #[error("it is cut short: by its header it has at least {need} bytes, and there are {have}")]
    Cut {
        /// Bytes of its setup and of its protected-mode code.
        need: u64,
        /// Bytes of the file.
        have: u64,
    },
    /// A multiboot kernel.
    #[error("{0}")]
    Multiboot(#[from] multiboot::MultibootError),
    /// An ELF kernel.
    #[error("{0}")]
    Elf(#[from] elf::ElfError),
}

/// A file whose size is known.
#[derive(Debug)]
struct Image<'a> {
    role: &'static str,
    path: &'a Path,
    file: File,
    bytes: u64,
}

impl<'a> Image<'a> {
    fn open(role: &'static str, path: &'a Path) -> Result<Self, BootError> {
        let wrap = |source| BootError::File {
            role,
            path: path.to_owned(),
            source,
        };
        // Looked at before it is opened: opening a FIFO would wait.
        let about = path.metadata().map_err(wrap)?;
        if !about.is_file() {
            return Err(BootError::NotAFile {
                role,
                path: path.to_owned(),
            });
        }
        let file = File::open(path).map_err(wrap)?;
        let bytes = file.metadata().map_err(wrap)?.len();
        Ok(Self {
            role,
            path,
            file,
            bytes,
        })
    }

    /// It can't be read.
    fn unreadable(&self, source: io::Error) -> BootError {
        BootError::File {
            role: self.role,
            path: self.path.to_owned(),
            source,
        }
    }

    /// Its first bytes, at most `most`.
    fn start(&self, most: usize) -> Result<Vec<u8>, BootError> {
        let bytes = usize::try_from(self.bytes).map_or(most, |bytes| most.min(bytes));
        let mut start = vec![0; bytes];
        let mut have = 0;
        while let Some(rest) = start.get_mut(have..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, have as u64) {
                Ok(0) => break,
                Ok(n) => have += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.unreadable(e)),
            }
        }
        start.truncate(have);
        Ok(start)
    }

    /// The next `bytes` of it, to `gpa`.
    fn read_to(&mut self, memory: &GuestMemory, gpa: u64, bytes: u64) -> Result<(), BootError> {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        memory
            .read_exact_volatile_from(GuestAddress(gpa), &mut self.file, bytes)
            .map_err(|e| self.unreadable(io::Error::other(e)))
    }
}

/// Loads everything into `memory`, these tables too. Where the first vCPU starts,
/// and what the kernel turned out to be.
pub fn load(
    source: &BootSource,
    memory: &GuestMemory,
    layout: RamLayout,
    tables: &acpi::Tables,
) -> Result<(EntryPoint, Format), BootError> {
    let mut kernel = Image::open("kernel", &source.kernel)?;
    let head = kernel.start(format::HEAD)?;
    let format = Format::of(&head).map_err(|reason| BootError::Format {
        path: source.kernel.clone(),
        reason,
    })?;
    if kernel.bytes > layout.low_end() {
        return Err(source.kernel(KernelError::TooLarge {
            need: kernel.bytes,
            have: layout.low_end(),
        }));
    }
    if source.cmdline.contains('\0') {
        return Err(BootError::CmdlineNul);
    }
    tables.write(memory)?;
    reset_vector::write(memory)?;
    for (gpa, entry) in (GDT..).step_by(8).zip(GDT_ENTRIES) {
        crate::memory::write_word(memory, gpa, entry)?;
    }
    let entry = match format {
        Format::BzImage | Format::Elf => {
            linux::load(source, &mut kernel, format, memory, layout, tables.root())
        }
        Format::Multiboot(header) => {
            let tables = tables.range();
            multiboot::load(source, &mut kernel, header, memory, layout, tables)
        }
    }?;
    if matches!(entry, EntryPoint::Bits64 { .. }) {
        crate::memory::write_page_tables(memory)?;
    }
    Ok((entry, format))
}

impl BootSource {
    fn kernel(&self, reason: impl Into<KernelError>) -> BootError {
        BootError::Kernel {
            path: self.kernel.clone(),
            reason: reason.into(),
        }
    }

    /// Writes the command line to this address, NUL-terminated, of at most `max`
    /// bytes without the NUL.
    fn write_cmdline(&self, memory: &GuestMemory, at: u64, max: usize) -> Result<(), BootError> {
        let max = max.min(CMDLINE_MAX - 1);
        let line = self.cmdline.as_bytes();
        if line.len() > max {
            return Err(BootError::CmdlineLength {
                bytes: line.len(),
                max,
            });
        }
        memory.write_slice(line, GuestAddress(at))?;
        let end = GuestAddress(at + line.len() as u64);
        Ok(memory.write_slice(&[0], end)?)
    }

    /// Loads the initrd as far below `to` as it is long, on a page, and above
    /// `from`. Its GPA and size.
    fn load_initrd(
        &self,
        memory: &GuestMemory,
        from: u64,
        to: u64,
        place: InitrdPlace,
    ) -> Result<Option<(u64, u64)>, BootError> {
        let Some(path) = &self.initrd else {
            return Ok(None);
        };
        let mut image = Image::open("initrd", path)?;
        let start = match place {
            InitrdPlace::High => to.checked_sub(image.bytes).map(|start| start & !(PAGE - 1)),
            InitrdPlace::Low => from.checked_next_multiple_of(PAGE),
        };
        let start = start
            .filter(|&start| {
                start >= from && start.checked_add(image.bytes).is_some_and(|e| e <= to)
            })
            .ok_or_else(|| BootError::InitrdSize {
                path: path.clone(),
                bytes: image.bytes,
                from,
                to,
            })?;
        let bytes = image.bytes;
        image.read_to(memory, start, bytes)?;
        Ok(Some((start, bytes)))
    }
}

/// Where an initrd goes.
#[derive(Clone, Copy, Debug)]
enum InitrdPlace {
    /// As high as it can: Linux unpacks itself above where it was loaded.
    High,
    /// Right behind the kernel.
    Low,
}
