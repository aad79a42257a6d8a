//! Nothing is lost in silence, and nobody who reads or writes the same files holds
//! the VM up.

use std::io::{Read as _, Seek as _, Write as _};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::Signal;

use crate::common::control::{ask, connect};
use crate::common::guests::{self, flat};
use crate::common::{LIMIT, Scratch, finish, kvm, run, signal, spawn, terminal, wait};

#[test]
fn all_output_arrives_though_the_pipe_is_set_not_to_block() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("io-nonblock");
    let kernel = dir.file("kernel", &flat(&guests::talker()));
    let (mut reader, writer) = std::io::pipe().unwrap();
    // It holds one page: whoever prints 32 KiB finds it full.
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    let mut child = spawn(run(&kernel).stdout(writer));
    std::thread::sleep(Duration::from_millis(300));
    let mut output = String::new();
    reader.read_to_string(&mut output).unwrap();
    assert_eq!(output.len(), 32_768);
    assert_eq!(output, "0123456789abcdef".repeat(2048));
    assert_eq!(wait(&mut child, LIMIT).and_then(|s| s.code()), Some(1));
}

#[test]
fn output_that_a_full_disk_does_not_take_is_told() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("io-full");
    let kernel = dir.file("kernel", &flat(&guests::talker()));
    let full = std::fs::File::create("/dev/full").unwrap();
    let mut child = spawn(run(&kernel).stdout(full).stderr(Stdio::piped()));
    let status = wait(&mut child, LIMIT).and_then(|s| s.code());
    let mut said = String::new();
    let mut stderr = child.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(status, Some(1), "(0 << 1) | 1: {said}");
    assert!(said.contains("No space left"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn a_regular_file_is_read_as_input() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("io-file");
    let kernel = dir.file("kernel", &flat(&guests::echo()));
    // More than the port takes at once.
    let text = "a line of a file\n".repeat(60);
    let path = dir.file("input", text.as_bytes());
    let mut input = std::fs::File::open(path).unwrap();
    let mut child = spawn(
        run(&kernel)
            .stdin(input.try_clone().unwrap())
            .stdout(Stdio::piped()),
    );
    let mut back = vec![0; 2 + text.len()];
    let out = child.stdout.as_mut().unwrap();
    out.read_exact(&mut back).unwrap();
    assert_eq!(String::from_utf8_lossy(&back), format!("up{text}"));
    assert_eq!(input.stream_position().unwrap(), text.len() as u64);
    signal(&child, Signal::TERM);
    assert_eq!(wait(&mut child, LIMIT).and_then(|s| s.code()), Some(0));
}

#[test]
fn another_reader_of_the_terminal_holds_nothing_up() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("io-two-readers");
    let kernel = dir.file("kernel", &flat(&guests::echo()));
    let path = dir.path("socket");
    let (mut master, slave) = terminal();
    let mut child = spawn(
        run(&kernel)
            .stdin(slave.try_clone().unwrap())
            .stdout(Stdio::piped())
            .arg("--control")
            .arg(&path),
    );
    let mut control = connect(&path);
    control
        .get_ref()
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut other = slave.try_clone().unwrap();
    std::thread::spawn(move || while matches!(other.read(&mut [0; 1]), Ok(1)) {});
    for turn in 0..40 {
        master.write_all(b"k").unwrap();
        let status = ask(&mut control, r#"{"request":"status"}"#);
        assert!(status["ok"].is_object(), "after key {turn}: {status}");
    }
    signal(&child, Signal::TERM);
    assert_eq!(wait(&mut child, LIMIT).and_then(|s| s.code()), Some(0));
}

#[test]
fn ctrl_a_x_reaches_a_vm_whose_guest_reads_no_keys() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("io-deaf");
    let kernel = dir.file("kernel", &flat(&guests::dead_halt()));
    let (mut master, slave) = terminal();
    let mut child = spawn(run(&kernel).stdin(slave).stdout(Stdio::piped()));
    let mut up = [0; 2];
    let out = child.stdout.as_mut().unwrap();
    out.read_exact(&mut up).unwrap();
    // More than its port has room for.
    master.write_all(&[b'k'; 200]).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    master.write_all(b"\x01x").unwrap();
    assert_eq!(wait(&mut child, LIMIT).and_then(|s| s.code()), Some(0));
}

#[test]
fn string_instructions_bring_each_element() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("io-strings");
    let kernel = dir.file("kernel", &flat(&guests::strings()));
    for halt in ["kernel", "userspace"] {
        let mut child = spawn(
            run(&kernel)
                .args(["--halt", halt])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped()),
        );
        let mut out = child.stdout.take().unwrap();
        let mut asked = [0];
        // Without the question a check has failed, and its number is the status.
        if out.read_exact(&mut asked).is_ok() {
            let mut input = child.stdin.take().unwrap();
            input.write_all(b"0123456789abcdef").unwrap();
        }
        let status = wait(&mut child, LIMIT).and_then(|s| s.code());
        assert_eq!(status.map(|s| s >> 1), Some(0), "{halt}: failed check");
        let mut back = String::new();
        out.read_to_string(&mut back).unwrap();
        assert_eq!(back, "0123456789abcdef", "{halt}");
    }
    // The same with a file that is at its end.
    assert!(finish(&mut run(&dir.path("absent"))).status == Some(1));
}
