//! The command line: what can be asked, and how an answer becomes an exit
//! status. One file a subcommand.

mod auto;
mod bench;
mod conformance;
mod demo;
mod jail;
mod probe;
mod run;
mod study;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command};

use crate::descriptor::Descriptor;
use crate::signals::{self, ending};
use crate::stderr;

/// A subcommand: what its file is for.
trait Subcommand: Args {
    const NAME: &str;
    /// Its line in the list of subcommands: the first of its arguments' help.
    const ABOUT: &str;

    fn run(self) -> Result<ExitCode, AnyError>;
}

/// A subcommand whose arguments are made known only when it is the one: making
/// all of them takes as long as making a VM's first half.
#[derive(Debug)]
struct Listed {
    name: &'static str,
    about: &'static str,
    describe: fn(Command) -> Command,
    run: fn(&ArgMatches) -> Result<ExitCode, AnyError>,
}

impl Listed {
    const fn of<S: Subcommand>() -> Self {
        Self {
            name: S::NAME,
            about: S::ABOUT,
            describe: S::augment_args,
            run: |matches| S::from_arg_matches(matches)?.run(),
        }
    }
}

const SUBCOMMANDS: &[Listed] = &[
    Listed::of::<bench::BenchArgs>(),
    Listed::of::<conformance::ConformanceArgs>(),
    Listed::of::<demo::DemoArgs>(),
    Listed::of::<probe::ProbeArgs>(),
    Listed::of::<run::RunArgs>(),
    Listed::of::<study::StudyArgs>(),
];

/// What was asked for, and how.
#[derive(Debug)]
pub struct Cli {
    entry: &'static Listed,
    matches: ArgMatches,
}

/// Ended by SIGINT or SIGTERM, as a shell reports it.
const INTERRUPTED: u8 = 130;
const USAGE: u8 = 2;

impl Cli {
    /// Parses the process's arguments. `--help` and `--version` print and are
    /// done; a usage error is one line on stderr and status 2.
    ///
    /// To be called by the main thread, first: from here on a signal to end is one
    /// that this process follows in order and within a second, and SIGUSR1 is no
    /// end.
    pub fn from_args() -> Result<Self, ExitCode> {
        // Without events or a timer to be had it ends as well as it can; who
        // needs them says so.
        let _ = signals::install();
        let _ = signals::install_stats();
        let _ = ending::limit(INTERRUPTED);
        Self::parse().map_err(|e| {
            if !e.use_stderr() || e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
                // Nothing is left to do if stdout or stderr is closed.
                let _ = e.print();
                return ExitCode::from(if e.use_stderr() { USAGE } else { 0 });
            }
            stderr::message(one_line(&e.to_string()));
            ExitCode::from(USAGE)
        })
    }

    fn parse() -> Result<Self, clap::Error> {
        let mut command = command();
        let mut matches = command.try_get_matches_from_mut(std::env::args_os())?;
        matches
            .remove_subcommand()
            .and_then(|(name, matches)| {
                let entry = SUBCOMMANDS.iter().find(|entry| entry.name == name)?;
                Some(Self { entry, matches })
            })
            .ok_or_else(|| command.error(ErrorKind::MissingSubcommand, "a subcommand is missing"))
    }

    /// Runs the subcommand. Status: 0 done, 1 an error in one line on stderr,
    /// 130 ended by a signal.
    pub fn run(self) -> ExitCode {
        (self.entry.run)(&self.matches).unwrap_or_else(|e| {
            stderr::message(e);
            // Whatever it was that could not be done then.
            match ending::is_asked() {
                true => ExitCode::from(INTERRUPTED),
                false => ExitCode::FAILURE,
            }
        })
    }
}

fn command() -> Command {
    let command = Command::new("vmm-reference")
        .version(env!("CARGO_PKG_VERSION"))
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .subcommand_required(true)
        .arg_required_else_help(true);
    command.subcommands(SUBCOMMANDS.iter().map(|entry| {
        Command::new(entry.name)
            .about(entry.about)
            .defer(entry.describe)
    }))
}

/// clap's message, which has several lines, in one; without its label and advice.
fn one_line(message: &str) -> String {
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let said = message.split("\n\nUsage:").next().unwrap_or(message);
    let said = said.split("\n\nFor more").next().unwrap_or(said);
    let words: Vec<&str> = said.split_whitespace().collect();
    format!("{} (see --help)", words.join(" "))
}

type AnyError = Box<dyn std::error::Error>;

/// Prints to stdout; a reader that has gone away is an error, not a panic, and one
/// that reads no more does not keep a process that was asked to end.
fn print(text: &str) -> Result<(), AnyError> {
    match Descriptor(io::stdout()).write_all(text.as_bytes()) {
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(ending::Interrupted.into()),
        written => Ok(written?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_says_what_each_help_says() {
        for entry in SUBCOMMANDS {
            let described = (entry.describe)(Command::new(entry.name));
            let about = described.get_about().map(ToString::to_string);
            assert_eq!(about.as_deref(), Some(entry.about));
        }
    }

    #[test]
    fn every_subcommand_is_well_formed() {
        let mut command = command();
        command.build();
        command.debug_assert();
    }
}
