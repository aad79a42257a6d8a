//! The command line: what can be asked, and how an answer becomes an exit
//! status.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use cpuid_features::Selection;

use crate::demo::{
    self, Backend, BackendChoice, DemoConfig, Mode, Policy, PollChoice, Workload, YieldChoice,
};
use crate::{host, probe};

/// Shows what KVM's paravirtual spinlocks are for, on this host's /dev/kvm.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(DemoArgs),
    Probe(ProbeArgs),
}

/// Measure lock contention under vCPU overcommit, spinning and with halt/kick.
///
/// Runs a small guest whose vCPUs take one lock again and again. With more
/// vCPUs than host CPUs, waiters that spin keep the CPU from the vCPU that
/// holds the lock; waiters that halt, to be woken by KVM_HC_KICK_CPU, do not.
#[derive(Debug, Args)]
struct DemoArgs {
    /// Numbers of vCPUs; each is a VM of its own
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1,2,4,8",
        value_name = "N,..."
    )]
    vcpus: Vec<u32>,
    /// Ways of waiting for the lock
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "spin,pv",
        value_name = "MODE,..."
    )]
    modes: Vec<Mode>,
    /// What runs the guest
    #[arg(long, default_value = "auto")]
    backend: BackendChoice,
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
    #[arg(long, default_value_t = 50)]
    hold: u64,
    /// Rounds of work between two critical sections
    #[arg(long, default_value_t = 100)]
    think: u64,
    /// Microseconds that a vCPU spins before it halts
    #[arg(long, default_value_t = 10)]
    spin_us: u64,
    /// What stands in for KVM's directed yield behind a kick
    #[arg(long = "yield", default_value = "sched", value_name = "POLICY")]
    yielding: YieldChoice,
    /// How a halted vCPU waits before its thread sleeps
    #[arg(long = "poll", default_value = "off", value_name = "POLICY")]
    polling: PollChoice,
}

/// Find out what this host offers: doors, halts, features, limits.
#[derive(Debug, Args)]
struct ProbeArgs {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// A time in seconds: positive, and a day at most.
fn seconds(text: &str) -> Result<Duration, String> {
    let value: f64 = text.parse().map_err(|e| format!("{e}"))?;
    if !(value > 0.0 && value <= 86_400.0) {
        return Err("not in 0 (excluded) to 86400".to_string());
    }
    Ok(Duration::from_secs_f64(value))
}

/// Ended by SIGINT or SIGTERM, as a shell reports it.
const INTERRUPTED: u8 = 130;
const USAGE: u8 = 2;

impl Cli {
    /// Parses the process's arguments. `--help` and `--version` print and are
    /// done; a usage error is one line on stderr and status 2.
    pub fn from_args() -> Result<Self, ExitCode> {
        Self::try_parse().map_err(|e| {
            use clap::error::ErrorKind;
            if !e.use_stderr() || e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
                // Nothing is left to do if stdout or stderr is closed.
                let _ = e.print();
                return ExitCode::from(if e.use_stderr() { USAGE } else { 0 });
            }
            eprintln!("vmm-reference: {}", one_line(&e.to_string()));
            ExitCode::from(USAGE)
        })
    }

    /// Does what was asked. Status: 0 done, 1 an error in one line on stderr,
    /// 130 ended by a signal.
    pub fn run(self) -> ExitCode {
        let result = match self.command {
            Command::Demo(args) => args.run(),
            Command::Probe(args) => args.run(),
        };
        result.unwrap_or_else(|e| {
            eprintln!("vmm-reference: {e}");
            ExitCode::FAILURE
        })
    }
}

/// What clap says on several lines, without its label and its advice.
fn one_line(message: &str) -> String {
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let said = message.split("\n\nUsage:").next().unwrap_or(message);
    let said = said.split("\n\nFor more").next().unwrap_or(said);
    let words: Vec<&str> = said.split_whitespace().collect();
    format!("{} (--help tells more)", words.join(" "))
}

type AnyError = Box<dyn std::error::Error>;

/// Prints to stdout; a reader that has gone away is an error, not a panic.
fn print(text: &str) -> Result<(), AnyError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

impl DemoArgs {
    fn run(self) -> Result<ExitCode, AnyError> {
        let config = DemoConfig {
            vcpus: self.vcpus,
            modes: self.modes,
            backend: self.backend,
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
        };
        let (backend, why_hosted) = Backend::choose(config.backend)?;
        if let Some(reason) = why_hosted {
            eprintln!("vmm-reference: {reason}; using the hosted backend");
        }
        let cells = demo::plan(&config, &backend)?;
        if !self.json {
            print(&format!(
                "backend: {}; host CPUs: {}; {} s a cell; {} rounds held, {} between, {} us of \
                 spinning before a halt\n\n",
                backend.name(),
                host::cpus(),
                config.time.as_secs_f64(),
                config.workload.hold,
                config.workload.think,
                config.workload.spin.as_micros(),
            ))?;
        }
        let outcome = demo::run(&config, &backend, &cells)?;
        if self.json {
            print(&format!(
                "{}\n",
                serde_json::to_string_pretty(&outcome.rows)?
            ))?;
        } else {
            print(&demo::report::text(&outcome.rows))?;
        }
        if outcome.interrupted {
            eprintln!(
                "vmm-reference: ended by a signal after {} cells",
                outcome.rows.len()
            );
            return Ok(ExitCode::from(INTERRUPTED));
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl ProbeArgs {
    fn run(self) -> Result<ExitCode, AnyError> {
        let report = probe::probe()?;
        if self.json {
            print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
        } else {
            print(&report.text())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
