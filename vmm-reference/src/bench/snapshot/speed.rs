//! How long a snapshot and a restore take, beside the bare writing and mapping of
//! the same bytes.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::mm::{MapFlags, ProtFlags};
use serde::Serialize;
use vm_memory::{Bytes as _, FileOffset, GuestAddress, MmapRegion};

use super::rounds::RoundsError;
use crate::backend::kvm::KvmVcpu;
use crate::backend::{BackendError, GuestImage};
use crate::bench::quantile;
use crate::devices::output::Output;
use crate::halt_mode::HaltMode;
use crate::host::KvmHost;
use crate::jail::{self, ThreadKind};
use crate::memory::{self, GuestMemory, MemoryError};
use crate::payload::image::{self, CODE, PARAM_PAGE};
use crate::policy::Policy;
use crate::signals::ending;
use crate::snapshot::{self, Snapshot};
use crate::transport::{HaltKick, Transport};
use crate::vm::{Restore, RunningVm, Vm, VmParts, VmSpec};

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct SpeedRow {
    /// What was done: `write` and `mmap` are bare; `snapshot` is beside the first, and
    /// so is `pause`, which is how long the guest stands still for it; `restore` is
    /// beside `start` (a new VM of that size) and `mmap` together.
    pub name: &'static str,
    /// How often it was measured.
    pub count: usize,
    /// Median, in milliseconds.
    pub p50_ms: f64,
    /// The fastest.
    pub least_ms: f64,
    /// The medians' ratio, to what it is beside.
    pub ratio: f64,
}

/// Counts at RSI + 8 for ever: `inc qword ptr [rsi + 8]; jmp`.
const COUNTS: &[u8] = &[0x48, 0xff, 0x46, 0x08, 0xeb, 0xfa];
const COUNTER: GuestAddress = GuestAddress(PARAM_PAGE + 8);
/// Where its memory is filled: behind what every embedded guest has.
const FILLED: u64 = 2 << 20;
const PIECE: usize = 1 << 20;
const LIMIT: Duration = Duration::from_secs(20);

/// Measures all rows with a VM of so much memory, all of it in use, `turns` times
/// in turns; files are in `directory`.
///
/// # Errors
/// There is no KVM, or the system refused something.
pub fn measure(bytes: u64, turns: usize, directory: &Path) -> Result<Vec<SpeedRow>, RoundsError> {
    let host = KvmHost::open()?;
    jail::enter(ThreadKind::Saver)?;
    let files = Files::new(directory);
    let (running, parts) = started(&host, bytes)?;
    let handle = running.handle();
    let mut times: [Vec<f64>; 6] = Default::default();
    let [write, pause, save, map, start, restore] = &mut times;
    // Its vCPU runs beside none of what is measured.
    handle.pause()?;
    for _ in 0..turns {
        // Nor is an older file to be freed meanwhile.
        files.remove();
        ending::check()?;
        write.push(bare_write(&files.bare, bytes).map_err(system)?);
        let begin = Instant::now();
        let saved = parts.save(&handle)?;
        let unfinished =
            snapshot::begin(&files.snapshot, &saved, &parts.memory, &ending::is_asked)?;
        pause.push(millis(begin));
        unfinished.finish(&ending::is_asked)?;
        save.push(millis(begin));
        map.push(bare_map(&files.bare, bytes)?);
        let begin = Instant::now();
        let (fresh, fresh_parts) = fresh(&host, bytes)?;
        runs(&fresh_parts, 0)?;
        start.push(millis(begin));
        fresh.stop()?;
        let begin = Instant::now();
        let (again, again_parts, counter) = restored(&host, &files.snapshot)?;
        runs(&again_parts, counter)?;
        restore.push(millis(begin));
        again.stop()?;
    }
    running.stop()?;
    for times in &mut times {
        times.sort_by(f64::total_cmp);
    }
    let [write, pause, save, map, start, restore] = &times;
    let p50 = |times: &[f64]| quantile(times, 0.5);
    let row = |name, times: &[f64], beside: f64| SpeedRow {
        name,
        count: times.len(),
        p50_ms: p50(times),
        least_ms: times.first().copied().unwrap_or(0.0),
        ratio: p50(times) / beside,
    };
    Ok(vec![
        row("write", write, p50(write)),
        row("pause", pause, p50(write)),
        row("snapshot", save, p50(write)),
        row("mmap", map, p50(map)),
        row("start", start, p50(start)),
        row("restore", restore, p50(start) + p50(map)),
    ])
}

/// The table.
pub fn text(bytes: u64, rows: &[SpeedRow]) -> String {
    let mut out = format!("{} MiB, all of it in use\n", bytes >> 20);
    let _ = writeln!(out, "              p50 ms  fastest ms  ratio");
    for row in rows {
        let beside = match row.name {
            "pause" | "snapshot" => "to the bare write",
            "restore" => "to start + mmap",
            _ => "",
        };
        // Writing to a String does not fail.
        let _ = writeln!(
            out,
            "{:<10}  {:>8.2}  {:>10.2}  {:>5.2}  {beside}",
            row.name, row.p50_ms, row.least_ms, row.ratio
        );
    }
    out
}

