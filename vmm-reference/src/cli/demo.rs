//! `vmm-reference demo`.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use cpuid_features::Selection;

use super::auto::{self, Auto};
use super::jail::JailArgs;
use super::{AnyError, INTERRUPTED, print};
use crate::demo::live::Live;
use crate::demo::{self, Backend, BackendKind, DemoConfig, Mode, Workload};
use crate::halt_mode::HaltMode;
use crate::jail::{self, ThreadKind};
use crate::policy::{Policy, PollPolicy, YieldPolicy};
use crate::trace::file::TraceFile;
use crate::transport::Transport;
use crate::{host, stderr};

/// Measure lock contention under vCPU overcommit, spinning and with halt/kick.
///
/// Runs a small guest whose vCPUs take one lock again and again. With more
/// vCPUs than pCPUs, waiters that spin keep the pCPU from the vCPU that
/// holds the lock; waiters that halt, to be woken by KVM_HC_KICK_CPU, do not.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Numbers of vCPUs; each is a VM of its own
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1,2,4,8",
        value_name = "N,..."
    )]
    vcpus: Vec<u32>,
    /// Numbers of VMs that run at once, each with that many vCPUs: a row for each
    /// VM, and their sum
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1",
        value_name = "N,...",
        value_parser = clap::value_parser!(u32).range(1..=64)
    )]
    vms: Vec<u32>,
    /// How the guest waits for its lock
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "spin,pv",
        value_name = "MODE,..."
    )]
    modes: Vec<Mode>,
    /// What runs the guest; auto: KVM where /dev/kvm works, else hosted
    #[arg(long, default_value = "auto", value_parser = auto::parser::<BackendKind>())]
    backend: Auto<BackendKind>,
    /// Who puts a halted vCPU to sleep; auto: each that this host has, a row for
    /// each
    #[arg(long, default_value = "auto", value_parser = auto::parser::<HaltMode>())]
    halt: Auto<HaltMode>,
    /// The hypercall transport of the kicks; auto: each that this host has, a row
    /// for each
    #[arg(
        long,
        alias = "door",
        default_value = "auto",
        value_parser = auto::parser::<Transport>()
    )]
    transport: Auto<Transport>,
    /// Print a JSON array, an object a cell, instead of the table
    #[arg(long)]
    json: bool,
    /// How long each cell runs
    #[arg(long, default_value = "2", value_parser = seconds)]
    seconds: Duration,
    /// Paravirtual features by name, on and off
    #[arg(
        long,
        default_value = "",
        allow_hyphen_values = true,
        value_name = "+NAME,-NAME"
    )]
    pv: Selection,
    /// Rounds of work inside the critical section
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = rounds())]
    hold: u64,
    /// Rounds of work between two critical sections
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = rounds())]
    think: u64,
    /// Microseconds that a vCPU spins before it halts
    #[arg(
        long,
        default_value_t = 10,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(..=1_000_000)
    )]
    spin_us: u64,
    /// What stands in for KVM's directed yield after a kick
    #[arg(long = "yield", value_enum, default_value_t = Policy::default().yielding, value_name = "POLICY")]
    yielding: YieldPolicy,
    /// How a halted vCPU waits before its thread sleeps
    #[arg(long = "poll", value_enum, default_value_t = Policy::default().polling, value_name = "POLICY")]
    polling: PollPolicy,
    /// Write what each vCPU did to this file, for Perfetto: its last 20,000 events
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    #[command(flatten)]
    jail: JailArgs,
}

/// A guest that is asked to leave does so between two critical sections: with more
/// rounds than these it would not within seconds.
fn rounds() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(..=100_000)
}

/// A time in seconds: a millisecond to a day.
fn seconds(text: &str) -> Result<Duration, String> {
    let value: f64 = text.parse().map_err(|e| format!("{e}"))?;
    if !(0.001..=86_400.0).contains(&value) {
        return Err("not in 0.001 to 86400".to_string());
    }
    Ok(Duration::from_secs_f64(value))
}

impl super::Subcommand for DemoArgs {
    const NAME: &str = "demo";
    const ABOUT: &str =
        "Measure lock contention under vCPU overcommit, spinning and with halt/kick";

    fn run(self) -> Result<ExitCode, AnyError> {
        self.jail.arm()?;
        let trace = self.trace.as_deref().map(TraceFile::create).transpose()?;
        let config = DemoConfig {
            vcpus: self.vcpus,
            vms: self.vms,
            modes: self.modes,
            halt: self.halt.chosen(),
            transport: self.transport.chosen(),
            time: self.seconds,
            pv: self.pv,
            workload: Workload {
                hold: self.hold,
                think: self.think,
                spin: Duration::from_micros(self.spin_us),
            },
            policy: Policy {
                yielding: self.yielding,
                polling: self.polling,
            },
            trace: trace.as_ref().map(TraceFile::collector),
        };
        let (backend, why_hosted) = Backend::choose(self.backend.chosen())?;
        if let Some(reason) = why_hosted {
            stderr::message(format_args!("{reason}; using the hosted backend"));
        }
        jail::enter(match trace {
            Some(_) => ThreadKind::Tracer,
            None => ThreadKind::Builder,
        })?;
        let cells = demo::plan(&config, &backend)?;
        let effects = demo::effects_of_pv(&backend, &cells)?;
        effects.iter().for_each(stderr::message);
        if !self.json {
            print(&format!(
                "backend: {}; {} pCPUs; {} s a cell; {} rounds held, {} between, {} us of spinning \
                 before a halt\n\n",
                backend.kind().name(),
                host::cpus(),
                config.time.as_secs_f64(),
                config.workload.hold,
                config.workload.think,
                config.workload.spin.as_micros(),
            ))?;
        }
        // On a terminal the rows are printed as they are measured.
        let mut live =
            (!self.json && io::stdout().is_terminal()).then(|| Live::new(cells.len(), config.time));
        let outcome = match &mut live {
            Some(live) => demo::run(&config, &backend, &cells, live)?,
            None => demo::run(&config, &backend, &cells, &mut ())?,
        };
        let is_live = live.take().is_some();
        if self.json {
            print(&format!(
                "{}\n",
                serde_json::to_string_pretty(&outcome.rows)?
            ))?;
        } else if is_live {
            print(&demo::table::behind_table(&outcome.rows))?;
        } else {
            print(&demo::table::text(&outcome.rows))?;
        }
        if let Some(trace) = trace {
            trace.write()?;
        }
        if outcome.interrupted {
            let cells = outcome.rows.len();
            stderr::message(format_args!("ended by a signal after {cells} cells"));
            return Ok(ExitCode::from(INTERRUPTED));
        }
        Ok(ExitCode::SUCCESS)
    }
}
