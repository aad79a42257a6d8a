//! A snapshot as a file: written as a whole or not at all, opened with checks.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::contents::SavedVm;
use super::error::{Fault, SnapshotError, fault, refused};
use super::memory::{self, MemoryMap, WriteFailure};
use super::preamble::{self, Preamble};
use super::write_out::write_out;
use crate::memory::GuestMemory;

/// What the state's part of the file has.
#[derive(Debug, Deserialize)]
struct State {
    vm: SavedVm,
    memory: MemoryMap,
}

/// The same, borrowed.
#[derive(Serialize)]
struct StateRef<'a> {
    vm: &'a SavedVm,
    memory: &'a MemoryMap,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Length of the file.
    pub bytes: u64,
    /// Length of the state in it.
    pub state_bytes: u64,
}

/// Writes a snapshot of a VM that is paused: [`begin`], and [`Unfinished::finish`].
///
/// # Errors
/// The system refused something, or it was given up. No file is left.
pub fn write(
    path: &Path,
    vm: &SavedVm,
    memory: &GuestMemory,
    give_up: &dyn Fn() -> bool,
) -> Result<Written, SnapshotError> {
    begin(path, vm, memory, give_up)?.finish(give_up)
}

/// Gives the system all of a snapshot of a VM that is paused, which may go on
/// afterwards: it is not on the disk yet, which can take as long again or longer.
/// What fails from then on fails for who asked; the VM needs nothing of the file.
/// `give_up` is asked after each MiB.
///
/// Only its owner may read the file: guest memory has secrets.
///
/// # Errors
/// The system refused something, or it was given up. No file is left.
pub fn begin(
    path: &Path,
    vm: &SavedVm,
    memory: &GuestMemory,
    give_up: &dyn Fn() -> bool,
) -> Result<Unfinished, SnapshotError> {
    let mut unfinished = Unfinished::create(path)?;
    let file = &unfinished.file;
    let (map, state_at) =
        memory::write(file, memory, give_up).map_err(failed(path, "write guest memory"))?;
    let state = StateRef { vm, memory: &map };
    let bytes = postcard::to_stdvec(&state).map_err(SnapshotError::Encode)?;
    let preamble = Preamble {
        state_at,
        state_len: bytes.len() as u64,
        state_crc: crc32fast::hash(&bytes),
    };
    file.write_all_at(&bytes, state_at)
        .and_then(|()| file.write_all_at(&preamble.encode(), 0))
        .map_err(refused(path, "write the state"))?;
    unfinished.map = map;
    unfinished.written = Written {
        bytes: state_at + preamble.state_len,
        state_bytes: preamble.state_len,
    };
    Ok(unfinished)
}

/// For `map_err`: why this file was not written.
fn failed(path: &Path, what: &'static str) -> impl FnOnce(WriteFailure) -> SnapshotError {
    let path = path.to_owned();
    move |failure| match failure {
        WriteFailure::Io(e) => refused(&path, what)(e),
        WriteFailure::Memory(e) => e.into(),
        WriteFailure::GivenUp => SnapshotError::GivenUp(path),
    }
}

/// A file under another name, which goes unless it is finished.
#[derive(Debug)]
pub struct Unfinished {
    file: File,
    name: PathBuf,
    path: PathBuf,
    map: MemoryMap,
    written: Written,
    finished: bool,
}

impl Unfinished {
    fn create(path: &Path) -> Result<Self, SnapshotError> {
        let Some(of) = path.file_name() else {
            let e = io::Error::from(io::ErrorKind::InvalidFilename);
            return Err(refused(path, "be made")(e));
        };
        // Of this write alone, whoever else writes the same snapshot.
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // Relaxed: a number that nobody else has is all there is to it.
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut name = OsString::from(".");
        name.push(of);
        name.push(format!(".{}.{count}.tmp", std::process::id()));
        let name = path.with_file_name(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&name)
            .map_err(refused(path, "make a file beside it"))?;
        Ok(Self {
            file,
            name,
            path: path.to_owned(),
            map: MemoryMap::default(),
            written: Written {
                bytes: 0,
                state_bytes: 0,
            },
            finished: false,
        })
    }

