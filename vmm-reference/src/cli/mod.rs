//! The command line: what can be asked, and how an answer becomes an exit
//! status. One file a subcommand.

mod bench;
mod conformance;
mod demo;
mod probe;
mod run;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Shows what KVM's paravirtual spinlocks are for, on this host's /dev/kvm.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::BenchArgs),
    Conformance(conformance::ConformanceArgs),
    Demo(demo::DemoArgs),
    Probe(probe::ProbeArgs),
    Run(run::RunArgs),
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
            Command::Bench(args) => args.run(),
            Command::Conformance(args) => args.run(),
            Command::Demo(args) => args.run(),
            Command::Probe(args) => args.run(),
            Command::Run(args) => args.run(),
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
