//! The main job: how a contended lock fares on an overcommitted host, with and
//! without halt and kick.
//!
//! - [`choose`]: which halt modes and hypercall transports this host has;
//! - [`lock_vm`]: a VM with the lock program in it, on either backend;
//! - [`cell`]: one measurement: a mode, a VM, a time;
//! - [`table`]: the table, the chart and what they mean;
//! - [`live`]: the rows as they are measured, on a terminal.

pub mod cell;
pub mod choose;
pub mod live;
pub mod lock_vm;
pub mod table;

use std::time::Duration;

use cpuid_features::{KvmFeatures, Selection};
use serde::Serialize;

use crate::cpuid::CpuidError;
use crate::halt_mode::HaltMode;
use crate::host::{HostError, KvmHost};
use crate::payload::image;
use crate::policy::Policy;
use crate::probe::{ProbeError, ProbedHost};
use crate::trace::Collector;
use crate::transport::{HaltKick, Instruction, Transport};
use crate::vm::VmSpec;
use cell::{Cell, CellError, DemoRow};
pub use choose::ChoiceError;
use live::DemoWatcher;

/// What runs the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendKind {
    /// /dev/kvm.
    Kvm,
    /// Host threads at native speed.
    Hosted,
}

impl BackendKind {
    /// `kvm` or `hosted`, as on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Hosted => "hosted",
        }
    }
}

/// How the guest waits for its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Busy-waits for ever.
    Spin,
    /// Spins up to a threshold, then halts until it is kicked.
    Pv,
}

