//! `vmm-reference bench`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::auto::{self, Auto};
use super::jail::JailArgs;
use super::{AnyError, print};
use crate::bench::locks::{self, LockSet};
use crate::bench::{control, handover, policies, trace};
use crate::demo::{Backend, BackendKind};
use crate::jail::{self, ThreadKind};
use crate::stderr;

/// Measure hand-overs, scheduling policies, pauses and traces.
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(flatten)]
    jail: JailArgs,
    #[command(subcommand)]
    what: Benchmark,
}

#[derive(Debug, Subcommand)]
enum Benchmark {
    /// How long it takes to pause a VM, beside a signal's round trip
    Control {
        /// Times each is measured
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(10..=10_000))]
        count: u16,
        /// Print a JSON array instead of the table
        #[arg(long)]
        json: bool,
    },
    /// What each part of a hand-over costs on this host
    Handover {
        /// Print a JSON array instead of the table
        #[arg(long)]
        json: bool,
    },
    /// The demo's pv rate by yield and polling policy, at 1x to 8x, as Markdown
    Policies {
        /// What runs the guest
        #[arg(long, default_value = "auto", value_parser = auto::parser::<BackendKind>())]
        backend: Auto<BackendKind>,
        /// Milliseconds a cell
        #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u64).range(10..=60_000))]
        cell_ms: u64,
        /// Times each cell is measured; the policies take turns
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
        turns: u16,
        /// Instead, these locks in the study's guest, with the policies that follow
        /// a kick side by side: rate, p99 wait, least share
        #[arg(long, value_delimiter = ',')]
        locks: Vec<LockSet>,
    },
    /// What --trace costs when it is on, and when it is off
    Trace {
        /// What runs the guest
        #[arg(long, default_value = "auto", value_parser = auto::parser::<BackendKind>())]
        backend: Auto<BackendKind>,
        /// Milliseconds a cell
        #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u64).range(10..=60_000))]
        cell_ms: u64,
        /// Times each cell is measured with a trace and without one
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=1000))]
        turns: u16,
    },
}

impl super::Subcommand for BenchArgs {
    const NAME: &str = "bench";
    const ABOUT: &str = "Measure hand-overs, scheduling policies, pauses and traces";

    fn run(self) -> Result<ExitCode, AnyError> {
        self.jail.arm()?;
        match self.what {
            Benchmark::Control { count, json } => {
                let rows = control::measure(count.into())?;
                if json {
                    print(&format!("{}\n", serde_json::to_string_pretty(&rows)?))?;
                } else {
                    print(&control::text(&rows))?;
                }
            }
            Benchmark::Handover { json } => {
                let parts = handover::measure()?;
                if json {
                    print(&format!("{}\n", serde_json::to_string_pretty(&parts)?))?;
                } else {
                    print(&handover::text(&parts))?;
                }
            }
            Benchmark::Policies {
                backend,
                cell_ms,
                turns,
                locks,
            } => {
                let backend = choose(backend)?;
                jail::enter(ThreadKind::Builder)?;
                let (turns, time) = (turns.into(), Duration::from_millis(cell_ms));
                if locks.is_empty() {
                    print(&policies::measure(&backend, turns, time)?.markdown())?;
                } else {
                    print(&locks::measure(backend, &locks, turns, time)?.markdown())?;
                }
            }
            Benchmark::Trace {
                backend,
                cell_ms,
                turns,
            } => {
                let backend = choose(backend)?;
                jail::enter(ThreadKind::Tracer)?;
                let (turns, time) = (turns.into(), Duration::from_millis(cell_ms));
                print(&trace::measure(backend, turns, time)?.text())?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn choose(kind: Auto<BackendKind>) -> Result<Backend, AnyError> {
    let (backend, why_hosted) = Backend::choose(kind.chosen())?;
    if let Some(reason) = why_hosted {
        stderr::message(format_args!("{reason}; using the hosted backend"));
    }
    Ok(backend)
}
