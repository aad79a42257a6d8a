//! A start that is asked to end at some moment, in the situations that could hold
//! its end up.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::guests::{self, flat};
use crate::common::{Patience, Scratch, full_pipe, run, signal, spawn, until_it_handles, vmm};

/// After this a process is killed, and a failure.
const KILL: Duration = Duration::from_secs(20);
/// Who has not looked for so long was stopped or frozen itself.
const ABSENT: Duration = Duration::from_millis(500);
/// After this it is told where its threads are: in order, it would have ended.
const SLOW: Duration = Duration::from_millis(600);

/// What a process meets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Situation {
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

pub(crate) const ALL: [Situation; 10] = [
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
pub(crate) struct Files {
    flood: PathBuf,
    halted: PathBuf,
    socket: PathBuf,
    study: PathBuf,
}

impl Files {
    /// In this directory, under names of this prefix.
    pub(crate) fn new(dir: &Scratch, prefix: &str) -> Self {
        let name = |of: &str| format!("{prefix}{of}");
        Self {
            flood: dir.file(&name("flood"), &flat(&guests::flood())),
            halted: dir.file(&name("halted"), &flat(&guests::dead_halt())),
            socket: dir.path(&name("socket")),
            study: dir.path(&name("study")),
        }
    }
}

impl Situation {
    pub(crate) fn needs_kvm(self) -> bool {
        !matches!(
            self,
            Self::Demo | Self::StalledDemo | Self::Probe | Self::Study | Self::Conformance
        )
    }

    /// The command and the statuses of its orderly ends: ended by the signal, or
    /// just before it.
    fn command(self, files: &Files) -> (Command, &'static [i32]) {
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

/// What each of its threads is in: the system call and the kernel's stack, as far as
/// they may be read.
fn whereabouts(process: u32) -> String {
    let mut text = String::new();
    let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
    for task in tasks.into_iter().flatten().flatten() {
        let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let (name, call) = (read("comm"), read("syscall"));
        let _ = writeln!(text, "  {}: {}", name.trim_end(), call.trim_end());
        for line in read("stack").lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    text
}

/// How a process ended that was asked to.
#[derive(Clone, Copy)]
pub(crate) struct End {
    pub(crate) took: Duration,
    /// Not in order.
    pub(crate) forced: bool,
}

/// One start: how it ended, if it had not before it was asked to and this process
/// could look; or what was wrong.
pub(crate) fn one(
    situation: Situation,
    files: &Files,
    moment: Duration,
) -> Result<Option<End>, String> {
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
    let (mut told, mut looked, mut absent) = (false, asked, false);
    let mut patience = Patience::new(KILL);
    let status = loop {
        // It sleeps for far less than that.
        absent |= looked.elapsed() > ABSENT;
        looked = Instant::now();
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if !told && asked.elapsed() > SLOW {
            told = true;
            eprintln!("{situation:?}, SIGTERM after {moment:?}: still there after {SLOW:?}");
            eprint!("{}", whereabouts(child.id()));
        }
        if patience.is_over() {
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
    if absent {
        // Nobody measured.
        eprintln!(
            "{situation:?}, SIGTERM after {moment:?}: not counted, for this process did not run"
        );
        return Ok(None);
    }
    Ok(Some(End {
        took,
        forced: said.contains("by force"),
    }))
}
