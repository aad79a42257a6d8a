//! What can be wrong with a snapshot.

use std::io;
use std::path::{Path, PathBuf};

use crate::memory::MemoryError;

/// Why a snapshot could not be written, opened or used: one line each.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The system refused something.
    #[error("snapshot {}: can't {what}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The error that the system returned.
        source: io::Error,
    },
    /// Another file, or one that is damaged.
    #[error("snapshot {}: {fault}", path.display())]
    Fault {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: Fault,
    },
    /// The state can't be put into bytes: a bug.
    #[error("snapshot: the state can't be written: {0}")]
    Encode(postcard::Error),
    /// A request to end came while it was written, or on its way to the disk; no file
    /// is left.
    #[error("snapshot {}: given up, for this VM is to end", .0.display())]
    GivenUp(PathBuf),
    /// Guest memory can't be read, or the file not be mapped.
    #[error("snapshot: {0}")]
    Memory(#[from] MemoryError),
    /// Another maker of processors: nothing of the state fits.
    #[error("snapshot: the guest ran on a processor of {saved}, this host has one of {here}")]
    Vendor {
        /// The vendor that the guest was shown.
        saved: String,
        /// This host's.
        here: String,
    },
    /// More than KVM takes.
    #[error("snapshot: a CPUID of {0} entries")]
    CpuidSize(usize),
    /// The guest was shown a bit that this host has not.
    #[error(
        "snapshot: the guest was shown bit {bit} of CPUID leaf {leaf:#x}.{subleaf} {register}, \
         which this host's KVM does not support"
    )]
    CpuBit {
        /// The leaf.
        leaf: u32,
        /// Its subleaf.
        subleaf: u32,
        /// `eax`, `ebx`, `ecx` or `edx`.
        register: &'static str,
        /// The bit's number.
        bit: u32,
    },
    /// The guest may use physical addresses that this host has not.
    #[error("snapshot: the guest has {saved} bits of physical address, this host {here}")]
    AddressBits {
        /// Of the guest.
        saved: u8,
        /// Of the host.
        here: u8,
    },
    /// A paravirtual feature that this host does not offer.
    #[error("snapshot: the guest was shown what this host does not offer: {0}")]
    Features(String),
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not one at all.
    #[error("not a snapshot of this program")]
    NoSnapshot,
    /// Made by a program that writes them otherwise.
    #[error("it has version {found} of the format, this program reads version {known}")]
    Version {
        /// Its version.
        found: u32,
        /// The one that is known here.
        known: u32,
    },
    /// The first page is damaged.
    #[error("its first page is damaged (checksum)")]
    Preamble,
    /// The file is shorter or longer than it was.
    #[error("it has {found} bytes of {wanted}")]
    Length {
        /// Bytes that there are.
        found: u64,
        /// Bytes that were written.
        wanted: u64,
    },
    /// The state is damaged.
    #[error("its state is damaged (checksum)")]
    State,
    /// The state's checksum is right, and it is none.
    #[error("its state can't be read: {0}")]
    Decode(String),
    /// Guest memory is damaged.
    #[error("guest memory is damaged at {gpa:#x} (checksum of 1 MiB)")]
    Memory {
        /// Where the damaged MiB begins.
        gpa: u64,
    },
    /// What it says of itself can't be.
    #[error("it contradicts itself: {0}")]
    Inconsistent(&'static str),
}

/// For `map_err`: what the system refused at this file.
pub(super) fn refused(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Io { path, what, source }
}

/// What is wrong with this file.
pub(super) fn fault(path: &Path, fault: Fault) -> SnapshotError {
    let path = path.to_owned();
    SnapshotError::Fault { path, fault }
}
