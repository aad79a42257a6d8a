//! `run --user`: all of a VM's threads are that user, and what the VM does goes on.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::process::Stdio;
use std::time::Instant;

use common::control::{ask, connect};
use common::guests::{self, flat};
use common::{LIMIT, Scratch, finish, kvm, run, signal, spawn, vmm, wait};
use rustix::process::{Signal, geteuid};

const NOBODY: u32 = 65534;

/// Whether this test is root's; says so if not.
fn root() -> bool {
    let root = geteuid().is_root();
    if !root {
        eprintln!("not run: it takes root");
    }
    root
}

/// How many threads the process has, if all are nobody's and without capabilities.
fn threads_of_nobody(process: u32) -> Option<u32> {
    let mut seen = 0;
    for task in fs::read_dir(format!("/proc/{process}/task")).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).ok()?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default()
                .split_whitespace()
                .collect::<Vec<_>>()
        };
        // KVM's own has the identity of who began it, and runs in the kernel only.
        if field("Name:").iter().any(|name| name.starts_with("kvm-")) {
            continue;
        }
        let nobody = field("Uid:") == ["65534"; 4]
            && field("Gid:") == ["65534"; 4]
            && field("Groups:").is_empty()
            && field("CapEff:") == ["0000000000000000"];
        if !nobody {
            return None;
        }
        seen += 1;
    }
    Some(seen)
}

#[test]
fn all_threads_are_the_user() {
    if !kvm() || !root() {
        return;
    }
    let dir = Scratch::new("jail-user");
    let kernel = dir.file("kernel", &flat(&guests::spin()));
    chown(dir.path("."), Some(NOBODY), Some(NOBODY)).unwrap();
    let (socket, snapshot) = (dir.path("socket"), dir.path("snapshot"));
    let mut child = spawn(
        run(&kernel)
            .args(["--cpus", "2", "--user", "65534:65534", "--control"])
            .arg(&socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped()),
    );
    let mut control = connect(&socket);
    ask(&mut control, r#"{"request":"status"}"#);
    // vCPUs, console, input, the main thread: each is in the jail a moment after it has begun.
    let begin = Instant::now();
    let mut seen = 0;
    while seen < 4 {
        assert!(begin.elapsed() < LIMIT, "not all threads are the user's");
        seen = threads_of_nobody(child.id()).unwrap_or(0);
    }
    let path = snapshot.to_str().unwrap();
    let answer = ask(
        &mut control,
        &format!(r#"{{"request":"snapshot","path":"{path}"}}"#),
    );
    assert!(answer["ok"]["bytes"].is_u64(), "{answer}");
    let metadata = snapshot.metadata().unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (NOBODY, NOBODY));
    signal(&child, Signal::TERM);
    assert_eq!(wait(&mut child, LIMIT).and_then(|s| s.code()), Some(0));
    assert!(!socket.exists(), "the socket is removed");
    // Root goes on with it, as another user.
    let mut child = spawn(
        vmm(&["run", "--user", "65533:65533", "--restore"])
            .arg(&snapshot)
            .arg("--control")
            .arg(&socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped()),
    );
    let status = ask(&mut connect(&socket), r#"{"request":"status"}"#);
    assert_eq!(status["ok"]["vcpus"][0], "running", "{status}");
    signal(&child, Signal::TERM);
    assert_eq!(wait(&mut child, LIMIT).and_then(|s| s.code()), Some(0));
}

#[test]
fn what_is_no_user_is_a_usage_error() {
    for arguments in [
        &["--user", "root"][..],
        &["--user", "0:0"],
        &["--user", "1:1", "--no-jail"],
    ] {
        let said = finish(vmm(&["run", "--kernel", "none"]).args(arguments));
        assert_eq!(said.status, Some(2), "{said:?}");
        assert_eq!(said.stderr.lines().count(), 1, "{said:?}");
    }
}
