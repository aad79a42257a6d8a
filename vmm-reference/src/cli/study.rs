//! `vmm-reference study`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use super::auto::{self, Auto};
use super::jail::JailArgs;
use super::{AnyError, INTERRUPTED, print};
use crate::demo::{Backend, BackendKind, choose};
use crate::jail::{self, ThreadKind};
use crate::policy::{Policy, YieldPolicy};
use crate::study::cells::{self, Cells};
use crate::study::compare::compare;
use crate::study::dataset::{Dataset, End, Load, Noise, Settings, Waiter};
use crate::study::driver::{Status, Study};
use crate::study::finite::Finite;
use crate::study::linux;
use crate::study::output::Folder;
use crate::study::plan::{self, Extent};
use crate::study::report::{summary, warnings};
use crate::study::watch::Watch;
use crate::trace::file::TraceFile;
use crate::{host, stderr};

/// Find out how much overcommit this host bears, and write a report.
///
/// Runs small guests whose vCPUs share a lock, with more and more vCPUs a host
/// CPU, by each way to wait for it: spinning, or halting until kicked. Cells run
/// in random order until their figures are known well enough or the budget is
/// spent. Ctrl-C ends it, with a report of what was measured until then.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct StudyArgs {
    #[command(subcommand)]
    what: Option<What>,
    /// Fewer cells, in one minute
    #[arg(long)]
    quick: bool,
    /// How long a cell runs at a time, in seconds [default: 0.25, quick: 0.15]
    #[arg(long, value_parser = seconds)]
    seconds: Option<Finite>,
    /// How long all of it may take, in seconds [default: 300, quick: 60]
    #[arg(long, value_parser = seconds, value_name = "SECONDS")]
    budget: Option<Finite>,
    /// Only these loads: short, long (sections; --quick has none), uncontended, mixed
    /// (beside vCPUs that compute or sleep)
    #[arg(long, value_delimiter = ',', value_parser = load, value_name = "LIST")]
    loads: Option<Vec<Load>>,
    /// The folder for report.html, data.json and data.csv
    #[arg(long, default_value = "study", value_name = "DIR")]
    out: PathBuf,
    /// What runs the guests
    #[arg(long, default_value = "auto", value_parser = auto::parser::<BackendKind>())]
    backend: Auto<BackendKind>,
    /// What follows a kick
    #[arg(long = "yield", value_enum, default_value_t = Policy::default().yielding, value_name = "POLICY")]
    yielding: YieldPolicy,
    /// Write what each vCPU did to this file, for Perfetto; every cell is in it,
    /// with its last 20,000 events a vCPU
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Seed of the order of cells and of the statistics
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    jail: JailArgs,
}

#[derive(Debug, Subcommand)]
enum What {
    /// What differs between two studies: two hosts, or two versions
    Compare {
        /// The data.json of the first
        a: PathBuf,
        /// The data.json of the second
        b: PathBuf,
        /// Print a JSON array, an object a cell, instead of the table
        #[arg(long)]
        json: bool,
    },
    /// Make a report of what `ci/lab/run study-linux` measured
    Read {
        /// Its lines
        file: PathBuf,
        /// The folder for report.html, data.json and data.csv
        #[arg(long, default_value = "study", value_name = "DIR")]
        out: PathBuf,
        /// Time was emulated, if FILE does not say where it was measured
        #[arg(long)]
        emulated: bool,
    },
}

/// Microseconds that a waiter spins before it halts.
const SPIN_US: u64 = 10;

/// A time in seconds: positive, and a day at most.
fn seconds(text: &str) -> Result<Finite, String> {
    let value: f64 = text.parse().map_err(|e| format!("{e}"))?;
    Finite::new(value)
        .filter(|value| (0.001..=86_400.0).contains(&value.get()))
        .ok_or_else(|| "not in 0.001 to 86400".to_string())
}

/// A load of the plan, by the name that it has in a file.
fn load(text: &str) -> Result<Load, String> {
    let mut loads = plan::LOADS.into_iter();
    loads.find(|load| load.id() == text).ok_or_else(|| {
        let names = plan::LOADS.map(Load::id).join(", ");
        format!("not one of {names}")
    })
}

impl super::Subcommand for StudyArgs {
    const NAME: &str = "study";
    const ABOUT: &str = "Find out how much overcommit this host bears, and write a report";

