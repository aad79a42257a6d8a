//! `vmm-reference bench`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::{AnyError, print};
use crate::bench::{handover, policies};
use crate::demo::{Backend, BackendChoice};
use crate::tell;

/// Measure where the time of a hand-over goes, or compare the policies.
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// What each part of a kick's way costs on this host
    Handover {
        /// Print a JSON array instead of the table
        #[arg(long)]
        json: bool,
    },
    /// The demo's pv rate by yield and polling policy, at 1x to 8x, as Markdown
    Policies {
        /// What runs the guest
        #[arg(long, default_value = "auto")]
        backend: BackendChoice,
        /// Milliseconds a cell
        #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u64).range(10..=60_000))]
        cell_ms: u64,
        /// Times each cell is measured; the policies take turns
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
        turns: u16,
    },
}

impl super::Subcommand for BenchArgs {
    const NAME: &str = "bench";
    const ABOUT: &str = "Measure where the time of a hand-over goes, or compare the policies";

    fn run(self) -> Result<ExitCode, AnyError> {
        match self.what {
            What::Handover { json } => {
                let parts = handover::measure()?;
                if json {
                    print(&format!("{}\n", serde_json::to_string_pretty(&parts)?))?;
                } else {
                    print(&handover::text(&parts))?;
                }
            }
            What::Policies {
                backend,
                cell_ms,
                turns,
            } => {
                let (backend, why_hosted) = Backend::choose(backend)?;
                if let Some(reason) = why_hosted {
                    tell::line(format_args!("{reason}; using the hosted backend"));
                }
                let table =
                    policies::measure(&backend, turns.into(), Duration::from_millis(cell_ms))?;
                print(&table.markdown())?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
