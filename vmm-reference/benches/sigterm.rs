//! From SIGTERM to the process's end: a number of starts, each signalled at a
//! random moment, in the situations that could hold an end up.
//!
//! ```text
//! cargo bench -p vmm-reference --bench sigterm -- --count 1000
//! ```
//!
//! A figure is of the process: from the signal until it can be waited for. A status
//! that is none of an end that was asked for is an error and told; ends by force are
//! counted.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that can't be made fails by panicking, and prints"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use rustix::process::Signal;

use common::guests::{self, flat};
use common::{Scratch, full_pipe, kvm, run, signal, spawn, until_it_handles};

/// What `cargo bench` passes on, too.
#[derive(Debug, Parser)]
struct Options {
    /// Starts, of all situations together
    #[arg(long, default_value_t = 40)]
    count: u32,
    /// Seed of the moments
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, hide = true)]
    bench: bool,
}

/// Nothing that was asked to end is to take longer.
const LIMIT: Duration = Duration::from_secs(1);
/// After this a process is killed, and a failure.
const KILL: Duration = Duration::from_secs(20);
/// Moments are up to here.
const LATEST: Duration = Duration::from_millis(1500);

/// What a process meets.
#[derive(Clone, Copy, Debug)]
enum Situation {
    /// The guest prints without end; everything is read.
    Flood,
    /// The same, and nobody reads.
    StalledOutput,
    /// Nobody reads standard error, on which there are lines of statistics.
    StalledError,
    /// The VM is paused, or about to be: many requests at once.
    Paused,
    /// Halted for ever.
    Halted,
    /// `demo`, on what this host has.
    Demo,
    /// `demo --json` on host threads, whose output nobody reads.
    StalledDemo,
    /// `probe`.
    Probe,
    /// `study`, on what this host has.
    Study,
    /// `conformance`.
    Conformance,
}

const ALL: [Situation; 10] = [
    Situation::Flood,
    Situation::StalledOutput,
    Situation::StalledError,
    Situation::Paused,
    Situation::Halted,
    Situation::Demo,
    Situation::StalledDemo,
    Situation::Probe,
    Situation::Study,
    Situation::Conformance,
];

/// What all starts share.
struct Files {
    flood: PathBuf,
    halted: PathBuf,
    socket: PathBuf,
    study: PathBuf,
}

impl Situation {
    fn needs_kvm(self) -> bool {
        !matches!(
            self,
            Self::Demo | Self::StalledDemo | Self::Probe | Self::Study | Self::Conformance
        )
    }

    /// The command and the statuses of its orderly ends: ended by the signal, or
    /// just before it.
    fn command(self, files: &Files) -> (Command, &'static [i32]) {
        let vmm = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_vmm-reference"));
            command.args(arguments).stdin(Stdio::null());
            command
        };
        match self {
            Self::Flood | Self::StalledOutput => (run(&files.flood), &[0]),
            Self::StalledError => {
                let mut command = run(&files.halted);
                command.arg("--stats");
                (command, &[0])
            }
            Self::Paused => {
                let mut command = run(&files.flood);
                command.arg("--control").arg(&files.socket);
                (command, &[0])
            }
            Self::Halted => (run(&files.halted), &[0]),
            Self::Demo => (vmm(&["demo", "--vcpus", "2,8", "--seconds", "1"]), &[130]),
            Self::StalledDemo => {
                let stalled = ["demo", "--backend=hosted", "--json", "--vcpus=2"];
                let mut command = vmm(&stalled);
                command.args(["--seconds", "0.2"]);
                (command, &[130])
            }
            Self::Probe => (vmm(&["probe"]), &[0, 130]),
            Self::Study => {
                let mut command = vmm(&["study", "--quick", "--out"]);
                command.arg(&files.study);
                (command, &[130])
            }
            Self::Conformance => (vmm(&["conformance"]), &[130]),
        }
    }
}

/// Requests to pause, more than it can serve.
fn pause_often(socket: &Path) -> Option<UnixStream> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream
        .write_all(&b"{\"request\":\"pause\"}\n".repeat(200))
        .ok()?;
    Some(stream)
}

