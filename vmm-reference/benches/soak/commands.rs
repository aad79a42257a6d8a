//! Commands that begin and end all the time: what they print is judged, and so is
//! how they end.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use oorandom::Rand32;
use rustix::process::Signal;
use serde_json::Value;

use crate::common::guests::{self, flat};
use crate::common::{Said, finish, run, signal, spawn, until_it_handles, vmm, wait};
use crate::situation::{self, Files, Situation};
use crate::watch::{Fault, Watch};
use crate::{STEP, bad_guests};

/// One of them, and what there is to be said against it.
type Deed = fn(&Turn<'_>) -> Result<&'static str, Fault>;

/// What is done where there is a /dev/kvm; what stands twice comes twice as often.
const ON_KVM: &[Deed] = &[
    short_guest,
    short_guest,
    demo_on_kvm,
    rounds,
    rounds_interrupted,
    bad_guest,
    asked_to_end,
    asked_to_end,
    conformance,
];
/// What is done on any host, with a /dev/kvm or without.
const ANYWHERE: &[Deed] = &[demo_hosted, study, probe, asked_to_end];

/// What a deed is given: where it reports, the guests' files, and a random number.
struct Turn<'a> {
    watch: &'a Watch,
    files: &'a Files,
    kvm: bool,
    /// Anything, another one each time.
    random: u32,
}

/// One after the other in random order, as long as the soak goes on.
pub(crate) fn churn(watch: &Watch, files: &Files, kvm: bool, seed: u64) -> Result<(), Fault> {
    let mut random = Rand32::new(seed);
    let on_kvm = if kvm { ON_KVM } else { &[] };
    let all: Vec<&Deed> = on_kvm.iter().chain(ANYWHERE).collect();
    while !watch.is_over() {
        let turn = Turn {
            watch,
            files,
            kvm,
            random: random.rand_u32(),
        };
        if let Some(deed) = pick(&all, random.rand_u32()) {
            watch.done(deed(&turn)?);
        }
    }
    Ok(())
}

fn pick<T: Copy>(from: &[T], random: u32) -> Option<T> {
    let index = usize::try_from(random).unwrap_or(0) % from.len().max(1);
    from.get(index).copied()
}

/// Runs it to its end, which is to have this status. A command that was frozen with
/// the soak may have run out of its own time: it is told, and run again.
fn finished(turn: &Turn<'_>, command: &mut Command, status: i32) -> Result<Said, Fault> {
    command.env("TMPDIR", &turn.watch.dir);
    loop {
        let gaps = turn.watch.gaps();
        let said = finish(command);
        let panicked = said.stderr.contains("panicked");
        if said.status == Some(status) && !panicked {
            return Ok(said);
        }
        let Said {
            status,
            stderr,
            stdout,
        } = said;
        // Failures among many results are on standard output.
        let failed = stdout.split('}').filter(|part| part.contains("\"fail\""));
        let failed: Vec<&str> = failed.map(str::trim).collect();
        let fault = format!(
            "{command:?}: status {status:?}: {}{}",
            stderr.trim_end(),
            failed.join(" ")
        );
        // For whoever looks at the clock to have seen it.
        std::thread::sleep(STEP * 2);
        if panicked || turn.watch.gaps() == gaps {
            return Err(fault);
        }
        eprintln!("soak: frozen meanwhile, and done again: {fault}");
    }
}

