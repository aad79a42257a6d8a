//! One measurement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::lock_vm::{LockResults, LockVm, LockVmError};
use super::{Backend, BackendKind, Mode, Workload};
use crate::halt_mode::HaltMode;
use crate::host;
use crate::memory::MemoryError;
use crate::payload::layout::{issue, mode};
use crate::payload::lock::LockProgram;
use crate::signals::ending::{self, Interrupted};
use crate::stats::meter::{Meter, Spent, Total};
use crate::stats::{KvmStats, StatsError};
use crate::trace::{Switches, VmTrace};
use crate::vcpu::Ended;
use crate::vm::{VmError, VmSpec, Waited};

/// How long the guest may take to leave once it was asked: spinning vCPUs need
/// their turn on a CPU to see the flag.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);

/// Why a measurement is none.
#[derive(Debug, thiserror::Error)]
pub enum CellError {
    /// The guest could not be set up.
    #[error(transparent)]
    Guest(#[from] LockVmError),
    /// A vCPU failed.
    #[error("vCPU {index}: {reason}")]
    Vcpu {
        /// The vCPU's index.
        index: usize,
        /// What happened.
        reason: String,
    },
    /// Two vCPUs were in the critical section at once, or an update was lost.
    #[error(
        "the lock did not hold ({mode}, {vcpus} vCPUs): counter {counter}, sum of the vCPUs' \
         counts {sum}, {violations} violations of the owner word"
    )]
    Violation {
        /// `spin` or `pv`.
        mode: &'static str,
        /// Number of vCPUs.
        vcpus: u32,
        /// The counter under the lock.
        counter: u64,
        /// What the vCPUs counted.
        sum: u64,
        /// Owner words that were wrong.
        violations: u64,
    },
    /// What KVM counted can't be read.
    #[error(transparent)]
    Stats(#[from] StatsError),
    /// The guest's kicks were refused.
    #[error("{0} kicks were not answered with 0")]
    KickRefused(u64),
    /// A signal ended it before it measured anything.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// Calibration measured nothing.
    #[error("the guest did not run: calibration ended after {0:?} with no figure")]
    Calibration(Duration),
}

impl CellError {
    /// Whether a signal ended it.
    pub fn is_interruption(&self) -> bool {
        let vm = |e: &LockVmError| matches!(e, LockVmError::Vm(VmError::Interrupted(_)));
        match self {
            Self::Interrupted(_) => true,
            Self::Guest(e) => vm(e),
            _ => false,
        }
    }
}

impl From<MemoryError> for CellError {
    fn from(e: MemoryError) -> Self {
        Self::Guest(e.into())
    }
}

impl From<VmError> for CellError {
    fn from(e: VmError) -> Self {
        Self::Guest(e.into())
    }
}

/// How fast this guest spins.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    rounds_per_s: f64,
}

impl Speed {
    /// Rounds of the guest's spin loop a second.
    pub fn rounds_per_s(self) -> f64 {
        self.rounds_per_s
    }

    /// Spin rounds that take about `time`; at least one.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "`as` saturates, and an absurdly long threshold is just that"
    )]
    fn rounds(self, time: Duration) -> u64 {
        ((time.as_secs_f64() * self.rounds_per_s) as u64).max(1)
    }
}

/// Runs a vCPU through the spin loop until the figure is worth something, in a VM
/// like this with one vCPU.
///
/// # Errors
/// The guest did not run, or measured nothing.
pub fn calibrate(backend: &Backend, spec: &VmSpec) -> Result<Speed, CellError> {
    /// Long enough that entering the guest does not count.
    const ENOUGH: Duration = Duration::from_millis(2);
    const LIMIT: Duration = Duration::from_secs(10);
    let spec = VmSpec {
        vcpus: 1,
        trace: None,
        ..spec.clone()
    };
    let mut threshold = 512;
    let begin = Instant::now();
    loop {
        let program = LockProgram {
            mode: mode::CALIBRATE,
            issue: issue::by(spec.halt_kick.transport, backend.instruction()),
            threshold,
            hold: 0,
            think: 0,
        };
        let mut vm = LockVm::start(&spec, backend.host(), &program)?;
        let (memory, hz) = (Arc::clone(vm.memory()), vm.parts.clock_hz as f64);
        let waited = vm.running.wait(begin + LIMIT)?;
        check_ends(&vm.running.stop()?)?;
        if waited == Waited::Interrupted {
            return Err(Interrupted.into());
        }
        let ticks = LockResults::read(&memory, 1)?.calibration;
        let time = ticks as f64 / hz;
        if time >= ENOUGH.as_secs_f64() {
            return Ok(Speed {
                rounds_per_s: threshold as f64 / time,
            });
        }
        if ticks == 0 || begin.elapsed() > LIMIT {
            return Err(CellError::Calibration(begin.elapsed()));
        }
        threshold *= 4;
    }
}

