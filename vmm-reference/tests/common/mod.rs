//! What the tests of `run` share: guests, and a VMM process bounded in time.

// Each test binary uses another part.
#![allow(dead_code, reason = "each test file is a program of its own")]

pub(crate) mod control;
#[macro_use]
pub(crate) mod guests;
pub(crate) mod linux;
pub(crate) mod process;

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

pub(crate) use process::Process;

/// A guest of a few instructions ends long before; an emulating, loaded host
/// takes its time.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// Whether there is a KVM to test with; says so if not.
pub(crate) fn kvm() -> bool {
    let usable = kvm_ioctls::Kvm::new().is_ok();
    if !usable {
        eprintln!("not run: /dev/kvm is missing or refused here");
    }
    usable
}

/// Starts it.
pub(crate) fn spawn(command: &mut Command) -> Process {
    Process::start(command).unwrap()
}

/// A directory that goes away with the test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// One of its own, whatever names other tests of this process use.
    pub(crate) fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // Relaxed: it only has to be another one each time.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("vmm-{name}-{}-{number}", std::process::id());
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        File::create(&path).unwrap().write_all(content).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a VMM process said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The program under test: another build of it, if `VMM_REFERENCE` names one.
pub(crate) fn program() -> PathBuf {
    let other = std::env::var_os("VMM_REFERENCE");
    other.map_or(env!("CARGO_BIN_EXE_vmm-reference").into(), PathBuf::from)
}

/// `vmm-reference` with these arguments, ready for more, and without input.
pub(crate) fn vmm(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(arguments).stdin(Stdio::null());
    command
}

/// `vmm-reference run` with 16 MiB, ready for more arguments.
pub(crate) fn run(kernel: &Path) -> Command {
    let mut command = run_unsized(kernel);
    command.args(["--memory", "16M"]);
    command
}

/// `vmm-reference run` without a size of memory.
pub(crate) fn run_unsized(kernel: &Path) -> Command {
    let mut command = vmm(&["run", "--kernel"]);
    command.arg(kernel);
    command
}

/// Runs a command to its end, for at most [`LIMIT`].
pub(crate) fn finish(command: &mut Command) -> Said {
    collect(spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped())))
}

/// What a process says whose output goes to pipes, to its end, for at most [`LIMIT`].
pub(crate) fn collect(mut child: Process) -> Said {
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let stdout = std::thread::spawn(move || {
        let mut text = Vec::new();
        out.read_to_end(&mut text).unwrap();
        text
    });
    let stderr = std::thread::spawn(move || {
        let mut text = Vec::new();
        err.read_to_end(&mut text).unwrap();
        text
    });
    let status = wait(&mut child, LIMIT);
    let text = |thread: std::thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&thread.join().unwrap()).into_owned()
    };
    Said {
        status: status.and_then(|s| s.code()),
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

/// How long something may take still, asked again and again. Time in which this
/// process itself did not run, for it was stopped or frozen, does not count: nor did
/// what it waits for.
#[derive(Debug)]
pub(crate) struct Patience {
    left: Duration,
    asked: Instant,
}

impl Patience {
    /// From now on.
    pub(crate) fn new(limit: Duration) -> Self {
        Self {
            left: limit,
            asked: Instant::now(),
        }
    }

    /// Whether it is over. To be asked several times a second.
    pub(crate) fn is_over(&mut self) -> bool {
        let since = self.asked.elapsed();
        self.asked = Instant::now();
        self.left = self.left.saturating_sub(since.min(Duration::from_secs(1)));
        self.left.is_zero()
    }
}

/// Waits for the process; kills it, and answers `None`, after `limit`.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let mut patience = Patience::new(limit);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if patience.is_over() {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends the process a signal.
pub(crate) fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// A pipe that is full: the end to read from, which nobody does, and the other one
/// to give to a child.
pub(crate) fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    // The last one does not fit.
    while writer.write(&[b'x'; 4096]).is_ok() {}
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

/// Waits until the process handles this signal, or is gone.
pub(crate) fn until_it_handles(child: &Child, signal: Signal) {
    let bit = 1u64 << (signal.as_raw() - 1);
    let end = Instant::now() + LIMIT;
    let path = format!("/proc/{}/status", child.id());
    while let Ok(status) = std::fs::read_to_string(&path) {
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let Some(caught) = caught else { return };
        if u64::from_str_radix(caught.trim(), 16).unwrap() & bit != 0 {
            return;
        }
        assert!(Instant::now() < end, "it never handles {signal:?}");
        std::thread::yield_now();
    }
}

/// A pseudo-terminal: the master, and the slave to give to a child.
pub(crate) fn terminal() -> (File, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    (File::from(master), slave)
}
