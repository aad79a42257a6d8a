//! `vmm-reference conformance`.

use std::process::ExitCode;

use clap::Args;

use super::jail::JailArgs;
use super::{AnyError, INTERRUPTED, print};
use crate::{conformance, stderr};

/// Check what a guest may rely on: PV_UNHALT and KICK_CPU, case by case.
///
/// Runs a small guest for each case, with each halt mode and hypercall transport
/// that this host has. Exit status 1 if any case fails.
#[derive(Debug, Args)]
pub(super) struct ConformanceArgs {
    /// Print a JSON array, an object a verdict, instead of the matrix
    #[arg(long)]
    json: bool,
    /// Run the cases that have this in their name
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    case: String,
    /// Print the cases and what they expect, and run none
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    jail: JailArgs,
}

impl super::Subcommand for ConformanceArgs {
    const NAME: &str = "conformance";
    const ABOUT: &str = "Check what a guest may rely on: PV_UNHALT and KICK_CPU, case by case";

    fn run(self) -> Result<ExitCode, AnyError> {
        if self.list {
            let cases = conformance::cases::ALL.iter().copied().flatten();
            let lines = cases.map(|case| format!("{:<32}  {}\n", case.name, case.expects));
            print(&lines.collect::<String>())?;
            return Ok(ExitCode::SUCCESS);
        }
        self.jail.arm()?;
        let matrix = conformance::run(&self.case)?;
        if self.json {
            let rows = conformance::matrix::rows(&matrix);
            print(&format!("{}\n", serde_json::to_string_pretty(&rows)?))?;
        } else {
            print(&conformance::matrix::text(&matrix))?;
        }
        if matrix.failed() {
            return Ok(ExitCode::FAILURE);
        }
        if matrix.interrupted {
            let verdicts = matrix.entries.len();
            stderr::message(format_args!("ended by a signal after {verdicts} verdicts"));
            return Ok(ExitCode::from(INTERRUPTED));
        }
        Ok(ExitCode::SUCCESS)
    }
}