/// One cell of the demo's table.
#[derive(Clone, Debug)]
pub struct Cell {
    /// How its guest waits for the lock.
    pub mode: Mode,
    /// What each of its VMs is to be.
    pub spec: VmSpec,
    /// How many VMs run at once; one at least.
    pub vms: u32,
}

/// What a cell measured.
#[derive(Clone, Debug, Serialize)]
pub struct DemoRow {
    /// `kvm` or `hosted`.
    pub backend: BackendKind,
    /// How the guest waits for its lock: `spin` or `pv`.
    pub mode: Mode,
    /// Who puts a halted vCPU to sleep: `userspace` or `kernel`.
    pub halt: HaltMode,
    /// The hypercall transport: `port` or `xen` to this process, `vmcall` or
    /// `vmmcall` to KVM, `hosted` for a call within this process.
    pub transport: &'static str,
    /// The same under its old name, for one release.
    pub door: &'static str,
    /// VMs that ran at once.
    pub vms: u32,
    /// The VM, from 1; null: the sum of all of them.
    pub vm: Option<u32>,
    /// Number of vCPUs of each VM.
    pub vcpus: u32,
    /// pCPUs they share.
    pub host_cpus: usize,
    /// The counter that only the holder of the lock increments.
    pub acquisitions: u64,
    /// Sum of the vCPUs' own counts: equal, or the lock is broken.
    pub expected: u64,
    /// From the first guest instruction to the last vCPU's end.
    pub seconds: f64,
    /// `acquisitions` / `seconds`.
    pub ops_per_s: f64,
    /// Acquisitions of the vCPU that had the fewest, as a share of the mean: 1
    /// is fair, 0 is a vCPU that never had the lock.
    pub least_share: f64,
    /// HLTs of the guest.
    pub halts: u64,
    /// KVM_HC_KICK_CPU of the guest.
    pub kicks: u64,
    /// CPU time of the whole process meanwhile; of the VM's vCPU threads alone,
    /// if there were several VMs.
    pub cpu_seconds: f64,
    /// How long its vCPUs, ready to run, were held back by the scheduler, summed.
    pub held_seconds: f64,
    /// How long the threads of its vCPUs, ready to run, waited for a pCPU, summed
    /// (the kernel's run delay).
    pub run_delay_seconds: f64,
    /// Median wait for the lock.
    pub wait_p50_us: f64,
    /// 99th percentile of the wait.
    pub wait_p99_us: f64,
    /// What KVM itself counted of halts, polls, hypercalls and directed yields,
    /// summed over the vCPUs; null without a KVM that does.
    pub kvm_stats: Option<KvmStats>,
}

impl Cell {
    /// Runs the guests for `time`: a row for each VM, and behind those of several
    /// their sum. The second value: a signal ended it early.
    ///
    /// # Errors
    /// A guest did not run, or its lock did not hold.
    pub fn run(
        &self,
        backend: &Backend,
        work: &Workload,
        speed: Speed,
        time: Duration,
    ) -> Result<(Vec<DemoRow>, bool), CellError> {
        let spec = &self.spec;
        let program = LockProgram {
            mode: match self.mode {
                Mode::Spin => mode::SPIN,
                Mode::Pv => mode::PV,
            },
            issue: issue::by(spec.halt_kick.transport, backend.instruction()),
            threshold: speed.rounds(work.spin),
            hold: work.hold,
            think: work.think,
        };
        let cpu_before = cpu_time();
        let mut vms = Vec::new();
        for _ in 0..self.vms.max(1) {
            ending::check()?;
            let vm = LockVm::start(spec, backend.host(), &program)?;
            let switches = watch(spec.trace.as_ref(), &vm);
            let meter = Meter::new(&vm.parts.threads());
            let before = meter.read(0);
            vms.push(Measured {
                vm,
                switches,
                meter,
                before,
            });
        }
        let mut interrupted = false;
        if let Some(Measured { vm, .. }) = vms.last_mut() {
            let end = vm.running.started() + time;
            interrupted = vm.running.wait(end)? == Waited::Interrupted;
        }
        // Before they leave: a thread that has ended has no figures any more.
        let spent: Vec<Spent> = vms.iter().map(Measured::spent).collect();
        for Measured { vm, .. } in &vms {
            vm.ask_to_leave()?;
        }
        let alone = vms.len() == 1;
        let mut rows = Vec::new();
        for ((number, measured), spent) in (1..).zip(vms).zip(spent) {
            let (mut row, early) = self.row(backend, measured, spent)?;
            interrupted |= early;
            row.vm = Some(number);
            if alone {
                row.cpu_seconds = cpu_time().saturating_sub(cpu_before).as_secs_f64();
            }
            rows.push(row);
        }
        if let (false, Some(sum)) = (alone, DemoRow::sum(&rows)) {
            rows.push(sum);
        }
        Ok((rows, interrupted))
    }

