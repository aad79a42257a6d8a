//! `vmm-reference demo`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use cpuid_features::Selection;

use super::{AnyError, INTERRUPTED, print};
use crate::demo::{
    self, Backend, BackendChoice, DemoConfig, DoorChoice, HaltChoice, Mode, Policy, PollChoice,
    Workload, YieldChoice,
};
use crate::{host, tell};

/// Measure lock contention under vCPU overcommit, spinning and with halt/kick.
///
/// Runs a small guest whose vCPUs take one lock again and again. With more
/// vCPUs than host CPUs, waiters that spin keep the CPU from the vCPU that
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
    /// Who puts a halted vCPU to sleep
    #[arg(long, default_value = "auto")]
    halt: HaltChoice,
    /// Where the guest's kicks go
    #[arg(long, default_value = "auto")]
    door: DoorChoice,
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
    #[arg(long = "yield", value_enum, default_value_t = Policy::default().yielding, value_name = "POLICY")]
    yielding: YieldChoice,
    /// How a halted vCPU waits before its thread sleeps
    #[arg(long = "poll", value_enum, default_value_t = Policy::default().polling, value_name = "POLICY")]
    polling: PollChoice,
}

/// A time in seconds: positive, and a day at most.
fn seconds(text: &str) -> Result<Duration, String> {
    let value: f64 = text.parse().map_err(|e| format!("{e}"))?;
    if !(value > 0.0 && value <= 86_400.0) {
        return Err("not in 0 (excluded) to 86400".to_string());
    }
    Ok(Duration::from_secs_f64(value))
}

impl super::Subcommand for DemoArgs {
    const NAME: &str = "demo";
    const ABOUT: &str =
        "Measure lock contention under vCPU overcommit, spinning and with halt/kick";

    fn run(self) -> Result<ExitCode, AnyError> {
        let config = DemoConfig {
            vcpus: self.vcpus,
            modes: self.modes,
            backend: self.backend,
            halt: self.halt,
            door: self.door,
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
            tell::line(format_args!("{reason}; using the hosted backend"));
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
            let cells = outcome.rows.len();
            tell::line(format_args!("ended by a signal after {cells} cells"));
            return Ok(ExitCode::from(INTERRUPTED));
        }
        Ok(ExitCode::SUCCESS)
    }
}
