//! A guest that is saved and restored again and again, in a new process each time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::child::RestoredProcess;
use crate::bench::quantile;
use crate::control::Request;
use crate::demo::lock_vm::{LockResults, LockVm, LockVmError};
use crate::devices::output::Output;
use crate::halt_mode::HaltMode;
use crate::host::{HostError, KvmHost};
use crate::jail::JailError;
use crate::memory::{self, MemoryError};
use crate::payload::image::LOCK_PAGE;
use crate::payload::layout::{issue, lock, mode};
use crate::payload::lock::LockProgram;
use crate::policy::Policy;
use crate::signals::ending::{self, Interrupted};
use crate::snapshot::{self, Snapshot, SnapshotError};
use crate::transport::{HaltKick, Instruction, Transport};
use crate::vm::{NotPaused, Restore, Vm, VmError, VmSpec, Waited};

/// A guest that does not take its lock for so long stands still: its lock is first
/// come, first served, so that one vCPU that was not woken stops all of them.
const LIMIT: Duration = Duration::from_secs(20);

/// Why the guest did not survive.
#[derive(Debug, thiserror::Error)]
pub enum RoundsError {
    /// No usable KVM.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The main thread can't be put into the jail.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// The guest.
    #[error(transparent)]
    Guest(#[from] LockVmError),
    /// The guest's memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The guest's VM.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// A snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A pause was given up.
    #[error(transparent)]
    NotPaused(#[from] NotPaused),
    /// A process that goes on with a snapshot, or the system.
    #[error("round {round}: {source}")]
    Process {
        /// The round, from 1.
        round: u32,
        /// What it said.
        source: std::io::Error,
    },
    /// It stands still.
    #[error("round {round}: the guest has not taken its lock for {} s: a kick was lost", LIMIT.as_secs())]
    Stands {
        /// The round, from 1.
        round: u32,
    },
    /// What it counts does not fit together.
    #[error(
        "the lock did not hold: counter {counter}, sum of the vCPUs' counts {sum}, {violations} violations"
    )]
    Violation {
        /// The counter under the lock.
        counter: u64,
        /// What the vCPUs counted.
        sum: u64,
        /// Owner words that were wrong.
        violations: u64,
    },
    /// A signal.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// What happened.
#[derive(Clone, Debug, Serialize)]
pub struct Rounds {
    /// Who puts a halted vCPU to sleep: `userspace` or `kernel`.
    pub halt: HaltMode,
    /// vCPUs of the VM.
    pub vcpus: u32,
    /// Times that it was saved, and restored in a new process.
    pub rounds: u32,
    /// How long all of it took.
    pub seconds: f64,
    /// The counter under the lock.
    pub acquisitions: u64,
    /// Sum of the vCPUs' own counts: equal, or the lock is broken.
    pub expected: u64,
    /// Times mutual exclusion did not hold.
    pub violations: u64,
    /// HLTs of the guest.
    pub halts: u64,
    /// Kicks of the guest.
    pub kicks: u64,
    /// vCPUs that were halted when they were saved, summed.
    pub saved_halted: u64,
    /// vCPUs for which a kick waited when they were saved, halted or not.
    pub saved_kicked: u64,
    /// From the request to the answer, in milliseconds: median.
    pub snapshot_p50_ms: f64,
    /// 99th percentile.
    pub snapshot_p99_ms: f64,
    /// Bytes of the last file.
    pub file_bytes: u64,
}

/// Saves and restores the demo's guest `rounds` times.
///
/// # Errors
/// There is no KVM, or the guest did not survive.
pub fn run(halt: HaltMode, vcpus: u32, rounds: u32) -> Result<Rounds, RoundsError> {
    let begin = Instant::now();
    let host = KvmHost::open()?;
    let scratch = Scratch::new().map_err(at(0))?;
    let path = scratch.0.join("vm");
    let mut counter = begun(&host, halt, vcpus, &path)?;
    let mut moved = Instant::now();
    let mut outcome = Rounds {
        halt,
        vcpus,
        rounds,
        seconds: 0.0,
        acquisitions: 0,
        expected: 0,
        violations: 0,
        halts: 0,
        kicks: 0,
        saved_halted: 0,
        saved_kicked: 0,
        snapshot_p50_ms: 0.0,
        snapshot_p99_ms: 0.0,
        file_bytes: 0,
    };
    let mut times = Vec::new();
    for round in 1..=rounds {
        ending::check()?;
        let socket = scratch.0.join("control");
        let mut process = RestoredProcess::start(&path, &socket).map_err(at(round))?;
        // Never in step with the guest.
        std::thread::sleep(Duration::from_micros(1000 + u64::from(round) * 137 % 7000));
        let asked = Instant::now();
        let request = Request::Snapshot { path: path.clone() };
        process.ask(&request).map_err(at(round))?;
        times.push(asked.elapsed().as_secs_f64() * 1e3);
        process.stop().map_err(at(round))?;
        let snapshot = Snapshot::open(&path)?;
        for vcpu in &snapshot.vm().scheduler.vcpus {
            outcome.saved_halted += u64::from(vcpu.halted);
            outcome.saved_kicked += u64::from(vcpu.kicked);
        }
        let memory = snapshot.map_memory()?;
        let now = memory::read_word(&memory, LOCK_PAGE + lock::COUNTER)?;
        if now != counter {
            (counter, moved) = (now, Instant::now());
        } else if moved.elapsed() > LIMIT {
            return Err(RoundsError::Stands { round });
        }
    }
    let results = ended(&host, vcpus, &path, rounds)?;
    outcome.file_bytes = std::fs::metadata(&path).map_err(at(rounds))?.len();
    times.sort_by(f64::total_cmp);
    Ok(Rounds {
        seconds: begin.elapsed().as_secs_f64(),
        acquisitions: results.0,
        expected: results.1.acquisitions,
        violations: results.1.violations,
        halts: results.1.halts,
        kicks: results.1.kicks,
        snapshot_p50_ms: quantile(&times, 0.5),
        snapshot_p99_ms: quantile(&times, 0.99),
        ..outcome
    })
}

/// Starts the guest and saves it; its lock's counter.
fn begun(host: &KvmHost, halt: HaltMode, vcpus: u32, path: &Path) -> Result<u64, RoundsError> {
    let transport = Transport::Port;
    let program = LockProgram {
        mode: mode::PV,
        issue: issue::by(transport, Instruction::Vmcall),
        // Short sections and little spinning: most of the time somebody halts.
        threshold: 4,
        hold: 3,
        think: 3,
    };
    let spec = VmSpec::bare(vcpus, HaltKick { halt, transport });
    let vm = LockVm::start(&spec, Some(host), &program)?;
    moves(&vm, 10 * u64::from(vcpus), 0)?;
    let handle = vm.running.handle();
    handle.pause()?;
    let saved = vm.parts.save(&handle)?;
    snapshot::write(path, &saved, vm.memory(), &ending::is_asked)?;
    let counter = vm.counter()?;
    vm.running.stop()?;
    Ok(counter)
}

/// Lets the guest go on to its end; the lock's counter, and what its vCPUs counted.
fn ended(
    host: &KvmHost,
    vcpus: u32,
    path: &Path,
    round: u32,
) -> Result<(u64, LockResults), RoundsError> {
    let how = Restore {
        policy: Policy::default(),
        output: Output::default(),
        trace: None,
    };
    let vm = Vm::restore(&Snapshot::open(path)?, host, how)?;
    let (running, parts) = vm.start()?;
    running.handle().resume();
    let mut vm = LockVm { running, parts };
    // Before anybody is asked to leave: that would wake who slept on.
    moves(&vm, 10 * u64::from(vcpus), round)?;
    vm.ask_to_leave()?;
    match vm.running.wait(Instant::now() + LIMIT)? {
        Waited::AllEnded => {}
        Waited::Interrupted => return Err(Interrupted.into()),
        _ => return Err(RoundsError::Stands { round }),
    }
    let (counter, results) = (vm.counter()?, LockResults::read(vm.memory(), vcpus)?);
    vm.running.stop()?;
    let (sum, violations) = (results.acquisitions, results.violations);
    match sum == counter && violations == 0 {
        true => Ok((counter, results)),
        false => Err(RoundsError::Violation {
            counter,
            sum,
            violations,
        }),
    }
}

/// Waits until the lock has been taken `more` times.
fn moves(vm: &LockVm, more: u64, round: u32) -> Result<(), RoundsError> {
    let (from, begin) = (vm.counter()?, Instant::now());
    while vm.counter()? < from.saturating_add(more) {
        ending::check()?;
        if begin.elapsed() > LIMIT {
            return Err(RoundsError::Stands { round });
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

/// As a person reads it.
pub fn text(rounds: &Rounds) -> String {
    let Rounds {
        halt,
        vcpus,
        rounds,
        seconds,
        acquisitions,
        expected,
        violations,
        halts,
        kicks,
        saved_halted,
        saved_kicked,
        snapshot_p50_ms,
        snapshot_p99_ms,
        file_bytes,
    } = rounds;
    let halt = halt.name();
    format!(
        "{rounds} rounds in {seconds:.1} s: {vcpus} vCPUs, halts in {halt}, a new process each\n\
         lock: taken {acquisitions} times, the vCPUs' sum {expected}, {violations} violations\n\
         guest: {halts} halts, {kicks} kicks; saved: {saved_halted} halted vCPUs, {saved_kicked} kicks that waited\n\
         snapshot: p50 {snapshot_p50_ms:.2} ms, p99 {snapshot_p99_ms:.2} ms, {file_bytes} bytes\n"
    )
}

/// A directory that goes away.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> std::io::Result<Self> {
        let name = format!("vmm-reference-snapshot-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Whoever drops it has nobody to tell.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn at(round: u32) -> impl FnOnce(std::io::Error) -> RoundsError {
    move |source| match ending::check() {
        Ok(()) => RoundsError::Process { round, source },
        // What was refused then is no fault.
        Err(interrupted) => interrupted.into(),
    }
}