/// The guest that counts, with this memory.
#[derive(Debug)]
struct Counting(Arc<GuestMemory>);

impl Counting {
    fn new(bytes: u64) -> Result<Self, MemoryError> {
        let memory = memory::allocate(&[(0, bytes)])?;
        memory::write_page_tables(&memory)?;
        memory.write_slice(COUNTS, GuestAddress(CODE))?;
        Ok(Self(Arc::new(memory)))
    }
}

impl GuestImage for Counting {
    fn memory(&self) -> &Arc<GuestMemory> {
        &self.0
    }

    fn set_registers(&self, vcpu: &KvmVcpu, index: u32) -> Result<(), BackendError> {
        image::set_registers(vcpu, index, PARAM_PAGE)
    }
}

fn fresh(host: &KvmHost, bytes: u64) -> Result<(RunningVm, VmParts), RoundsError> {
    let halt_kick = HaltKick {
        halt: HaltMode::Userspace,
        transport: Transport::Port,
    };
    let spec = VmSpec::bare(1, halt_kick);
    Ok(Vm::build(&spec, Some(host), &Counting::new(bytes)?)?.start()?)
}

/// One whose memory is full of what is not zero.
fn started(host: &KvmHost, bytes: u64) -> Result<(RunningVm, VmParts), RoundsError> {
    let (running, parts) = fresh(host, bytes)?;
    for gpa in (FILLED..bytes).step_by(PIECE) {
        ending::check()?;
        let left = usize::try_from(bytes - gpa).map_or(PIECE, |left| left.min(PIECE));
        let mut piece = piece(gpa);
        piece.truncate(left);
        let filled = parts.memory.write_slice(&piece, GuestAddress(gpa));
        filled.map_err(MemoryError::from)?;
    }
    Ok((running, parts))
}

fn restored(host: &KvmHost, path: &Path) -> Result<(RunningVm, VmParts, u64), RoundsError> {
    let how = Restore {
        policy: Policy::default(),
        output: Output::default(),
        trace: None,
    };
    let vm = Vm::restore(&Snapshot::open(path)?, host, how)?;
    let (running, parts) = vm.start()?;
    let counter = memory::read_word(&parts.memory, COUNTER.0)?;
    running.handle().resume();
    Ok((running, parts, counter))
}

/// Waits until the guest has counted on from `counter`.
fn runs(parts: &VmParts, counter: u64) -> Result<(), RoundsError> {
    let begin = Instant::now();
    while memory::read_word(&parts.memory, COUNTER.0)? == counter {
        ending::check()?;
        if begin.elapsed() > LIMIT {
            return Err(RoundsError::Stands { round: 0 });
        }
        std::hint::spin_loop();
    }
    Ok(())
}

/// A MiB that depends on its place.
fn piece(at: u64) -> Vec<u8> {
    let mut random = oorandom::Rand64::new(at.into());
    let words = (0..PIECE / 8).map(|_| random.rand_u64().to_le_bytes());
    words.collect::<Vec<_>>().concat()
}

/// Writes so many bytes as a program does that does nothing else, and waits for the
/// disk.
fn bare_write(path: &Path, bytes: u64) -> std::io::Result<f64> {
    let all: Vec<Vec<u8>> = (0..bytes).step_by(PIECE).map(piece).collect();
    let begin = Instant::now();
    let mut file = File::create(path)?;
    for piece in &all {
        ending::check().map_err(std::io::Error::other)?;
        file.write_all(piece)?;
    }
    file.sync_all()?;
    Ok(millis(begin))
}

fn bare_map(path: &Path, bytes: u64) -> Result<f64, RoundsError> {
    let begin = Instant::now();
    let file = FileOffset::new(File::open(path).map_err(system)?, 0);
    let prot = (ProtFlags::READ | ProtFlags::WRITE).bits().cast_signed();
    let flags = (MapFlags::PRIVATE | MapFlags::NORESERVE)
        .bits()
        .cast_signed();
    let len = usize::try_from(bytes).unwrap_or(usize::MAX);
    let mapped: Result<MmapRegion, _> = MmapRegion::build(Some(file), len, prot, flags);
    drop(mapped.map_err(|e| MemoryError::Map {
        bytes,
        source: e.into(),
    })?);
    Ok(millis(begin))
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn system(source: std::io::Error) -> RoundsError {
    RoundsError::Process { round: 0, source }
}

/// The two files, which go away.
struct Files {
    bare: PathBuf,
    snapshot: PathBuf,
}

impl Files {
    fn remove(&self) {
        for path in [&self.bare, &self.snapshot] {
            // They may not be there.
            let _ = std::fs::remove_file(path);
        }
    }

    fn new(directory: &Path) -> Self {
        let name = |what| format!("vmm-reference-{what}-{}", std::process::id());
        Self {
            bare: directory.join(name("bare")),
            snapshot: directory.join(name("snapshot")),
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        self.remove();
    }
}
