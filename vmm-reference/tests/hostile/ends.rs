//! SIGTERM ends every command, whatever it waits for. How fast is measured by
//! `benches/sigterm`; here it is not killed, and has its orderly status.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::common::control::{ask, connect};
use crate::common::guests::{self, flat};
use crate::common::{
    LIMIT, Scratch, finish, full_pipe, kvm, run, signal, spawn, until_it_handles, vmm, wait,
};

/// A moment in which a process that is not held up would come to its end, or to
/// where it is held up.
fn a_while() {
    std::thread::sleep(Duration::from_millis(500));
}

fn term(child: &mut Child) -> Option<i32> {
    signal(child, Signal::TERM);
    wait(child, LIMIT).and_then(|s| s.code())
}

/// Once the guest has printed its two letters.
fn up(child: &mut Child) {
    let mut letters = [0; 2];
    let out = child.stdout.as_mut().unwrap();
    out.read_exact(&mut letters).unwrap();
}

#[test]
fn a_run_whose_lines_of_statistics_nobody_reads() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("ends-usr1");
    let kernel = dir.file("kernel", &flat(&guests::spin()));
    let (_reader, stderr) = full_pipe();
    let path = dir.path("socket");
    let mut child = spawn(
        run(&kernel)
            .arg("--control")
            .arg(&path)
            .stdout(Stdio::piped())
            .stderr(stderr),
    );
    up(&mut child);
    for _ in 0..3 {
        signal(&child, Signal::USR1);
        a_while();
    }
    // Nor does it hold up anything else.
    let status = ask(&mut connect(&path), r#"{"request":"status"}"#);
    assert_eq!(status["ok"]["vcpus"][0], "running");
    assert_eq!(term(&mut child), Some(0));
}

#[test]
fn a_run_whose_statistics_at_the_end_nobody_reads() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("ends-stats");
    let kernel = dir.file("kernel", &flat(&guests::spin()));
    let (_reader, stderr) = full_pipe();
    let mut child = spawn(
        run(&kernel)
            .arg("--stats")
            .stdout(Stdio::piped())
            .stderr(stderr),
    );
    up(&mut child);
    assert_eq!(term(&mut child), Some(0));
}

#[test]
fn a_run_whose_last_error_nobody_reads() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("ends-error");
    let kernel = dir.file("kernel", &flat(&guests::triple_fault()));
    let (_reader, stderr) = full_pipe();
    let mut child = spawn(run(&kernel).stderr(stderr));
    until_it_handles(&child, Signal::TERM);
    a_while();
    assert!(child.try_wait().unwrap().is_none(), "it waits for a reader");
    assert_eq!(term(&mut child), Some(1));
}

/// Commands whose results nobody reads, at the moment when they print them.
#[test]
fn commands_whose_results_nobody_reads() {
    let dir = Scratch::new("ends-results");
    let out = dir.path("study");
    let study = [
        "study",
        "--backend=hosted",
        "--quick",
        "--budget=0.5",
        "--seconds=0.01",
        "--out",
        out.to_str().unwrap(),
    ];
    let demo = ["demo", "--backend=hosted", "--vcpus=1", "--seconds=0.05"];
    let json = [&demo[..], &["--json"]].concat();
    for arguments in [
        &demo[..],
        &json,
        &["probe"],
        &["conformance", "--list"],
        &study,
    ] {
        let (reader, stdout) = full_pipe();
        let mut child = spawn(vmm(arguments).stdout(stdout));
        until_it_handles(&child, Signal::TERM);
        a_while();
        a_while();
        assert_eq!(term(&mut child), Some(130), "{arguments:?}");
        drop(reader);
    }
    // What was measured is there all the same.
    assert!(out.join("data.json").exists());
    assert!(out.join("report.html").exists());
}

#[test]
fn two_hundred_pauses_of_a_guest_that_cannot_pause() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("ends-pauses");
    let kernel = dir.file("kernel", &flat(&guests::flood()));
    let path = dir.path("socket");
    let mut child = spawn(
        run(&kernel)
            .arg("--control")
            .arg(&path)
            .stdout(Stdio::piped()),
    );
    // Once the pipe and the buffer are full, its vCPU is in the middle of printing.
    let mut control = connect(&path);
    while ask(&mut control, r#"{"request":"pause"}"#)["error"].is_null() {
        ask(&mut control, r#"{"request":"resume"}"#);
        std::thread::sleep(Duration::from_millis(50));
    }
    let pauses = "{\"request\":\"pause\"}\n".repeat(200);
    control.get_mut().write_all(pauses.as_bytes()).unwrap();
    // The first one is under way.
    a_while();
    assert_eq!(term(&mut child), Some(0));
}

