//! `study` from outside: its files, its errors, and Ctrl-C.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test's helper that fails is a test that fails"
)]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use common::{collect, signal, spawn};
use rustix::process::Signal;
use vmm_reference::study::dataset::{Dataset, End, Load, csv};

fn vmm(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vmm-reference"))
        .args(args)
        .output()
        .expect("the binary under test starts")
}

/// A folder of one's own, gone at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vmm-study-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).expect("a scratch folder");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn hosted<'a>(out: &'a str, budget: &'a str) -> [&'a str; 9] {
    [
        "study",
        "--quick",
        "--backend",
        "hosted",
        "--seconds=0.02",
        "--budget",
        budget,
        "--out",
        out,
    ]
}

#[test]
fn a_short_study_leaves_a_report_and_its_data() {
    let scratch = Scratch::new("short");
    let (out, trace) = (scratch.path("out"), scratch.path("trace.json"));
    // A loaded machine needs 4 s for the runs that warm up, which leave nothing.
    let mut args = hosted(&out, "12").to_vec();
    args.extend(["--trace", &trace]);
    let output = vmm(&args);
    let (stdout, stderr) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stdout.lines().count() > 3, "{stdout}");
    assert!(
        stdout.contains("state machines on host threads"),
        "{stdout}"
    );
    let data = Dataset::read(&Path::new(&out).join("data.json")).expect("the data");
    assert_eq!(data.host.backend, "hosted");
    assert!(data.took.get() > 0.0);
    for cell in &data.cells {
        assert_eq!(cell.failure, None, "{}", cell.key);
        for repetition in &cell.repetitions {
            // The others compute or sleep.
            let vcpus = cell.key.vcpus;
            let lockers = match cell.key.load {
                Load::Partial => vcpus - vcpus / 2,
                Load::Mixed => vcpus - vcpus / 4 - (vcpus + 2) / 4,
                _ => vcpus,
            };
            let all = cell.key.vms * lockers;
            assert_eq!(repetition.acquisitions.len(), all as usize, "{}", cell.key);
        }
    }
    assert!(data.cells.iter().any(|cell| !cell.repetitions.is_empty()));
    let text = std::fs::read(Path::new(&out).join("data.csv")).expect("the CSV");
    let mut reader = ::csv::Reader::from_reader(text.as_slice());
    let lines: Result<Vec<csv::Line>, _> = reader.deserialize().collect();
    assert!(
        lines.expect("lines") == csv::lines(&data),
        "the CSV is the data's"
    );
    let report = std::fs::read_to_string(Path::new(&out).join("report.html")).expect("a report");
    assert!(report.contains("<svg") && !report.contains("NaN"));
    let trace = std::fs::read(&trace).expect("a trace");
    let events: Vec<serde_json::Value> = serde_json::from_slice(&trace).expect("JSON");
    assert!(events.iter().any(|event| event["name"] == "running"));

    // The same against itself.
    let json = Path::new(&out).join("data.json").display().to_string();
    let output = vmm(&["study", "compare", &json, &json]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("faster in 0, slower in 0"), "{stdout}");
    let output = vmm(&["study", "compare", "--json", &json, &json]);
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(!rows.is_empty());
}

#[test]
fn ctrl_c_leaves_a_report_of_what_was_measured() {
    let scratch = Scratch::new("interrupt");
    let out = scratch.path("out");
    let mut study = Command::new(env!("CARGO_BIN_EXE_vmm-reference"));
    study.args(hosted(&out, "600"));
    let mut child = spawn(study.stdout(Stdio::piped()).stderr(Stdio::piped()));
    // It makes its folder at once; then it measures for minutes.
    while !Path::new(&out).exists() {
        assert!(matches!(child.try_wait(), Ok(None)), "it ended before");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_secs(2));
    signal(&child, Signal::INT);
    let said = collect(child);
    assert_eq!(said.status, Some(130), "{said:?}");
    let data = Dataset::read(&Path::new(&out).join("data.json")).expect("the data");
    assert_eq!(data.end, End::Interrupted);
    assert!(Path::new(&out).join("report.html").exists());
}

/// One line on stderr that says why, and nothing measured.
fn refused(args: &[&str], status: i32, says: &str) {
    let output = vmm(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{args:?}: {stderr}");
    assert!(stderr.contains(says), "{args:?}: {stderr}");
}

#[test]
fn mistakes_are_one_line() {
    refused(
        &["study", "--out", "/nowhere/at/all"],
        1,
        "can't write /nowhere/at/all: No such file",
    );
    refused(
        &["study", "--out", "/proc/study"],
        1,
        "can't write /proc/study",
    );
    let scratch = Scratch::new("mistakes");
    let (out, file) = (scratch.path("out"), scratch.path("file"));
    refused(
        &["study", "--out", &out, "--trace", "/nowhere/trace"],
        1,
        "can't write /nowhere/trace: No such file",
    );
    refused(&["study", "--seconds", "0"], 2, "not in 0.001 to 86400");
    refused(&["study", "--budget", "nan"], 2, "'nan'");
    refused(&["study", "--yield", "always"], 2, "'always'");
    refused(&["study", "compare"], 2, "<A> <B>");
    std::fs::write(&file, "{}").expect("a file");
    refused(
        &["study", "compare", &file, &file],
        1,
        "not a study's data: missing field `format`",
    );
    refused(
        &["study", "compare", "/nowhere", &file],
        1,
        "/nowhere: No such file",
    );
    refused(
        &["demo", "--trace", "/nowhere/trace"],
        1,
        "can't write /nowhere/trace",
    );
}