    /// What one VM, which was asked to leave, has done.
    fn row(
        &self,
        backend: &Backend,
        measured: Measured,
        spent: Spent,
    ) -> Result<(DemoRow, bool), CellError> {
        let Self { mode, spec, .. } = self;
        let (halt_kick, vcpus) = (spec.halt_kick, spec.vcpus);
        let Measured {
            mut vm, switches, ..
        } = measured;
        let limit = Instant::now() + ending::at_most(LEAVE_LIMIT);
        let left = vm.running.wait(limit)?;
        let seconds = vm.running.started().elapsed().as_secs_f64();
        let counter = vm.counter()?;
        let kvm_stats = vm.kvm_stats()?;
        let (memory, hz) = (Arc::clone(vm.memory()), vm.parts.clock_hz as f64);
        check_ends(&vm.running.stop()?)?;
        if let (Some(trace), Some(switches)) = (&spec.trace, switches) {
            trace.add(switches);
        }

        let results = LockResults::read(&memory, vcpus)?;
        // A vCPU that had to be stopped may stand between its two counts.
        let complete = left == Waited::AllEnded;
        if results.violations != 0 || (complete && results.acquisitions != counter) {
            return Err(CellError::Violation {
                mode: mode.name(),
                vcpus,
                counter,
                sum: results.acquisitions,
                violations: results.violations,
            });
        }
        if results.kick_errors != 0 {
            return Err(CellError::KickRefused(results.kick_errors));
        }
        let micros = |q| {
            results
                .quantile(q)
                .map_or(0.0, |ticks| ticks as f64 / hz * 1e6)
        };
        let transport = halt_kick.transport.name(backend.instruction());
        let row = DemoRow {
            backend: backend.kind(),
            mode: *mode,
            halt: halt_kick.halt,
            transport,
            door: transport,
            vms: self.vms.max(1),
            vm: None,
            vcpus,
            host_cpus: host::cpus(),
            acquisitions: counter,
            expected: results.acquisitions,
            seconds,
            ops_per_s: counter as f64 / seconds,
            least_share: results.least as f64 * f64::from(vcpus)
                / results.acquisitions.max(1) as f64,
            halts: results.halts,
            kicks: results.kicks,
            cpu_seconds: spent.running.as_secs_f64(),
            held_seconds: spent.held.as_secs_f64(),
            run_delay_seconds: spent.run_delay.as_secs_f64(),
            wait_p50_us: micros(0.50),
            wait_p99_us: micros(0.99),
            kvm_stats,
        };
        Ok((row, left == Waited::Interrupted))
    }
}

/// A VM that is being measured.
struct Measured {
    vm: LockVm,
    switches: Option<Switches>,
    meter: Meter,
    before: Total,
}

impl Measured {
    fn spent(&self) -> Spent {
        let held = self.vm.running.handle().held_ns();
        let time = self.vm.running.started().elapsed();
        self.meter.read(held).since(&self.before, time)
    }
}

impl DemoRow {
    /// Of several VMs: rates, counts and times are sums; waits are those of the VM
    /// that had the worst, and the least share is that of the VMs: 1 if all had
    /// the lock equally often.
    fn sum(rows: &[Self]) -> Option<Self> {
        let mut sum = rows.first()?.clone();
        let least = rows
            .iter()
            .map(|row| row.ops_per_s)
            .fold(f64::MAX, f64::min);
        for row in rows.get(1..).unwrap_or_default() {
            sum.acquisitions += row.acquisitions;
            sum.expected += row.expected;
            sum.seconds = sum.seconds.max(row.seconds);
            sum.ops_per_s += row.ops_per_s;
            sum.halts += row.halts;
            sum.kicks += row.kicks;
            sum.cpu_seconds += row.cpu_seconds;
            sum.held_seconds += row.held_seconds;
            sum.run_delay_seconds += row.run_delay_seconds;
            sum.wait_p50_us = sum.wait_p50_us.max(row.wait_p50_us);
            sum.wait_p99_us = sum.wait_p99_us.max(row.wait_p99_us);
        }
        sum.least_share = match sum.ops_per_s {
            rate if rate > 0.0 => least * rows.len() as f64 / rate,
            _ => 0.0,
        };
        sum.vm = None;
        // KVM counts by vCPU; what it counted is in the rows of the VMs.
        sum.kvm_stats = None;
        Some(sum)
    }
}

/// Records when the vCPUs' threads are on a host CPU, if a trace is wanted and
/// the kernel tells.
fn watch(trace: Option<&VmTrace>, vm: &LockVm) -> Option<Switches> {
    let threads = vm.parts.threads();
    trace?.watch(&threads).ok()
}

/// A vCPU failed that ended otherwise than by the program, or by the VMM.
fn check_ends(ends: &[Ended]) -> Result<(), CellError> {
    for (index, ended) in ends.iter().enumerate() {
        if !matches!(ended, Ended::ExitPort(0) | Ended::Stopped) {
            let reason = ended.to_string();
            return Err(CellError::Vcpu { index, reason });
        }
    }
    Ok(())
}

/// CPU time of this process.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    // Neither part of this clock is ever negative.
    Duration::new(
        time.tv_sec.try_into().unwrap_or(0),
        time.tv_nsec.try_into().unwrap_or(0),
    )
}
