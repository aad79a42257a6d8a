//! An error is one line that a terminal can show, whatever it quotes.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::common::guests::{self, flat};
use crate::common::{Said, Scratch, finish, kvm, run};

fn one_line(said: &Said, status: i32) {
    assert_eq!(said.status, Some(status), "{said:?}");
    let line = said.stderr.strip_suffix('\n').unwrap();
    assert!(line.starts_with("vmm-reference: "), "{said:?}");
    assert!(!line.chars().any(char::is_control), "{said:?}");
    assert!(line.len() < 2000, "{} bytes: {said:?}", line.len());
}

/// Names that would move the cursor, colour the screen, or begin a new line with
/// somebody else's words.
fn names() -> Vec<OsString> {
    let long = "long".repeat(1000);
    let mut names: Vec<Vec<u8>> = [
        "two\nlines",
        "a\rb",
        "\x1b[2J\x1b[31mred",
        "bell\x07",
        "\u{9b}31m",
        &long,
    ]
    .map(|name| name.as_bytes().to_vec())
    .to_vec();
    names.push(b"not\xffUTF-8".to_vec());
    names.into_iter().map(OsString::from_vec).collect()
}

#[test]
fn names_of_files_are_quoted_in_one_line() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("lines-files");
    let good = dir.file("kernel", &flat(&guests::spin()));
    for name in names() {
        let path: PathBuf = dir.path("absent").join(&name);
        one_line(&finish(&mut run(&path)), 1);
        one_line(&finish(run(&good).arg("--initrd").arg(&path)), 1);
        one_line(&finish(run(&good).arg("--control").arg(&path)), 1);
        one_line(&finish(run(&good).arg("--trace").arg(&path)), 1);
    }
}

#[test]
fn values_and_names_of_options_are_quoted_in_one_line() {
    for name in names() {
        for before in [
            &["demo", "--modes"][..],
            &["demo", "--pv"],
            &["demo", "--vcpus"],
            &["run", "--memory"],
            &["study", "--seconds"],
            &["conformance"],
            &[],
        ] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_vmm-reference"));
            command.args(before).arg(&name).stdin(Stdio::null());
            one_line(&finish(&mut command), 2);
        }
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmm-reference"));
    command.args(["conformance", "--case", "no\nsuch \x1b[31m case"]);
    one_line(&finish(command.stdin(Stdio::null())), 1);
}