impl Mode {
    /// `spin` or `pv`, as on the command line and in reports.
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

/// What the demo is asked for.
#[derive(Clone, Debug)]
pub struct DemoConfig {
    /// Numbers of vCPUs of a VM.
    pub vcpus: Vec<u32>,
    /// Numbers of VMs that run at once; empty: one.
    pub vms: Vec<u32>,
    /// How the guests wait for their lock.
    pub modes: Vec<Mode>,
    /// Who puts halted vCPUs to sleep; None: each that this host has.
    pub halt: Option<HaltMode>,
    /// The hypercall transport; None: each that this host has.
    pub transport: Option<Transport>,
    /// How long each cell runs.
    pub time: Duration,
    /// Features by name, on and off.
    pub pv: Selection,
    /// The guest's work.
    pub workload: Workload,
    /// The scheduler's policies.
    pub policy: Policy,
    /// What the vCPUs do is recorded.
    pub trace: Option<Collector>,
}

/// vCPUs of all VMs that run at once; each is a thread.
const MOST_VCPUS: u32 = image::MAX_VCPUS;

/// Why the demo could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// No KVM, and KVM was asked for.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A number of vCPUs that can't be had.
    #[error("--vcpus {asked}: {limit_of} runs 1 to {limit} vCPUs in a VM")]
    Vcpus {
        /// The number that was asked for.
        asked: u32,
        /// The most there can be.
        limit: u32,
        /// Whose limit it is.
        limit_of: &'static str,
    },
    /// More threads than anybody wants to wait for.
    #[error("--vms {vms} of --vcpus {vcpus}: at most {MOST_VCPUS} vCPUs run at once")]
    VcpusAtOnce {
        /// The number of VMs that was asked for.
        vms: u32,
        /// The number of vCPUs of each.
        vcpus: u32,
    },
    /// No such halt mode or transport here.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    /// Finding out what this host has failed.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The features asked for can't be had.
    #[error(transparent)]
    Cpuid(#[from] CpuidError),
    /// PV mode without the feature that allows it to a guest.
    #[error("--modes pv needs pv-unhalt, which the guest is not offered: {0}")]
    NoUnhalt(String),
    /// A cell failed.
    #[error(transparent)]
    Cell(#[from] CellError),
}

/// What runs the guests.
#[derive(Debug)]
pub enum Backend {
    /// This host's KVM.
    Kvm(Box<ProbedHost>),
    /// Host threads.
    Hosted,
}

impl Backend {
    /// Which of the two it is.
    pub const fn kind(&self) -> BackendKind {
        match self {
            Self::Kvm(_) => BackendKind::Kvm,
            Self::Hosted => BackendKind::Hosted,
        }
    }

    /// Finds it: without a choice, KVM where /dev/kvm works. The second value
    /// says why it did not.
    ///
    /// # Errors
    /// KVM was chosen and is not there, or could not be probed.
    pub fn choose(choice: Option<BackendKind>) -> Result<(Self, Option<HostError>), DemoError> {
        if choice == Some(BackendKind::Hosted) {
            return Ok((Self::Hosted, None));
        }
        match KvmHost::open() {
            Ok(host) => Ok((Self::Kvm(Box::new(ProbedHost::probe(host)?)), None)),
            Err(e) if choice.is_none() => Ok((Self::Hosted, Some(e))),
            Err(e) => Err(e.into()),
        }
    }

    /// The host, if it is KVM.
    pub fn host(&self) -> Option<&KvmHost> {
        match self {
            Self::Kvm(probed) => Some(&probed.host),
            Self::Hosted => None,
        }
    }

    /// The hypercall instruction of its guests, for the transports that use one.
    pub fn instruction(&self) -> Instruction {
        match self {
            Self::Kvm(probed) => probed.transports.instruction,
            Self::Hosted => None,
        }
        .unwrap_or(Instruction::Vmcall)
    }

    fn vcpu_limit(&self) -> (u32, &'static str) {
        match self.host() {
            Some(host) => {
                let limit = u32::try_from(host.kvm.get_max_vcpus()).unwrap_or(u32::MAX);
                (limit.min(image::MAX_VCPUS), "this host's KVM")
            }
            None => (image::MAX_VCPUS, "the hosted backend"),
        }
    }
}

/// What a demo measured.
#[derive(Debug)]
pub struct DemoOutcome {
    /// One row a cell that ran.
    pub rows: Vec<DemoRow>,
    /// It was ended by a signal before all cells had run.
    pub interrupted: bool,
}

impl DemoConfig {
    fn numbers_of_vms(&self) -> &[u32] {
        match self.vms.as_slice() {
            [] => &[1],
            vms => vms,
        }
    }

    fn spec(&self, vcpus: u32, halt_kick: HaltKick) -> VmSpec {
        VmSpec {
            policy: self.policy,
            pv: self.pv,
            ..VmSpec::bare(vcpus, halt_kick)
        }
    }
}

/// Checks the whole request: for each number of vCPUs one cell that spins, and
/// one for each halt mode and transport. Spinning is the same with any of them:
/// it is measured with the first.
///
/// # Errors
/// Something of it can't be had.
pub fn plan(config: &DemoConfig, backend: &Backend) -> Result<Vec<Cell>, DemoError> {
    let (limit, limit_of) = backend.vcpu_limit();
    let found = choose::find(backend, config.halt, config.transport)?;
    let mut cells = Vec::new();
    for &vcpus in &config.vcpus {
        if !(1..=limit).contains(&vcpus) {
            return Err(DemoError::Vcpus {
                asked: vcpus,
                limit,
                limit_of,
            });
        }
        let too_many = |&&vms: &&u32| vms.saturating_mul(vcpus) > MOST_VCPUS;
        if let Some(&vms) = config.numbers_of_vms().iter().find(too_many) {
            return Err(DemoError::VcpusAtOnce { vms, vcpus });
        }
        for &mode in &config.modes {
            for (i, &halt_kick) in found.iter().enumerate() {
                if i > 0 && (mode == Mode::Spin || !choose::has_room(halt_kick, vcpus)) {
                    continue;
                }
                let mut spec = config.spec(vcpus, halt_kick);
                if let Some(collector) = &config.trace {
                    let transport = halt_kick.transport.name(backend.instruction());
                    let label = table::label(mode, halt_kick.halt, transport);
                    spec.trace = Some(collector.vm(format!("{label}, {vcpus} vCPUs")));
                }
                let offered = spec.negotiate(backend.host())?;
                let unhalt = offered.features.contains(KvmFeatures::PV_UNHALT);
                if mode == Mode::Pv && !unhalt {
                    let reason = offered.reason(KvmFeatures::PV_UNHALT);
                    let reason = reason.map_or_else(String::new, |d| d.reason.to_string());
                    return Err(DemoError::NoUnhalt(reason));
                }
                for &vms in config.numbers_of_vms() {
                    let spec = spec.clone();
                    cells.push(Cell { mode, spec, vms });
                }
            }
        }
    }
    let no_room = |cell: &&Cell| !choose::has_room(cell.spec.halt_kick, cell.spec.vcpus);
    if let Some(cell) = cells.iter().find(no_room) {
        return Err(DemoError::Vcpus {
            asked: cell.spec.vcpus,
            limit: choose::KERNEL_VCPUS,
            limit_of: "--halt kernel",
        });
    }
    Ok(cells)
}

/// What `--pv` changed in these cells, each sentence once.
///
/// # Errors
/// A feature that was asked for can't be had.
pub fn effects_of_pv(backend: &Backend, cells: &[Cell]) -> Result<Vec<String>, DemoError> {
    let mut all: Vec<String> = Vec::new();
    for cell in cells {
        for effect in cell.spec.effects_of_pv(backend.host())? {
            if !all.contains(&effect) {
                all.push(effect);
            }
        }
    }
    Ok(all)
}

/// Runs each cell.
///
/// # Errors
/// A cell failed.
pub fn run(
    config: &DemoConfig,
    backend: &Backend,
    cells: &[Cell],
    watcher: &mut dyn DemoWatcher,
) -> Result<DemoOutcome, DemoError> {
    let mut outcome = DemoOutcome {
        rows: Vec::with_capacity(cells.len()),
        interrupted: false,
    };
    let Some(first) = cells.first() else {
        return Ok(outcome);
    };
    let speed = match cell::calibrate(backend, &first.spec) {
        Err(e) if e.is_interruption() => {
            outcome.interrupted = true;
            return Ok(outcome);
        }
        speed => speed?,
    };
    for cell in cells {
        let HaltKick { halt, transport } = cell.spec.halt_kick;
        let transport = transport.name(backend.instruction());
        watcher.begins(cell, &table::label(cell.mode, halt, transport));
        let ran = cell.run(backend, &config.workload, speed, config.time);
        let (rows, interrupted) = match ran {
            Err(e) if e.is_interruption() => (Vec::new(), true),
            ran => ran?,
        };
        let before = outcome.rows.len();
        outcome.rows.extend(rows);
        watcher.measured(&outcome.rows, before);
        if interrupted {
            outcome.interrupted = true;
            break;
        }
    }
    Ok(outcome)
}