#[test]
fn pauses_and_then_stop_on_another_connection() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("ends-stop");
    let kernel = dir.file("kernel", &flat(&guests::spin()));
    let path = dir.path("socket");
    let mut child = spawn(
        run(&kernel)
            .arg("--control")
            .arg(&path)
            .stdout(Stdio::piped()),
    );
    up(&mut child);
    let (mut many, mut one) = (connect(&path), connect(&path));
    let requests = "{\"request\":\"status\"}\n".repeat(200);
    many.get_mut().write_all(requests.as_bytes()).unwrap();
    // All are answered, and another client is not behind all of them.
    assert!(ask(&mut one, r#"{"request":"status"}"#)["ok"].is_object());
    for n in 0..200 {
        let mut answer = String::new();
        many.read_line(&mut answer).unwrap();
        assert!(answer.starts_with("{\"ok\":"), "answer {n}: {answer}");
    }
    assert_eq!(
        ask(&mut one, r#"{"request":"stop"}"#)["ok"],
        serde_json::json!({})
    );
    assert_eq!(wait(&mut child, LIMIT).and_then(|s| s.code()), Some(0));
}

/// Opening a FIFO waits for its reader, in the standard library, which takes no
/// signal for an answer.
#[test]
fn a_command_that_waits_where_no_signal_reaches_it() {
    let dir = Scratch::new("ends-fifo");
    let fifo = dir.path("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let mut child = spawn(
        vmm(&["demo", "--backend=hosted", "--trace"])
            .arg(&fifo)
            .stderr(Stdio::piped()),
    );
    until_it_handles(&child, Signal::TERM);
    a_while();
    signal(&child, Signal::TERM);
    let status = wait(&mut child, LIMIT).and_then(|s| s.code());
    let mut said = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut said).unwrap();
    assert_eq!(status, Some(130), "{said}");
    assert!(said.contains("by force"), "{said}");
}

/// Processes whose command line names this directory.
fn processes_of(dir: &Path) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let name = dir.to_str().unwrap();
    lines
        .filter(|line| String::from_utf8_lossy(line).contains(name))
        .count()
}

/// It starts other processes, which run on by themselves.
#[test]
fn a_bench_of_snapshots_leaves_no_process_however_it_ends() {
    if !kvm() {
        return;
    }
    for end in [Signal::TERM, Signal::KILL] {
        let dir = Scratch::new("ends-rounds");
        let bench = ["bench", "snapshot", "--rounds=1000000"];
        let mut child = spawn(vmm(&bench).env("TMPDIR", dir.path(".")));
        let begin = Instant::now();
        while processes_of(&dir.path("")) == 0 {
            assert!(begin.elapsed() < LIMIT, "it restores nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
        signal(&child, end);
        let status = wait(&mut child, LIMIT).unwrap();
        assert_eq!(status.code(), (end == Signal::TERM).then_some(130));
        let begin = Instant::now();
        while processes_of(&dir.path("")) > 0 {
            assert!(begin.elapsed() < LIMIT, "a process runs on after {end:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Whenever it comes: while the host is probed, in the calibration, in a cell.
#[test]
fn a_demo_at_any_moment_as_an_interruption() {
    let backends: &[&str] = if kvm() {
        &["kvm", "hosted"]
    } else {
        &["hosted"]
    };
    for backend in backends {
        for turn in 0..24 {
            let backend = format!("--backend={backend}");
            let arguments = ["demo", &backend, "--vcpus=2", "--seconds=60"];
            let mut child = spawn(vmm(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()));
            until_it_handles(&child, Signal::INT);
            std::thread::sleep(Duration::from_millis(turn * 40));
            signal(&child, Signal::INT);
            let status = wait(&mut child, LIMIT).and_then(|s| s.code());
            let mut said = String::new();
            let mut stderr = child.stderr.take().unwrap();
            stderr.read_to_string(&mut said).unwrap();
            assert_eq!(status, Some(130), "{backend}, {turn}: {said}");
            assert!(said.contains("ended by"), "{backend}, {turn}: {said}");
        }
    }
}

/// Options that no host can follow, and those that no guest comes back from.
#[test]
fn demo_options_that_make_no_sense_end_at_once() {
    let absurd = u64::MAX.to_string();
    for (option, value, status) in [
        ("--hold", absurd.as_str(), 2),
        ("--think", &absurd, 2),
        ("--spin-us", &absurd, 2),
        ("--seconds", "1e-300", 2),
        ("--seconds", "1e300", 2),
        ("--vcpus", "4097", 1),
        ("--vcpus", "4294967295", 1),
    ] {
        let said = finish(&mut vmm(&["demo", "--backend=hosted", option, value]));
        assert_eq!(said.status, Some(status), "{option} {value}: {said:?}");
        assert_eq!(said.stderr.lines().count(), 1, "{said:?}");
        assert!(said.stderr.contains(option), "{said:?}");
        assert_eq!(said.stdout, "");
    }
    let many = ["demo", "--backend=hosted", "--vms=64", "--vcpus=4096"];
    let said = finish(&mut vmm(&many));
    assert_eq!(said.status, Some(1), "{said:?}");
    assert!(said.stderr.contains("--vms 64 of --vcpus 4096"), "{said:?}");
    assert_eq!(said.stdout, "");
}
