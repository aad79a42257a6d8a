//! One measurement.

use std::time::{Duration, Instant};

use cpuid_features::Negotiated;
use serde::Serialize;

use super::guest::{Guest, GuestError, Results};
use super::{Backend, Mode, Policy, Workload};
use crate::host;
use crate::memory::LockProgram;
use crate::payload::layout::mode;
use crate::stats::{KvmStats, StatsError};
use crate::vcpu::Ended;
use crate::vmm::{VmmError, Waited};
use crate::way::Way;

/// How long the guest may take to leave once it was asked: spinning vCPUs need
/// their turn on a CPU to see the flag.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);

/// Why a measurement is none.
#[derive(Debug, thiserror::Error)]
pub enum CellError {
    /// The guest could not be set up.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// A vCPU failed.
    #[error("vCPU {index}: {reason}")]
    Vcpu {
        /// Which.
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
        /// Way of waiting.
        mode: &'static str,
        /// vCPUs.
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
    /// Calibration measured nothing.
    #[error("the guest did not run: calibration ended after {0:?} with no figure")]
    Calibration(Duration),
}

impl From<crate::memory::MemoryError> for CellError {
    fn from(e: crate::memory::MemoryError) -> Self {
        Self::Guest(e.into())
    }
}

impl From<VmmError> for CellError {
    fn from(e: VmmError) -> Self {
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

/// Runs a vCPU through the spin loop until the figure is worth something.
pub fn calibrate(backend: &Backend, way: Way, offered: &Negotiated) -> Result<Speed, CellError> {
    /// Long enough that entering the guest does not count.
    const ENOUGH: Duration = Duration::from_millis(2);
    const LIMIT: Duration = Duration::from_secs(10);
    let mut threshold = 512;
    let begin = Instant::now();
    loop {
        let program = LockProgram {
            mode: mode::CALIBRATE,
            transport: way.door.transport(),
            threshold,
            hold: 0,
            think: 0,
        };
        let mut guest = Guest::start(backend, way, &program, 1, offered, Policy::default())?;
        let (memory, hz) = (std::sync::Arc::clone(&guest.memory), guest.tsc_hz as f64);
        guest.vmm.wait(begin + LIMIT)?;
        check_ends(&guest.vmm.stop()?)?;
        let ticks = Results::read(&memory, 1)?.calibration;
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
    /// Way of waiting.
    pub mode: Mode,
    /// vCPUs.
    pub vcpus: u32,
    /// How they halt and kick.
    pub way: Way,
    /// What its guest is offered.
    pub offered: Negotiated,
}

/// What a cell measured.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// `kvm` or `hosted`.
    pub backend: &'static str,
    /// Way of waiting: `spin` or `pv`.
    pub mode: &'static str,
    /// Who puts a halted vCPU to sleep: `userspace` or `kernel`.
    pub halt: &'static str,
    /// Where kicks go: `port` or `xen` to this process, `vmcall` or `vmmcall` to
    /// KVM, `hosted` nowhere.
    pub door: &'static str,
    /// vCPUs of the VM.
    pub vcpus: u32,
    /// Host CPUs they share.
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
    /// CPU time of the whole process meanwhile.
    pub cpu_seconds: f64,
    /// Median wait for the lock.
    pub wait_p50_us: f64,
    /// 99th percentile of the wait.
    pub wait_p99_us: f64,
    /// What KVM itself counted of halts, polls, hypercalls and directed yields,
    /// summed over the vCPUs; null without a KVM that does.
    pub kvm_stats: Option<KvmStats>,
}

impl Cell {
    /// Runs the guest for `time`. The second value: a signal ended it early.
    pub fn run(
        &self,
        backend: &Backend,
        work: &Workload,
        policy: Policy,
        speed: Speed,
        time: Duration,
    ) -> Result<(Row, bool), CellError> {
        let program = LockProgram {
            mode: match self.mode {
                Mode::Spin => mode::SPIN,
                Mode::Pv => mode::PV,
            },
            transport: self.way.door.transport(),
            threshold: speed.rounds(work.spin),
            hold: work.hold,
            think: work.think,
        };
        let cpu_before = cpu_time();
        let mut guest = Guest::start(
            backend,
            self.way,
            &program,
            self.vcpus,
            &self.offered,
            policy,
        )?;
        let waited = guest.vmm.wait(guest.vmm.started() + time)?;
        guest.ask_to_leave()?;
        let left = guest.vmm.wait(Instant::now() + LEAVE_LIMIT)?;
        let seconds = guest.vmm.started().elapsed().as_secs_f64();
        let cpu_seconds = cpu_time().saturating_sub(cpu_before).as_secs_f64();
        let counter = guest.counter()?;
        let kvm_stats = guest.kvm_stats().transpose()?;
        let (memory, hz) = (std::sync::Arc::clone(&guest.memory), guest.tsc_hz as f64);
        check_ends(&guest.vmm.stop()?)?;

        let results = Results::read(&memory, self.vcpus)?;
        // A vCPU that had to be stopped may stand between its two counts.
        let complete = left == Waited::AllEnded;
        if results.violations != 0 || (complete && results.acquisitions != counter) {
            return Err(CellError::Violation {
                mode: self.mode.name(),
                vcpus: self.vcpus,
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
        let row = Row {
            backend: backend.name(),
            mode: self.mode.name(),
            halt: self.way.halt.name(),
            door: self.way.door.name(),
            vcpus: self.vcpus,
            host_cpus: host::cpus(),
            acquisitions: counter,
            expected: results.acquisitions,
            seconds,
            ops_per_s: counter as f64 / seconds,
            least_share: results.least as f64 * f64::from(self.vcpus)
                / results.acquisitions.max(1) as f64,
            halts: results.halts,
            kicks: results.kicks,
            cpu_seconds,
            wait_p50_us: micros(0.50),
            wait_p99_us: micros(0.99),
            kvm_stats,
        };
        Ok((
            row,
            waited == Waited::Interrupted || left == Waited::Interrupted,
        ))
    }
}

/// A vCPU that ended in any way but the program's own, or the VMM's, failed.
fn check_ends(ends: &[Ended]) -> Result<(), CellError> {
    for (index, ended) in ends.iter().enumerate() {
        let reason = match ended {
            Ended::ExitPort(0) | Ended::Stopped => continue,
            Ended::ExitPort(value) => format!("the guest gave up with code {value}"),
            Ended::TripleFault(_) => "triple fault".to_string(),
            Ended::Failed(e, _) => e.to_string(),
            Ended::Reset | Ended::PowerOff => "the guest turned the machine off".to_string(),
        };
        return Err(CellError::Vcpu { index, reason });
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
