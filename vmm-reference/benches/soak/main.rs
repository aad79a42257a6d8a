//! A long mix of all that is done to a VMM, and whether it stays as it was.
//!
//! ```text
//! cargo bench -p vmm-reference --bench soak -- --seconds 1800
//! ```
//!
//! VMs that live as long as the soak ([`resident`]) are woken and print what they are
//! given, while their operator pauses, saves and restores them, stops their process,
//! and clients come that mean no good ([`client`]); beside them commands begin and
//! end ([`commands`]). Looked at are memory, descriptors and threads ([`usage`]), each
//! byte of output ([`heard`]), each kick, every exit status, and at the end that no
//! process and no file is left. The first fault ends it, with status 1.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that says how it goes"
)]
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "of what the tests share some is used; and JSON is indexed"
)]

#[macro_use]
#[path = "../../tests/common/mod.rs"]
mod common;

#[path = "../../tests/common/bad_guests/mod.rs"]
mod bad_guests;
mod client;
mod commands;
mod heard;
mod resident;
#[path = "../sigterm/situation.rs"]
mod situation;
mod usage;
mod watch;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use rustix::process::{Pid, set_child_subreaper};

use common::guests::{self, flat};
use common::{Scratch, kvm, process};
use heard::Expected;
use resident::{Kind, Resident};
use situation::Files;
use usage::{Usage, children};
use watch::{Fault, Watch};

/// What `cargo bench` passes on, too.
#[derive(Debug, Parser)]
struct Options {
    /// How long, without the end's own checks
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Seed of what comes when
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, hide = true)]
    bench: bool,
}

/// Between two looks at the clock.
pub(crate) const STEP: Duration = Duration::from_millis(500);

const RESIDENTS: &[Kind] = &[
    Kind {
        name: "halts in KVM",
        image: || flat(&guests::woken()),
        arguments: &["--halt", "kernel", "--cpus", "2"],
        expected: Expected::Letters,
    },
    Kind {
        name: "halts here",
        image: || flat(&guests::woken()),
        arguments: &["--halt", "userspace", "--cpus", "2"],
        expected: Expected::Letters,
    },
    Kind {
        name: "flood",
        image: || flat(&guests::flood()),
        arguments: &["--halt", "userspace"],
        expected: Expected::Only(b'x'),
    },
];

fn main() -> ExitCode {
    let options = Options::parse();
    let scratch = Scratch::new("soak");
    let watch = Watch::new(scratch.path("files"));
    let outcome = soak(&options, &watch);
    watch.judge(outcome);
    for (what, count) in watch.counts() {
        println!("{count:>8} {what}");
    }
    match watch.fault() {
        None => {
            println!("no fault in {:.0} s", watch.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
        Some(fault) => {
            eprintln!("soak: FAULT: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn soak(options: &Options, watch: &Watch) -> Result<(), Fault> {
    // Who loses its parent becomes a child of this process, and is seen.
    set_child_subreaper(Some(Pid::INIT)).map_err(|e| e.to_string())?;
    std::fs::create_dir_all(&watch.dir).map_err(|e| e.to_string())?;
    let before = Usage::of(std::process::id());
    let here = kvm();
    let kinds = if here { RESIDENTS } else { &[] };
    let residents = kinds.iter().map(|&kind| Resident::start(kind, watch));
    let residents: Vec<Resident> = residents.collect::<Result<_, _>>()?;
    std::thread::scope(|scope| {
        for resident in &residents {
            let name = resident.kind.name;
            let named = move |outcome: Result<(), Fault>| {
                outcome.map_err(|e| format!("VM \"{name}\": {e}"))
            };
            scope.spawn(move || watch.judge(named(resident.converse(watch))));
            scope.spawn(move || watch.judge(named(resident.operate(watch))));
        }
        scope.spawn(|| watch.judge(churn(watch, here, options.seed)));
        wait(options, watch);
        watch.end();
    });
    if watch.fault().is_none() {
        ended(&residents)?;
        drop(residents);
        left(watch, before)?;
    }
    Ok(())
}

fn churn(watch: &Watch, here: bool, seed: u64) -> Result<(), Fault> {
    let own = Scratch::new("soak-situations");
    let files = Files::new(&own, "");
    commands::churn(watch, &files, here, seed)
}

/// Says how it goes, to the end.
fn wait(options: &Options, watch: &Watch) {
    let terminal = std::io::stderr().is_terminal();
    let every = Duration::from_secs(if terminal { 1 } else { 60 });
    let (begin, end) = if terminal { ("\r", "") } else { ("", "\n") };
    let (mut told, mut before) = (Duration::ZERO, watch.elapsed());
    while before < Duration::from_secs(options.seconds) && watch.sleep(STEP) {
        let now = watch.elapsed();
        if now > before + 4 * STEP {
            watch.gap();
            let (gap, now) = ((now - before).as_secs(), now.as_secs());
            eprintln!("{begin}soak: has not run itself for {gap} s, up to {now} s");
        }
        before = now;
        if now >= told + every {
            told = now;
            let done: u64 = watch.counts().values().sum();
            let (now, all) = (now.as_secs(), options.seconds);
            eprint!("{begin}soak: {now} of {all} s, {done} done{end}");
        }
    }
    if terminal {
        eprintln!();
    }
}

/// How the VMs end, and what of them has grown.
fn ended(residents: &[Resident]) -> Result<(), Fault> {
    println!("least of the second quarter, and of the last:");
    println!("{:>17} {:>14} {:>14}  VM", "KiB", "descriptors", "threads");
    for resident in residents {
        if let Some((early, late)) = resident.usage() {
            println!(
                "{:>8} {:>8} {:>7} {:>6} {:>7} {:>6}  {}",
                early.memory_kib,
                late.memory_kib,
                early.descriptors,
                late.descriptors,
                early.threads,
                late.threads,
                resident.kind.name,
            );
        }
    }
    for resident in residents {
        let name = resident.kind.name;
        let ended = resident.end();
        ended.map_err(|e| format!("VM \"{name}\", asked to end: {e}"))?;
        if let Some(growth) = resident.growth() {
            return Err(format!("VM \"{name}\" grows: {growth}"));
        }
    }
    Ok(())
}

/// What is left when all have ended, of processes, files and descriptors.
fn left(watch: &Watch, before: Option<Usage>) -> Result<(), Fault> {
    if let Some((id, line)) = children(std::process::id()).first() {
        return Err(format!("a process is left: {id}: {line}"));
    }
    for entry in std::fs::read_dir(&watch.dir)
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // What the soak itself wrote; and the sockets of copies that were killed.
        let own = [".kernel", ".snapshot", ".copy.socket"];
        let known = ["study", "kernel"].contains(&&*name);
        if !known && !own.iter().any(|own| name.ends_with(own)) {
            return Err(format!("a file is left: {name}"));
        }
    }
    let now = Usage::of(std::process::id());
    let open = |usage: Option<Usage>| usage.map(|usage| usage.descriptors);
    match open(now) <= open(before) {
        true => Ok(()),
        false => Err(format!("the soak itself: {before:?} before, {now:?} after")),
    }
}
