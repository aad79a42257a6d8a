//! How long it takes to pause a VM: from the request until no vCPU runs guest
//! code, beside what it takes to get one vCPU out of the guest and hear of it.

use std::fmt::Write as _;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde::Serialize;
use vmm_sys_util::signal::Killable as _;

use super::quantile;
use crate::backend::{BackendError, Exit, VcpuBackend as _};
use crate::demo::lock_vm::{LockVm, LockVmError};
use crate::devices::Bus;
use crate::halt_mode::HaltMode;
use crate::host::{HostError, KvmHost};
use crate::jail::{self, JailError, ThreadKind};
use crate::memory::MemoryError;
use crate::payload::layout::{issue, mode};
use crate::payload::lock::{LockImage, LockProgram};
use crate::signals;
use crate::signals::ending::{self, Interrupted};
use crate::transport::{HaltKick, Transport};
use crate::vm::{NotPaused, Vm, VmError, VmSpec};

const VCPUS: [u32; 3] = [1, 4, 16];
/// Long enough for any vCPU to leave the guest.
const LIMIT: Duration = Duration::from_secs(5);
const HALT_KICK: HaltKick = HaltKick {
    halt: HaltMode::Userspace,
    transport: Transport::Port,
};

/// Why a figure is missing.
#[derive(Debug, thiserror::Error)]
pub enum ControlBenchError {
    /// The main thread can't be put into the jail.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// No usable KVM.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The guest.
    #[error(transparent)]
    Guest(#[from] LockVmError),
    /// The guest's memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The guest's VM.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The guest's vCPU.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A pause was given up.
    #[error(transparent)]
    NotPaused(#[from] NotPaused),
    /// The system refused a thread or a signal handler.
    #[error("bench control: {0}")]
    System(#[from] std::io::Error),
    /// A signal ended it.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The vCPU of the signal's round trip did not answer.
    #[error("a vCPU did not leave the guest within {} s", LIMIT.as_secs())]
    Silent,
}

/// One line of the table.
#[derive(Clone, Debug, Serialize)]
pub struct ControlRow {
    /// What is measured: `signal`, or `pause` of a VM whose waiters spin (`spin`)
    /// or halt (`pv`).
    pub name: &'static str,
    /// vCPUs of the VM.
    pub vcpus: u32,
    /// How often it was measured.
    pub count: usize,
    /// Median, in microseconds.
    pub p50_us: f64,
    /// 99th percentile, in microseconds.
    pub p99_us: f64,
    /// The median over that of the signal.
    pub ratio_to_signal: f64,
}

/// Measures all rows on /dev/kvm, each `count` times.
///
/// # Errors
/// There is no KVM, or a vCPU can't be paused.
pub fn measure(count: usize) -> Result<Vec<ControlRow>, ControlBenchError> {
    let host = KvmHost::open()?;
    jail::enter(ThreadKind::Builder)?;
    let signal = signal_round_trips(&host, count)?;
    let base = quantile(&signal, 0.5);
    let row = |name, vcpus, times: &[f64]| ControlRow {
        name,
        vcpus,
        count: times.len(),
        p50_us: quantile(times, 0.5),
        p99_us: quantile(times, 0.99),
        ratio_to_signal: quantile(times, 0.5) / base,
    };
    let mut rows = vec![row("signal", 1, &signal)];
    for (name, mode) in [("pause spin", mode::SPIN), ("pause pv", mode::PV)] {
        for vcpus in VCPUS {
            rows.push(row(name, vcpus, &pauses(&host, mode, vcpus, count)?));
        }
    }
    Ok(rows)
}

fn program(mode: u64) -> LockProgram {
    LockProgram {
        mode,
        issue: issue::by(HALT_KICK.transport, crate::transport::Instruction::Vmcall),
        threshold: 100,
        hold: 50,
        think: 100,
    }
}

/// Lets the guest run for a time that never falls into step with it.
fn let_run(turn: usize) {
    std::thread::sleep(Duration::from_micros(500 + (turn as u64 * 37) % 1000));
}

fn micros(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

/// Sorted times of pauses of a VM with `vcpus` vCPUs, in microseconds.
fn pauses(
    host: &KvmHost,
    mode: u64,
    vcpus: u32,
    count: usize,
) -> Result<Vec<f64>, ControlBenchError> {
    let vm = LockVm::start(&VmSpec::bare(vcpus, HALT_KICK), Some(host), &program(mode))?;
    let handle = vm.running.handle();
    let mut times = Vec::with_capacity(count);
    for turn in 0..count {
        let_run(turn);
        let begin = Instant::now();
        handle.pause()?;
        times.push(micros(begin));
        handle.resume();
    }
    vm.running.stop()?;
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// Sorted times, in microseconds: one vCPU in the guest is asked to leave, by
/// request and signal, and its thread says that it has.
fn signal_round_trips(host: &KvmHost, count: usize) -> Result<Vec<f64>, ControlBenchError> {
    signals::install()?;
    let image = LockImage::new(&program(mode::SPIN), 1)?;
    let vm = Vm::build(&VmSpec::bare(1, HALT_KICK), Some(host), &image)?;
    let mut vcpu = vm.into_kvm_vcpus().pop().ok_or(ControlBenchError::Silent)?;
    let exit_request = vcpu.exit_request();
    let (left, leaves) = channel();
    let request = exit_request.clone();
    let thread = std::thread::Builder::new()
        .name("signal".to_string())
        .spawn(move || {
            if let Err(e) = jail::enter(ThreadKind::Vcpu) {
                // The receiver waits for an exit, or for this.
                let _ = left.send(Err(e.into()));
                return;
            }
            let bus = Bus::default();
            loop {
                let exit = vcpu.run(&bus, &mut ());
                let goes_on = matches!(exit, Ok(Exit::Interrupted));
                if goes_on && !request.take() {
                    continue;
                }
                if left.send(exit.map(drop)).is_err() || !goes_on {
                    return;
                }
            }
        })?;
    let mut times = Vec::with_capacity(count);
    let mut result = Ok(());
    for turn in 0..count {
        let_run(turn);
        let begin = Instant::now();
        exit_request.set();
        // It fails only for a thread that has ended, which has said so.
        let _ = thread.kill(signals::vcpu_signal());
        match leaves.recv_timeout(LIMIT) {
            Ok(Ok(())) => times.push(micros(begin)),
            Ok(Err(e)) => result = Err(e.into()),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                result = Err(ControlBenchError::Silent);
            }
        }
        result = result.and_then(|()| Ok(ending::check()?));
        if result.is_err() {
            break;
        }
    }
    // Nobody listens any more: the next time it leaves the guest it ends.
    drop(leaves);
    exit_request.set();
    let _ = thread.kill(signals::vcpu_signal());
    if result.is_ok() {
        let _ = thread.join();
    }
    times.sort_by(f64::total_cmp);
    result.map(|()| times)
}

/// The table.
pub fn text(rows: &[ControlRow]) -> String {
    let mut out =
        "                vCPUs     p50 us     p99 us  p50 / a signal's round trip\n".to_string();
    for row in rows {
        // Writing to a String does not fail.
        let _ = writeln!(
            out,
            "{:<14}  {:>5}  {:>9.1}  {:>9.1}  {:>9.2}",
            row.name, row.vcpus, row.p50_us, row.p99_us, row.ratio_to_signal
        );
    }
    out
}