/// Guests that end by themselves.
fn short_guest(turn: &Turn<'_>) -> Result<&'static str, Fault> {
    type Image = fn() -> Vec<u8>;
    let cases: [(&str, Image, i32, usize, &str); 6] = [
        ("talker", guests::talker, 1, 32768, ""),
        ("resetter", guests::resetter, 0, 0, ""),
        ("power-off", guests::power_off, 0, 0, ""),
        ("toucher", guests::toucher, 1, 0, ""),
        ("triple-fault", guests::triple_fault, 1, 0, "triple fault"),
        ("cut", Vec::new, 1, 0, "ends in its multiboot header"),
    ];
    let Some((name, code, status, printed, told)) = pick(&cases, turn.random) else {
        return Err("no guests".to_string());
    };
    let mut image = flat(&code());
    if name == "cut" {
        image.truncate(20);
    }
    let path = turn.watch.path(&format!("{name}.kernel"));
    std::fs::write(&path, &image).map_err(|e| e.to_string())?;
    let said = finished(turn, &mut run(&path), status)?;
    // The toucher prints what it writes to COM1's port.
    let all = name == "toucher" || said.stdout.len() == printed;
    match all && said.stderr.contains(told) {
        true => Ok("short guest"),
        false => Err(format!(
            "{name}: {} bytes of output instead of {printed}; {:?}",
            said.stdout.len(),
            said.stderr
        )),
    }
}

/// A demo's rows: each lock was taken as often as its vCPUs say.
fn demo(turn: &Turn<'_>, backend: &str) -> Result<(), Fault> {
    let mut command = vmm(&[
        "demo",
        "--vcpus=2,6",
        "--vms=1,2",
        "--seconds=0.2",
        "--json",
    ]);
    let said = finished(turn, command.args(["--backend", backend]), 0)?;
    let rows: Value = serde_json::from_str(&said.stdout).map_err(|e| format!("demo: {e}"))?;
    let rows = rows.as_array().map(Vec::as_slice).unwrap_or_default();
    let wrong = |row: &&Value| {
        row["acquisitions"] != row["expected"] || row["acquisitions"].as_u64().unwrap_or(0) == 0
    };
    match rows.iter().find(wrong) {
        None if !rows.is_empty() => Ok(()),
        None => Err("demo: no rows".to_string()),
        Some(row) => Err(format!("demo: the lock did not hold: {row}")),
    }
}

fn demo_on_kvm(turn: &Turn<'_>) -> Result<&'static str, Fault> {
    demo(turn, "kvm").map(|()| "demo on KVM")
}

fn demo_hosted(turn: &Turn<'_>) -> Result<&'static str, Fault> {
    demo(turn, "hosted").map(|()| "demo on threads")
}

fn bench_snapshot(turn: &Turn<'_>, rounds: &str) -> Command {
    let halt = if turn.random & 1 == 0 {
        "userspace"
    } else {
        "kernel"
    };
    let mut command = vmm(&["bench", "snapshot", "--json", "--vcpus=4"]);
    command.args(["--rounds", rounds, "--halt", halt]);
    command.env("TMPDIR", &turn.watch.dir);
    command
}

/// A guest that halts and kicks, saved and restored again and again.
fn rounds(turn: &Turn<'_>) -> Result<&'static str, Fault> {
    let said = finished(turn, &mut bench_snapshot(turn, "5"), 0)?;
    let rounds: Value = serde_json::from_str(&said.stdout).map_err(|e| format!("bench: {e}"))?;
    match rounds["acquisitions"] == rounds["expected"] && rounds["violations"] == 0 {
        true => Ok("5 snapshots of the lock guest"),
        false => Err(format!("bench snapshot: the lock did not hold: {rounds}")),
    }
}

/// The same, ended in the middle: nothing of it is to stay.
fn rounds_interrupted(turn: &Turn<'_>) -> Result<&'static str, Fault> {
    let mut command = bench_snapshot(turn, "1000");
    let mut child = spawn(command.stdout(Stdio::null()).stderr(Stdio::null()));
    until_it_handles(&child, Signal::TERM);
    std::thread::sleep(Duration::from_millis((turn.random % 1000).into()));
    signal(&child, Signal::TERM);
    match wait(&mut child, crate::client::LIMIT) {
        Some(status) if status.code() == Some(130) => Ok("snapshots interrupted"),
        other => Err(format!("bench snapshot, asked to end: {other:?}")),
    }
}

fn bad_guest(turn: &Turn<'_>) -> Result<&'static str, Fault> {
    let Some(guest) = pick(&bad_guests::ALL.iter().collect::<Vec<_>>(), turn.random) else {
        return Err("no bad guests".to_string());
    };
    let halt = if turn.random & 0x100 == 0 {
        "userspace"
    } else {
        "kernel"
    };
    let vmm = Path::new(env!("CARGO_BIN_EXE_vmm-reference"));
    let (options, window) = (["--halt", halt], Duration::from_millis(200));
    let seen = bad_guests::observe(vmm, &turn.watch.dir, guest, &options, window);
    let seen = seen.map_err(|e| e.to_string())?;
    let fine = seen.up && seen.ran_on && seen.status == Some(0);
    match fine && !seen.stderr.contains("panicked") {
        true => Ok("bad guest"),
        false => Err(format!("{}, halts in {halt}: {seen:?}", guest.name)),
    }
}

/// SIGTERM at a random moment of a random start.
fn asked_to_end(turn: &Turn<'_>) -> Result<&'static str, Fault> {
    let all = situation::ALL.iter().filter(|s| turn.kvm || !s.needs_kvm());
    let all: Vec<Situation> = all.copied().collect();
    let moment = Duration::from_millis((turn.random >> 16 & 0x3ff).into());
    match pick(&all, turn.random) {
        Some(which) => situation::one(which, turn.files, moment)
            .map(|_| "SIGTERM at a random moment")
            .map_err(|e| format!("{which:?}, SIGTERM after {moment:?}: {e}")),
        None => Err("no situation".to_string()),
    }
}

fn study(turn: &Turn<'_>) -> Result<&'static str, Fault> {
    let out = turn.watch.path("study");
    let options = [
        "study",
        "--backend=hosted",
        "--quick",
        "--budget=1",
        "--seconds=0.02",
    ];
    finished(turn, vmm(&options).arg("--out").arg(&out), 0)?;
    match out.join("report.html").exists() {
        true => Ok("study"),
        false => Err("study: no report".to_string()),
    }
}

fn probe(turn: &Turn<'_>) -> Result<&'static str, Fault> {
    finished(turn, &mut vmm(&["probe", "--json"]), 0).map(|_| "probe")
}

fn conformance(turn: &Turn<'_>) -> Result<&'static str, Fault> {
    finished(turn, &mut vmm(&["conformance", "--json"]), 0).map(|_| "conformance")
}
