//! The demo on a terminal, and elsewhere.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

mod common;

use std::io::Read as _;
use std::process::{Command, Stdio};

use common::{LIMIT, finish, spawn, terminal, wait};

fn demo() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vmm-reference"));
    command.args(["demo", "--backend", "hosted", "--vcpus", "1,2"]);
    command.args(["--seconds", "0.4", "--modes", "pv"]);
    command
}

#[test]
fn a_terminal_sees_each_row_when_it_is_measured() {
    let (mut master, slave) = terminal();
    let (out, err) = (slave.try_clone().unwrap(), slave);
    let mut child = spawn(demo().stdin(Stdio::null()).stdout(out).stderr(err));
    // The slave is the child's alone then: its end is the end of the file.
    let reader = std::thread::spawn(move || {
        let (mut all, mut chunk) = (Vec::new(), [0; 4096]);
        while let Ok(n @ 1..) = master.read(&mut chunk) {
            all.extend_from_slice(chunk.get(..n).unwrap());
        }
        String::from_utf8_lossy(&all).into_owned()
    });
    let status = wait(&mut child, LIMIT);
    let seen = reader.join().unwrap();
    assert!(status.is_some_and(|s| s.success()), "{seen}");
    let at = |what: &str| {
        seen.find(what)
            .unwrap_or_else(|| panic!("no {what:?}: {seen}"))
    };
    // The first row stands before the second cell begins, the chart behind all.
    let (row, second) = (at("    1   "), at("pv user/hosted, 2 vCPUs"));
    assert!(row < second, "{seen}");
    assert!(second < at("lock acquisitions per second"), "{seen}");
    assert!(seen.contains(" s left"), "{seen}");
}

#[test]
fn a_pipe_sees_no_more_than_the_table() {
    let said = finish(&mut demo());
    assert_eq!((said.status, said.stderr.as_str()), (Some(0), ""));
    assert!(!said.stdout.contains(['\r', '\x1b']), "{}", said.stdout);
    let json = finish(demo().arg("--json"));
    assert_eq!((json.status, json.stderr.as_str()), (Some(0), ""));
    assert!(json.stdout.starts_with('['), "{}", json.stdout);
    // The transport has its old name beside its new one, for one release.
    assert!(json.stdout.contains("\"transport\": \"hosted\""));
    assert!(json.stdout.contains("\"door\": \"hosted\""));
}
