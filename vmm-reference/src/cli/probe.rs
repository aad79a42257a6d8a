//! `vmm-reference probe`.

use std::process::ExitCode;

use clap::Args;

use super::jail::JailArgs;
use super::{AnyError, print};
use crate::probe;

/// Find out what this host offers: hypercall transports, halts, features, limits.
#[derive(Debug, Args)]
pub(super) struct ProbeArgs {
    /// Print a JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    jail: JailArgs,
}

impl super::Subcommand for ProbeArgs {
    const NAME: &str = "probe";
    const ABOUT: &str =
        "Find out what this host offers: hypercall transports, halts, features, limits";

    fn run(self) -> Result<ExitCode, AnyError> {
        self.jail.arm()?;
        let report = probe::probe()?;
        if self.json {
            print(&format!("{}\n", serde_json::to_string_pretty(&report)?))?;
        } else {
            print(&report.text())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