    fn run(self) -> Result<ExitCode, AnyError> {
        match self.what {
            Some(What::Compare { a, b, json }) => {
                let comparison = compare(&Dataset::read(&a)?, &Dataset::read(&b)?);
                if json {
                    let records = comparison.records();
                    print(&format!("{}\n", serde_json::to_string_pretty(&records)?))?;
                } else {
                    print(&comparison.text())?;
                }
                Ok(ExitCode::SUCCESS)
            }
            Some(What::Read {
                file,
                out,
                emulated,
            }) => {
                let folder = Folder::open(&out)?;
                let cpus = u32::try_from(host::cpus()).unwrap_or(u32::MAX);
                let mut host = Watch::begin().end("kvm", None, cpus);
                host.emulated = emulated;
                // Nothing was timed between the measurements.
                host.noise = Noise::default();
                let (data, is_told) = linux::read(&file, host)?;
                if !is_told {
                    stderr::message(format_args!(
                        "{}: does not say on which host it was measured: taken for this one, \
                         {cpus} pCPUs",
                        file.display()
                    ));
                }
                print(&terminal(&data))?;
                let report = folder.write(&data)?;
                print(&format!("\nreport: {}\n", report.display()))?;
                Ok(ExitCode::SUCCESS)
            }
            None => {
                self.jail.arm()?;
                self.study()
            }
        }
    }
}

impl StudyArgs {
    fn study(self) -> Result<ExitCode, AnyError> {
        // Before anything is measured.
        let folder = Folder::open(&self.out)?;
        let trace = self.trace.as_deref().map(TraceFile::create).transpose()?;
        let (extent, time, budget) = match self.quick {
            true => (Extent::Quick, 0.15, 60.0),
            false => (Extent::Full, 0.25, 300.0),
        };
        let default = |value| Finite::new(value).unwrap_or_default();
        let (backend, why_hosted) = Backend::choose(self.backend.chosen())?;
        let why_hosted = why_hosted.map(|reason| reason.to_string());
        if let Some(reason) = &why_hosted {
            stderr::message(format_args!("{reason}; using the hosted backend"));
        }
        jail::enter(ThreadKind::Study)?;
        let cpus = u32::try_from(host::cpus()).unwrap_or(u32::MAX);
        let ways = cells::ways(&choose::find(&backend, None, None)?);
        let policy = Policy {
            yielding: self.yielding,
            ..Policy::default()
        };
        let mut cells = plan::cells(extent, cpus, &ways);
        if let Some(loads) = &self.loads {
            cells.retain(|key| loads.contains(&key.load));
            if cells.is_empty() {
                return Err("--loads long: a quick study has no long sections".into());
            }
        }
        let timelines = [Waiter::Ticket, Waiter::PvTicket]
            .into_iter()
            .filter_map(|waiter| {
                let of = |key: &&_| is_telling(key, waiter, cpus);
                cells.iter().find(of).copied()
            });
        let study = Study {
            timelines: timelines.collect(),
            settings: Settings {
                seconds: self.seconds.unwrap_or(default(time)),
                budget: self.budget.unwrap_or(default(budget)),
                seed: self.seed,
                spin_us: SPIN_US,
                yielding: name(self.yielding),
            },
            cells,
            cpus,
        };
        let spin = Duration::from_micros(SPIN_US);
        let collector = trace.as_ref().map(TraceFile::collector);
        let mut cells = Cells::new(backend, why_hosted, policy, spin, collector)?;
        let bar = progress();
        let data = study.run(&mut cells, |status| show(&bar, status));
        bar.finish_and_clear();
        // Files first, for somebody may have to read the terminal; and the terminal
        // even if they can't be written.
        let written = folder.write(&data);
        print(&terminal(&data))?;
        let report = written?;
        print(&format!("\nreport: {}\n", report.display()))?;
        if let Some(trace) = trace {
            trace.write()?;
        }
        Ok(match data.end {
            End::Interrupted => ExitCode::from(INTERRUPTED),
            End::Narrow | End::Budget => ExitCode::SUCCESS,
        })
    }
}

fn name(yielding: YieldPolicy) -> String {
    let value = clap::ValueEnum::to_possible_value(&yielding);
    value.map_or_else(String::new, |value| value.get_name().to_string())
}

/// 4x overcommit by one VM: where a timeline tells something.
fn is_telling(key: &crate::study::dataset::CellKey, waiter: Waiter, cpus: u32) -> bool {
    let alone = (key.vms, key.vcpus) == (1, 4 * cpus);
    alone && key.load == Load::Short && key.series.waiter == waiter
}

/// On a terminal; elsewhere nothing is drawn.
fn progress() -> ProgressBar {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("[{pos}/{len}] {bar:24} {msg}") {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar, status: Status<'_>) {
    let left = status.left.as_secs();
    bar.set_length(u64::try_from(status.of).unwrap_or(u64::MAX));
    bar.set_position(u64::try_from(status.done).unwrap_or(u64::MAX));
    bar.set_message(format!("{left} s left: {}", status.now));
}

/// Three sentences, and what to know before believing them.
fn terminal(data: &Dataset) -> String {
    let mut out = String::new();
    for sentence in summary::sentences(data) {
        out.push_str(&sentence);
        out.push('\n');
    }
    for warning in warnings::all(data) {
        out.push_str(&format!("note: {warning}\n"));
    }
    out
}
