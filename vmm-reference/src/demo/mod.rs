//! The main job: how a contended lock fares on an overcommitted host, with and
//! without halt and kick.
//!
//! - [`ways`]: which halts and doors this host has;
//! - [`guest`]: a VM with the lock program in it, on either backend;
//! - [`cell`]: one measurement: a mode, a number of vCPUs, a time;
//! - [`report`]: the table, the chart and the JSON.

pub mod cell;
pub mod guest;
pub mod report;
pub mod ways;

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use cpuid_features::{KvmFeatures, Negotiated, Selection};
use kvm_bindings::CpuId;
use kvm_ioctls::Kvm;
use pv_lock_host::{AdaptivePolling, HaltScheduler, Polling, SchedulerBuilder, Yielding};

use crate::host::{self, HostError};
use crate::probe::{self, Doors, ProbeError};
use crate::threads::VcpuThreads;
use crate::way::Way;
use crate::{cpuid, memory};
use cell::{Cell, CellError, Row};
pub use ways::{DoorChoice, HaltChoice, WaysError};

/// What runs the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum BackendChoice {
    /// KVM where /dev/kvm works, else hosted.
    Auto,
    /// /dev/kvm.
    Kvm,
    /// Host threads at native speed.
    Hosted,
}

/// How the guest waits for its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Busy-waits for ever.
    Spin,
    /// Spins up to a threshold, then halts until it is kicked.
    Pv,
}

impl Mode {
    /// As in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spin => "spin",
            Self::Pv => "pv",
        }
    }
}

/// What the guest does around its lock.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Rounds of work under the lock.
    pub hold: u64,
    /// Rounds of work between two critical sections.
    pub think: u64,
    /// How long a vCPU spins before it halts.
    pub spin: Duration,
}

/// What stands in for KVM's directed yield behind a kick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum YieldChoice {
    /// Nothing: the host's scheduler decides.
    Nothing,
    /// The kicker's thread yields its CPU.
    Sched,
    /// As many vCPUs run as there are host CPUs, each on one of them; a kicker
    /// gives its place to the vCPU it kicked, and steps back.
    Cap,
}

/// How a halted vCPU waits before its thread sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PollChoice {
    /// It sleeps at once.
    Off,
    /// It looks for a kick for 50 us.
    Fixed,
    /// KVM's adaptive window, but not on an overcommitted host.
    Adaptive,
}

/// Policies of the halt/kick scheduler.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Behind a kick.
    pub yielding: YieldChoice,
    /// Before a sleep.
    pub polling: PollChoice,
}

impl Default for Policy {
    /// What measures best on overcommitted hosts: docs/POLICIES.md.
    fn default() -> Self {
        Self {
            yielding: YieldChoice::Cap,
            polling: PollChoice::Off,
        }
    }
}

impl Policy {
    /// A scheduler's builder with these policies, for vCPUs on these threads
    /// whose APIC IDs are their indexes.
    pub fn builder(self, threads: &VcpuThreads) -> SchedulerBuilder {
        HaltScheduler::builder()
            .yielding(match self.yielding {
                YieldChoice::Nothing => Yielding::Nothing,
                YieldChoice::Sched => Yielding::SchedYield,
                YieldChoice::Cap => Yielding::Cap(threads.cap()),
            })
            .polling(match self.polling {
                PollChoice::Off => Polling::Off,
                PollChoice::Fixed => Polling::Fixed(Duration::from_micros(50)),
                PollChoice::Adaptive => Polling::Adaptive(AdaptivePolling::default()),
            })
    }
}

impl Default for Workload {
    /// Short sections, and a threshold that is short beside them.
    fn default() -> Self {
        Self {
            hold: 50,
            think: 100,
            spin: Duration::from_micros(10),
        }
    }
}

/// All that the demo can be told.
#[derive(Clone, Debug)]
pub struct DemoConfig {
    /// Numbers of vCPUs, a VM each.
    pub vcpus: Vec<u32>,
    /// Ways of waiting.
    pub modes: Vec<Mode>,
    /// What runs the guest.
    pub backend: BackendChoice,
    /// Who puts halted vCPUs to sleep.
    pub halt: HaltChoice,
    /// Where kicks go.
    pub door: DoorChoice,
    /// How long each cell runs.
    pub time: Duration,
    /// Features by name, on and off.
    pub pv: Selection,
    /// The guest's work.
    pub workload: Workload,
    /// The scheduler's policies.
    pub policy: Policy,
}