    /// Waits for the disk, and gives the file its name. All of it is on the disk
    /// before it has its name, and the name too before anybody is told; a file that
    /// had it before has it until then. `give_up` is asked several times a second, as far
    /// as the disk is not very slow.
    ///
    /// # Errors
    /// The system refused something, or it was given up. No new file is left, unless
    /// it was the last step, that its name is on the disk too: then the file is whole
    /// and has it.
    pub fn finish(mut self, give_up: &dyn Fn() -> bool) -> Result<Written, SnapshotError> {
        let path = &self.path;
        write_out(&self.file, self.map.pieces(), give_up).map_err(failed(path, "finish it"))?;
        self.file
            .sync_all()
            .and_then(|()| std::fs::rename(&self.name, path))
            .map_err(refused(path, "finish it"))?;
        self.finished = true;
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        // As a directory: the jail lets no other file be opened that is there.
        OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(parent.unwrap_or(Path::new(".")))
            .and_then(|directory| directory.sync_all())
            .map_err(refused(path, "sync its directory"))?;
        Ok(self.written)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            // Whoever drops it has an error to report already.
            let _ = std::fs::remove_file(&self.name);
        }
    }
}

/// A snapshot that was opened: its state is intact and of this version.
#[derive(Clone, Debug)]
pub struct Snapshot {
    path: PathBuf,
    file: Arc<File>,
    state: Arc<State>,
}

impl Snapshot {
    /// Opens it and reads the state; guest memory is neither read nor checked.
    ///
    /// # Errors
    /// It can't be read, or it is no snapshot of this version that is intact.
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        let file = File::open(path).map_err(refused(path, "open it"))?;
        let state = read_state(path, &file)?;
        Ok(Self {
            path: path.to_owned(),
            file: Arc::new(file),
            state: Arc::new(state),
        })
    }

    /// The state.
    pub fn vm(&self) -> &SavedVm {
        &self.state.vm
    }

    /// Bytes of guest memory.
    pub fn memory_bytes(&self) -> u64 {
        self.state.memory.bytes()
    }

    /// Guest memory, mapped: what it has is read when it is used. The file must
    /// stay as it is; a new snapshot of its name is another file.
    ///
    /// # Errors
    /// The mapping was refused.
    pub fn map_memory(&self) -> Result<GuestMemory, SnapshotError> {
        Ok(self.state.memory.map(&self.file)?)
    }

    /// Reads all of guest memory and compares its checksums. `give_up` is asked
    /// after each MiB.
    ///
    /// # Errors
    /// It is damaged, or can't be read.
    pub fn check_memory(&self, give_up: &dyn Fn() -> bool) -> Result<(), SnapshotError> {
        let verified = self.state.memory.verify(&self.file, give_up);
        let verified = verified.map_err(refused(&self.path, "read guest memory"))?;
        verified.map_err(|found| fault(&self.path, found))
    }
}

fn read_state(path: &Path, file: &File) -> Result<State, SnapshotError> {
    let metadata = file.metadata().map_err(refused(path, "look at it"))?;
    if !metadata.is_file() {
        return Err(fault(path, Fault::NoSnapshot));
    }
    let mut page = vec![0; preamble::LEN];
    let read = read_up_to(file, &mut page).map_err(refused(path, "read it"))?;
    page.truncate(read);
    let preamble = Preamble::decode(&page, metadata.len()).map_err(|found| fault(path, found))?;
    // Bounded: the preamble's checks hold it against the file's length and a limit.
    let mut bytes = vec![0; usize::try_from(preamble.state_len).unwrap_or(0)];
    file.read_exact_at(&mut bytes, preamble.state_at)
        .map_err(refused(path, "read the state"))?;
    if crc32fast::hash(&bytes) != preamble.state_crc {
        return Err(fault(path, Fault::State));
    }
    let (state, rest) = postcard::take_from_bytes::<State>(&bytes)
        .map_err(|e| fault(path, Fault::Decode(e.to_string())))?;
    if !rest.is_empty() {
        return Err(fault(path, Fault::Inconsistent("the length of its state")));
    }
    let checked = state.memory.check(preamble.state_at);
    checked.map_err(|found| fault(path, found))?;
    Ok(state)
}

fn read_up_to(file: &File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while let Some(rest) = buffer.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, read as u64) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(read)
}
