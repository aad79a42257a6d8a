//! A whole VM in a file, and out of it again.
//!
//! ```text
//!  offset 0      preamble, one page: magic, version, where the state is, checksums
//!         4096   guest memory, region after region; pages of zeroes are holes
//!         ...    the state: a SavedVm and the map of the memory, by postcard
//! ```
//!
//! - [`SavedVm`]: the values; who collects them and puts them in is
//!   [`vm`](crate::vm);
//! - `file`: the file as a whole, [`begin`], [`write`](fn@write) and [`Snapshot`];
//! - `preamble`: its first page; `memory`: guest memory in it; `write_out`: its data
//!   on the way to the disk, which can be given up;
//! - [`check_cpu`], [`check_features`]: whether a guest can go on with this host's
//!   processor and KVM;
//! - [`SnapshotError`]: one line for each thing that can be wrong.
//!
//! A file is written under another name and renamed when all of it is on the disk.
//! Whatever is cut or changed in it is found: the preamble and the state by their
//! checksums when the file is opened, the memory by one checksum a MiB in
//! [`Snapshot::check_memory`].

mod contents;
mod cpu;
mod error;
mod file;
mod memory;
mod preamble;
mod write_out;

pub use contents::{SavedCounts, SavedKvm, SavedMachine, SavedPlatform, SavedVm};
pub use cpu::{check_cpu, check_features};
pub use error::SnapshotError;
pub use file::{Snapshot, Unfinished, Written, begin, write};
pub use memory::prepare;
pub use preamble::VERSION;