/// How a process ended that was asked to.
#[derive(Clone, Copy)]
struct End {
    took: Duration,
    /// Not in order.
    forced: bool,
}

/// One start: how it ended, if it had not before it was asked to; or what was wrong.
fn one(situation: Situation, files: &Files, moment: Duration) -> Result<Option<End>, String> {
    let (mut command, statuses) = situation.command(files);
    let (_stalled, full) = full_pipe();
    match situation {
        Situation::StalledOutput | Situation::Paused | Situation::StalledDemo => {
            command.stdout(full).stderr(Stdio::piped());
        }
        Situation::StalledError => {
            command.stdout(Stdio::null()).stderr(full);
        }
        _ => {
            command.stdout(Stdio::null()).stderr(Stdio::piped());
        }
    }
    let mut child = spawn(&mut command);
    // Before that the system itself ends it.
    until_it_handles(&child, Signal::TERM);
    let begin = Instant::now();
    let mut client = None;
    while begin.elapsed() < moment {
        match situation {
            Situation::StalledError => signal(&child, Signal::USR1),
            Situation::Paused if client.is_none() => client = pause_often(&files.socket),
            _ => {}
        }
        let left = moment.saturating_sub(begin.elapsed());
        std::thread::sleep(left.min(Duration::from_millis(100)));
        if child.try_wait().unwrap().is_some() {
            // It was done before: nothing to measure.
            return Ok(None);
        }
    }
    let asked = Instant::now();
    signal(&child, Signal::TERM);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if asked.elapsed() > KILL {
            return Err(format!("killed after {KILL:?}"));
        }
        std::thread::sleep(Duration::from_micros(200));
    };
    let took = asked.elapsed();
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said).unwrap();
    }
    if !status.code().is_some_and(|code| statuses.contains(&code)) {
        return Err(format!("{status} after {took:?}: {}", said.trim_end()));
    }
    Ok(Some(End {
        took,
        forced: said.contains("by force"),
    }))
}

/// A random number: the moments have to be spread, and no more.
fn next(state: &mut u64) -> u64 {
    // xorshift64, Marsaglia 2003.
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

fn main() {
    let options = Options::parse();
    let dir = Scratch::new("sigterm");
    let files = Files {
        flood: dir.file("flood", &flat(&guests::flood())),
        halted: dir.file("halted", &flat(&guests::dead_halt())),
        socket: dir.path("socket"),
        study: dir.path("study"),
    };
    let here = kvm();
    let situations = ALL.iter().filter(|s| here || !s.needs_kvm());
    let situations: Vec<Situation> = situations.copied().collect();
    let mut state = options.seed.max(1);
    let mut all = Vec::new();
    let (mut wrong, mut forced) = (0, 0);
    println!("SIGTERM to exit              starts   p50 ms   p99 ms   max ms");
    for (index, &situation) in (0u32..).zip(&situations) {
        let number = u32::try_from(situations.len()).unwrap();
        // The first ones have what does not divide.
        let starts = options.count / number + u32::from(index < options.count % number);
        let mut times = Vec::new();
        for _ in 0..starts {
            let most = u64::try_from(LATEST.as_micros()).unwrap();
            let moment = Duration::from_micros(next(&mut state) % most);
            match one(situation, &files, moment) {
                Ok(None) => {}
                Ok(Some(end)) => {
                    times.push(end.took);
                    forced += u32::from(end.forced);
                }
                Err(what) => {
                    println!("{situation:?} at {moment:?}: {what}");
                    wrong += 1;
                }
            }
        }
        times.sort();
        row(&format!("{situation:?}"), &times);
        all.extend(times);
    }
    all.sort();
    row("all", &all);
    let slow = all.iter().filter(|&&took| took > LIMIT).count();
    println!("{slow} took longer than 1 s; {forced} ended by force; {wrong} had another status");
    if wrong > 0 {
        drop(dir);
        std::process::exit(1);
    }
}

fn row(name: &str, sorted: &[Duration]) {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "{name:<28} {:>6} {:>8.1} {:>8.1} {:>8.1}",
        sorted.len(),
        ms(quantile(sorted, 50)),
        ms(quantile(sorted, 99)),
        ms(sorted.last().copied().unwrap_or_default()),
    );
}
