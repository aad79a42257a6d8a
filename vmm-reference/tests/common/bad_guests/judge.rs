//! One run of a guest that never ends, observed from outside.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::BadGuest;
use crate::process::Process;

/// How long a guest may take to come up, and a VMM to end that does not.
const LIMIT: Duration = Duration::from_secs(60);
/// From "up" to the first look: what is touched once has been touched.
const SETTLE: Duration = Duration::from_millis(500);
/// Bytes of guest memory; all of it counts as resident once it was touched.
const MEMORY: &str = "16M";

/// What was seen.
#[derive(Debug)]
#[allow(
    dead_code,
    reason = "tests judge no time and no CPU; ci/bad-guests does"
)]
pub(crate) struct Observed {
    /// The guest said that it begins.
    pub(crate) up: bool,
    /// It still ran when it was told to end.
    pub(crate) ran_on: bool,
    /// Growth of resident memory in the window, in KiB.
    pub(crate) growth_kib: i64,
    /// CPU time in the window, as parts of it: of the vCPUs' threads, of all others.
    pub(crate) vcpu_cpu: f64,
    pub(crate) own_cpu: f64,
    /// From SIGTERM to its end. None: it did not end by it.
    pub(crate) stopped_in: Option<Duration>,
    /// Its exit status.
    pub(crate) status: Option<i32>,
    /// What it said on standard error.
    pub(crate) stderr: String,
}

impl Observed {
    /// A count of `--stats`; 0 if there is none of that name.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let counts = self.stderr.lines().filter_map(|line| {
            let (of, count) = line.split_once(char::is_whitespace)?;
            let count: u64 = count.trim().parse().ok()?;
            (of == name).then_some(count)
        });
        counts.sum()
    }
}

/// Runs `guest` in `vmm run` with these further arguments, watches it for a while and
/// ends it by SIGTERM. `dir` is for its kernel.
pub(crate) fn observe(
    vmm: &Path,
    dir: &Path,
    guest: &BadGuest,
    arguments: &[&str],
    window: Duration,
) -> std::io::Result<Observed> {
    let kernel = dir.join("kernel");
    fs::write(&kernel, (guest.image)())?;
    let mut command = Command::new(vmm);
    command
        .args(["run", "--memory", MEMORY, "--test-device"])
        // It ends if this process is killed, too.
        .args(["--parent", &std::process::id().to_string()])
        .args(["--cpus", &guest.cpus.to_string(), "--kernel"])
        .arg(&kernel)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = Process::start(&mut command)?;
    let (up, output) = channel();
    let mut stdout = child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
    let mut stderr = child.stderr.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
    let messages = thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stderr.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    // Read to its end: a guest that waits for its reader does no harm.
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(1..) = stdout.read(&mut buffer) {
            let _ = up.send(());
        }
    });
    let mut observed = watch(&mut child, &output, window);
    observed.stderr = messages.join().unwrap_or_default();
    Ok(observed)
}

fn watch(child: &mut Child, output: &Receiver<()>, window: Duration) -> Observed {
    let up = output.recv_timeout(LIMIT).is_ok();
    thread::sleep(SETTLE);
    let before = Sample::of(child.id());
    let began = Instant::now();
    thread::sleep(window);
    let (after, passed) = (Sample::of(child.id()), began.elapsed());
    let ran_on = matches!(child.try_wait(), Ok(None));
    let told = Instant::now();
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
    let mut status = None;
    while status.is_none() && told.elapsed() < LIMIT {
        status = child.try_wait().ok().flatten();
        thread::sleep(Duration::from_millis(1));
    }
    let stopped_in = status.map(|_| told.elapsed());
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let share = |ticks: u64| ticks as f64 / TICKS_A_SECOND / passed.as_secs_f64();
    Observed {
        up,
        ran_on,
        growth_kib: after.resident_kib - before.resident_kib,
        vcpu_cpu: share(after.vcpu_ticks.saturating_sub(before.vcpu_ticks)),
        own_cpu: share(after.own_ticks.saturating_sub(before.own_ticks)),
        stopped_in,
        status: status.and_then(|status| status.code()),
        stderr: String::new(),
    }
}

/// Of `utime` and `stime`: USER_HZ is 100 on x86.
const TICKS_A_SECOND: f64 = 100.0;

/// A process at one time; nothing of one that has ended.
#[derive(Debug, Default)]
struct Sample {
    resident_kib: i64,
    vcpu_ticks: u64,
    own_ticks: u64,
}

impl Sample {
    fn of(process: u32) -> Self {
        let mut sample = Self::default();
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok());
        sample.resident_kib = kib.unwrap_or(0);
        let tasks = fs::read_dir(format!("/proc/{process}/task"));
        for task in tasks.into_iter().flatten().flatten() {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            // proc(5): the name in parentheses; utime and stime are fields 14 and 15.
            let Some((name, rest)) = stat.rsplit_once(')') else {
                continue;
            };
            let fields = rest.split_ascii_whitespace().skip(11).take(2);
            let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
            match name.contains("(vcpu") {
                true => sample.vcpu_ticks += ticks,
                false => sample.own_ticks += ticks,
            }
        }
        sample
    }
}
