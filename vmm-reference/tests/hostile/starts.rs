//! Signals before the guest runs.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Instant;

use rustix::process::Signal;
use rustix::termios::{LocalModes, tcgetattr};

use crate::common::guests::{self, flat};
use crate::common::{LIMIT, Scratch, kvm, run_unsized, signal, spawn, terminal, wait};

/// Waits until the process has the file open.
fn until_it_reads(child: &Child, file: &Path) {
    let end = Instant::now() + LIMIT;
    let descriptors = format!("/proc/{}/fd", child.id());
    loop {
        let open = std::fs::read_dir(&descriptors).unwrap();
        let targets = open.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
        if targets.into_iter().any(|target| target == file) {
            return;
        }
        assert!(Instant::now() < end, "it never reads {}", file.display());
    }
}

/// Signals a VM that reads its initial RAM disk: how it ended, and what its guest
/// printed.
fn while_it_loads(name: &str, signals: &[Signal]) -> (Option<i32>, String) {
    let dir = Scratch::new(name);
    let kernel = dir.file("kernel", &flat(&guests::spin()));
    let initrd = dir.file("initrd", b"");
    // Large, and nothing on the disk.
    let file = std::fs::File::options().write(true).open(&initrd).unwrap();
    file.set_len(192 << 20).unwrap();
    let (mut master, slave) = terminal();
    let before = tcgetattr(&slave).unwrap().local_modes;
    let mut child = spawn(
        run_unsized(&kernel)
            .args(["--memory", "256M", "--initrd"])
            .arg(&initrd)
            .stdin(slave.try_clone().unwrap())
            .stdout(Stdio::piped()),
    );
    until_it_reads(&child, &initrd.canonicalize().unwrap());
    for &which in signals {
        signal(&child, which);
    }
    let mut said = String::new();
    if !signals.contains(&Signal::TERM) {
        let mut up = [0; 2];
        let out = child.stdout.as_mut().unwrap();
        out.read_exact(&mut up).unwrap();
        said.push_str(std::str::from_utf8(&up).unwrap());
        signal(&child, Signal::TERM);
    }
    let status = wait(&mut child, LIMIT).and_then(|s| s.code());
    assert!(before.contains(LocalModes::ICANON | LocalModes::ECHO));
    assert_eq!(tcgetattr(&slave).unwrap().local_modes, before);
    drop(slave);
    let _ = master.read(&mut [0; 16]);
    (status, said)
}

#[test]
fn sigusr1_during_the_start_ends_nothing() {
    if kvm() {
        let (status, said) = while_it_loads("start-usr1", &[Signal::USR1]);
        assert_eq!((status, said.as_str()), (Some(0), "up"));
    }
}

#[test]
fn sigterm_during_the_start_is_an_orderly_end() {
    if kvm() {
        let signals = [Signal::USR1, Signal::TERM];
        assert_eq!(while_it_loads("start-term", &signals).0, Some(0));
    }
}
