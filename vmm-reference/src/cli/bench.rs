//! `vmm-reference bench`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::auto::{self, Auto};
use super::jail::JailArgs;
use super::{AnyError, print};
use crate::bench::locks::{self, LockSet};
use crate::bench::snapshot::{rounds, speed};
use crate::bench::{control, handover, policies, trace};
use crate::demo::{Backend, BackendKind};
use crate::halt_mode::HaltMode;
use crate::jail::{self, ThreadKind};
use crate::run::config::MemorySize;
use crate::stderr;

/// Measure hand-overs, scheduling policies, pauses, traces and snapshots.
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
    /// Whether the demo's guest survives that it is saved and restored again and
    /// again, each time in a new process
    Snapshot {
        /// Times it is saved and restored
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        rounds: u32,
        /// Number of its vCPUs
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
        vcpus: u32,
        /// Who puts a halted vCPU to sleep
        #[arg(long, default_value = "userspace")]
        halt: HaltMode,
        /// Print a JSON object instead of the text
        #[arg(long)]
        json: bool,
    },
    /// How long a snapshot and a restore take, beside the bare writing and mapping of
    /// the same bytes
    Restore {
        /// Size of the VM's memory, at most 1G
        #[arg(long, default_value = "256M", value_name = "SIZE")]
        memory: MemorySize,
        /// Times each is measured, in turns
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
        turns: u16,
        /// Where the files are made
        #[arg(long, default_value = ".", value_name = "DIR")]
        directory: PathBuf,
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
    const ABOUT: &str = "Measure hand-overs, scheduling policies, pauses, traces and snapshots";

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
            Benchmark::Snapshot {
                rounds,
                vcpus,
                halt,
                json,
            } => {
                let done = rounds::run(halt, vcpus, rounds)?;
                if json {
                    print(&format!("{}\n", serde_json::to_string_pretty(&done)?))?;
                } else {
                    print(&rounds::text(&done))?;
                }
            }
            Benchmark::Restore {
                memory,
                turns,
                directory,
                json,
            } => {
                let bytes = memory.bytes();
                let rows = speed::measure(bytes, turns.into(), &directory)?;
                if json {
                    print(&format!("{}\n", serde_json::to_string_pretty(&rows)?))?;
                } else {
                    print(&speed::text(bytes, &rows))?;
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