/// Why the demo could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// No KVM, and KVM was asked for.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A number of vCPUs that can't be had.
    #[error("--vcpus {asked}: {limit_of} runs 1 to {limit} vCPUs in a VM")]
    Vcpus {
        /// As given.
        asked: u32,
        /// The most there can be.
        limit: u32,
        /// Whose limit it is.
        limit_of: &'static str,
    },
    /// No such halt or door here.
    #[error(transparent)]
    Ways(#[from] WaysError),
    /// Finding out what this host has failed.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The features asked for can't be had.
    #[error(transparent)]
    Cpuid(#[from] cpuid::CpuidError),
    /// PV mode without the feature that tells a guest that it may.
    #[error("--modes pv needs pv-unhalt, which the guest is not offered: {0}")]
    NoUnhalt(String),
    /// A cell failed.
    #[error(transparent)]
    Cell(#[from] CellError),
}

/// The host's side of the choice of a backend.
#[derive(Debug)]
pub enum Backend {
    /// /dev/kvm and what it supports.
    Kvm {
        /// The device.
        kvm: Box<Kvm>,
        /// KVM_GET_SUPPORTED_CPUID.
        cpuid: CpuId,
        /// The paravirtual features in it.
        features: KvmFeatures,
        /// How a hypercall leaves a guest here.
        doors: Doors,
    },
    /// Host threads.
    Hosted,
}

impl Backend {
    /// As in the report.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Kvm { .. } => "kvm",
            Self::Hosted => "hosted",
        }
    }

    /// Resolves `choice` on this host. The second value says why `auto` did not
    /// take KVM.
    pub fn choose(choice: BackendChoice) -> Result<(Self, Option<HostError>), DemoError> {
        if choice == BackendChoice::Hosted {
            return Ok((Self::Hosted, None));
        }
        match host::open_kvm() {
            Ok(kvm) => {
                let (cpuid, features) = cpuid::supported(&kvm)?;
                let doors = probe::doors(&kvm)?;
                Ok((
                    Self::Kvm {
                        kvm: Box::new(kvm),
                        cpuid,
                        features,
                        doors,
                    },
                    None,
                ))
            }
            Err(e) if choice == BackendChoice::Auto => Ok((Self::Hosted, Some(e))),
            Err(e) => Err(e.into()),
        }
    }

    fn vcpu_limit(&self) -> (u32, &'static str) {
        match self {
            Self::Kvm { kvm, .. } => {
                let limit = u32::try_from(kvm.get_max_vcpus()).unwrap_or(u32::MAX);
                (limit.min(memory::MAX_VCPUS), "this host's KVM")
            }
            Self::Hosted => (memory::MAX_VCPUS, "the hosted backend"),
        }
    }

    /// What a guest that halts and kicks by `way` is offered.
    fn offer(&self, way: Way, vcpus: u32, want: &Selection) -> Result<Negotiated, DemoError> {
        let host = match self {
            Self::Kvm { features, .. } => *features,
            Self::Hosted => KvmFeatures::empty(),
        };
        Ok(cpuid::offer(host, &cpuid::support(way, vcpus), want)?)
    }
}

/// What a demo measured.
#[derive(Debug)]
pub struct Outcome {
    /// One row a cell that ran.
    pub rows: Vec<Row>,
    /// It was ended by a signal before all cells had run.
    pub interrupted: bool,
}

/// Checks the whole request: for each number of vCPUs one cell that spins, and
/// one for each way to halt and kick. Spinning is the same by any of them: it is
/// measured by the first.
pub fn plan(config: &DemoConfig, backend: &Backend) -> Result<Vec<Cell>, DemoError> {
    let (limit, limit_of) = backend.vcpu_limit();
    let ways = ways::find(backend, config.halt, config.door)?;
    let mut cells = Vec::new();
    for &vcpus in &config.vcpus {
        if !(1..=limit).contains(&vcpus) {
            return Err(DemoError::Vcpus {
                asked: vcpus,
                limit,
                limit_of,
            });
        }
        for &mode in &config.modes {
            for (i, &way) in ways.iter().enumerate() {
                if i > 0 && (mode == Mode::Spin || !ways::has_room(way, vcpus)) {
                    continue;
                }
                let offered = backend.offer(way, vcpus, &config.pv)?;
                let unhalt = offered.features.contains(KvmFeatures::PV_UNHALT);
                if mode == Mode::Pv && !unhalt {
                    let reason = offered.reason(KvmFeatures::PV_UNHALT);
                    let reason = reason.map_or_else(String::new, |d| d.reason.to_string());
                    return Err(DemoError::NoUnhalt(reason));
                }
                cells.push(Cell {
                    mode,
                    vcpus,
                    way,
                    offered,
                });
            }
        }
    }
    if let Some(cell) = cells.iter().find(|c| !ways::has_room(c.way, c.vcpus)) {
        return Err(DemoError::Vcpus {
            asked: cell.vcpus,
            limit: ways::KERNEL_VCPUS,
            limit_of: "--halt kernel",
        });
    }
    Ok(cells)
}

/// Runs each cell.
pub fn run(config: &DemoConfig, backend: &Backend, cells: &[Cell]) -> Result<Outcome, DemoError> {
    let Some(first) = cells.first() else {
        return Ok(Outcome {
            rows: Vec::new(),
            interrupted: false,
        });
    };
    let offered = backend.offer(first.way, 1, &config.pv)?;
    let speed = cell::calibrate(backend, first.way, &offered)?;
    let mut rows = Vec::with_capacity(cells.len());
    for (done, cell) in cells.iter().enumerate() {
        progress(done, cells.len(), cell);
        let (row, interrupted) =
            cell.run(backend, &config.workload, config.policy, speed, config.time)?;
        rows.push(row);
        if interrupted {
            progress_end();
            return Ok(Outcome {
                rows,
                interrupted: true,
            });
        }
    }
    progress_end();
    Ok(Outcome {
        rows,
        interrupted: false,
    })
}

/// One line on a terminal, overwritten; nothing elsewhere.
fn progress(done: usize, of: usize, cell: &Cell) {
    let mut err = std::io::stderr();
    if err.is_terminal() {
        let (mode, vcpus) = (
            report::label(cell.mode.name(), cell.way.halt.name(), cell.way.door.name()),
            cell.vcpus,
        );
        // A terminal that is gone is no reason to end a measurement.
        let _ = write!(err, "\r\x1b[K[{}/{of}] {mode}, {vcpus} vCPUs ...", done + 1);
    }
}

fn progress_end() {
    let mut err = std::io::stderr();
    if err.is_terminal() {
        let _ = write!(err, "\r\x1b[K");
    }
}
