//! Starting, watching and ending a VM: signals, the terminal, the control
//! socket.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

mod common;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::control::{ask, connect};
use common::guests::{self, flat};
use common::{LIMIT, Process, Scratch, finish, kvm, run, signal, spawn, terminal, wait};
use rustix::process::Signal;
use rustix::termios::{LocalModes, tcgetattr};

/// How long an orderly end may take (a promise of the documentation; the
/// loaded host is given ten times that before it is called broken).
const END: Duration = Duration::from_secs(10);

/// The terminal's modes, as far as raw mode changes them.
fn modes(slave: &File) -> (LocalModes, String) {
    let termios = tcgetattr(slave).unwrap();
    let rest = format!("{:?} {:?}", termios.input_modes, termios.output_modes);
    (termios.local_modes, rest)
}

/// Starts `code` on a terminal and waits until it says "up".
fn on_terminal(name: &str, code: &[u8]) -> (Scratch, Process, File, File) {
    let dir = Scratch::new(name);
    let kernel = dir.file("kernel", &flat(code));
    let (mut master, slave) = terminal();
    let child = spawn(
        run(&kernel)
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(Stdio::piped()),
    );
    let mut up = [0; 2];
    master.read_exact(&mut up).unwrap();
    assert_eq!(&up, b"up");
    (dir, child, master, slave)
}

#[test]
fn ctrl_a_x_ends_the_vm_and_the_terminal_is_as_before() {
    if !kvm() {
        return;
    }
    let (_master, slave) = terminal();
    let before = modes(&slave);
    assert!(before.0.contains(LocalModes::ICANON | LocalModes::ECHO));
    let (_dir, mut child, mut master, slave) = on_terminal("keys", &guests::echo());
    assert!(
        !modes(&slave)
            .0
            .intersects(LocalModes::ICANON | LocalModes::ECHO)
    );
    // Ctrl-C is the guest's; so is what comes after Ctrl-A Ctrl-A.
    master.write_all(b"a\x03b\x01\x01").unwrap();
    let mut back = [0; 4];
    master.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"a\x03b\x01");
    master.write_all(b"\x01x").unwrap();
    assert_eq!(wait(&mut child, END).and_then(|s| s.code()), Some(0));
    assert_eq!(modes(&slave), before);
}

#[test]
fn ctrl_a_x_ends_a_vm_whose_output_nobody_reads() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("stalled");
    let kernel = dir.file("kernel", &flat(&guests::flood()));
    let path = dir.path("socket");
    let (mut master, slave) = terminal();
    let mut child = spawn(
        run(&kernel)
            .arg("--control")
            .arg(&path)
            .stdin(slave)
            .stdout(Stdio::piped()),
    );
    // Once the pipe and the buffer are full, its vCPU is in the middle of
    // printing and can't be paused; it goes on.
    let mut control = connect(&path);
    while ask(&mut control, r#"{"request":"pause"}"#)["error"].is_null() {
        ask(&mut control, r#"{"request":"resume"}"#);
        std::thread::sleep(Duration::from_millis(50));
    }
    let status = ask(&mut control, r#"{"request":"status"}"#);
    assert_eq!(status["ok"]["vcpus"][0], "running");
    master.write_all(b"some keys\x01x").unwrap();
    assert_eq!(wait(&mut child, END).and_then(|s| s.code()), Some(0));
}

#[test]
fn signals_end_the_vm_and_the_terminal_is_as_before() {
    if !kvm() {
        return;
    }
    for which in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let (_dir, mut child, _master, slave) = on_terminal("signal", &guests::spin());
        signal(&child, which);
        assert_eq!(wait(&mut child, END).and_then(|s| s.code()), Some(0));
        assert!(
            modes(&slave)
                .0
                .contains(LocalModes::ICANON | LocalModes::ECHO)
        );
    }
}

#[test]
fn a_guest_that_dies_leaves_the_terminal_as_before() {
    if !kvm() {
        return;
    }
    let (_dir, mut child, _master, slave) = {
        // "up" first, so that the terminal is known to be raw.
        let mut code = guests::dead_halt();
        let halt = code.windows(2).position(|w| w == [0xfa, 0xf4]).unwrap();
        code.truncate(halt);
        code.extend(guests::triple_fault());
        on_terminal("dies", &code)
    };
    assert_eq!(wait(&mut child, END).and_then(|s| s.code()), Some(1));
    assert!(
        modes(&slave)
            .0
            .contains(LocalModes::ICANON | LocalModes::ECHO)
    );
}

#[test]
fn input_from_a_pipe_goes_through_as_it_is() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("pipe");
    let kernel = dir.file("kernel", &flat(&guests::echo()));
    let mut child = spawn(run(&kernel).stdin(Stdio::piped()).stdout(Stdio::piped()));
    // More than the port's FIFO takes at once, with what would be an escape on
    // a terminal.
    let mut sent = vec![b'.'; 1000];
    sent.extend(b"\x01x\x01a");
    child.stdin.take().unwrap().write_all(&sent).unwrap();
    let mut back = vec![0; 2 + sent.len()];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut back)
        .unwrap();
    assert_eq!(back, [b"up".as_slice(), &sent].concat());
    signal(&child, Signal::TERM);
    assert_eq!(wait(&mut child, END).and_then(|s| s.code()), Some(0));
}

#[test]
fn sigusr1_prints_a_line_of_stats() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("usr1");
    let kernel = dir.file("kernel", &flat(&guests::spin()));
    let mut child = spawn(run(&kernel).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut up = [0; 2];
    child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    for _ in 0..2 {
        signal(&child, Signal::USR1);
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        assert!(line.starts_with("vmm-reference: stats: "), "{line}");
        assert!(line.contains("halt_exits 0, "), "{line}");
    }
    // Whoever read them has gone: the next one is lost, and nothing else.
    drop(stderr);
    signal(&child, Signal::USR1);
    std::thread::sleep(Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none());
    signal(&child, Signal::TERM);
    assert_eq!(wait(&mut child, END).and_then(|s| s.code()), Some(0));
}

#[test]
fn sigusr1_prints_all_counts_where_stats_are_wanted() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("usr1-all");
    let kernel = dir.file("kernel", &flat(&guests::spin()));
    let mut child = spawn(
        run(&kernel)
            .arg("--stats")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped()),
    );
    let mut up = [0; 2];
    child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    signal(&child, Signal::USR1);
    let counts: Vec<String> = stderr
        .lines()
        .map(Result::unwrap)
        .take_while(|line| !line.starts_with("vmm-reference: stats: "))
        .collect();
    for name in ["exits ", "halt_exits ", "vmm_exit_hlt ", "vmm_kicks "] {
        let named = counts.iter().filter(|line| line.starts_with(name));
        assert_eq!(named.count(), 1, "{name}in {counts:?}");
    }
    signal(&child, Signal::TERM);
    assert_eq!(wait(&mut child, END).and_then(|s| s.code()), Some(0));
}

#[test]
fn the_control_socket_pauses_resumes_kicks_and_stops() {
    if !kvm() {
        return;
    }
    for (halt, cpus) in [("kernel", "2"), ("userspace", "1")] {
        let dir = Scratch::new(&format!("control-{halt}"));
        let kernel = dir.file("kernel", &flat(&guests::echo()));
        let path = dir.path("socket");
        let mut child = spawn(
            run(&kernel)
                .args(["--halt", halt, "--cpus", cpus, "--control"])
                .arg(&path)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped()),
        );
        let mut control = connect(&path);
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let states = |control: &mut _| {
            let status = ask(control, r#"{"request":"status"}"#);
            let states = status["ok"]["vcpus"].as_array().unwrap().clone();
            assert_eq!(states.len().to_string(), cpus);
            states
                .into_iter()
                .map(|s| s.as_str().unwrap().to_string())
                .collect::<Vec<_>>()
        };
        assert!(states(&mut control).iter().all(|s| s == "running"));
        let mut out = child.stdout.take().unwrap();
        let mut up = [0; 2];
        out.read_exact(&mut up).unwrap();

        assert_eq!(
            ask(&mut control, r#"{"request":"pause"}"#)["ok"],
            serde_json::json!({})
        );
        assert!(states(&mut control).iter().all(|s| s == "paused"));
        // A paused guest echoes nothing: its exits do not grow.
        let exits =
            |control: &mut _| ask(control, r#"{"request":"stats"}"#)["ok"]["kvm"]["exits"].clone();
        let before = exits(&mut control);
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(exits(&mut control), before);
        assert_eq!(
            ask(&mut control, r#"{"request":"resume"}"#)["ok"],
            serde_json::json!({})
        );
        let mut echoed = [0];
        out.read_exact(&mut echoed).unwrap();
        assert_eq!(&echoed, b"x");

        let kick = ask(&mut control, r#"{"request":"kick","apic_id":0}"#);
        assert_eq!(kick["ok"]["delivered"], true, "{kick}");
        let kick = ask(&mut control, r#"{"request":"kick","apic_id":77}"#);
        assert_eq!(kick["ok"]["delivered"], false, "{kick}");
        // Bad requests get an error line; the connection and the VM go on.
        for bad in ["", "nonsense", r#"{"request":"kick"}"#, r#"{"request":9}"#] {
            assert!(ask(&mut control, bad)["error"].is_string(), "{bad}");
        }
        // A line without end gets one and is over.
        let mut other = connect(&path);
        let _ = other.get_mut().write_all(&vec![b'x'; 100_000]);
        let mut said = String::new();
        let _ = other.read_line(&mut said);
        assert!(said.contains("more than 4096 bytes"), "{said}");

        assert_eq!(
            ask(&mut control, r#"{"request":"stop"}"#)["ok"],
            serde_json::json!({})
        );
        assert_eq!(wait(&mut child, END).and_then(|s| s.code()), Some(0));
        assert!(!path.exists(), "the socket's file is gone");
    }
}

/// The names of a process's threads.
fn threads(child: &Child) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    tasks
        .map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap())
        .map(|name| name.trim_end().to_string())
        .collect()
}

/// 254 is the last APIC ID of an xAPIC, 255 its broadcast.
#[test]
fn every_vcpu_comes_up_has_a_name_and_can_be_kicked() {
    if !kvm() {
        return;
    }
    let most = kvm_ioctls::Kvm::new().unwrap().get_max_vcpus();
    for cpus in [1, 4, 255, 300] {
        if cpus > most {
            eprintln!("not run with {cpus} vCPUs: this KVM runs {most}");
            continue;
        }
        let dir = Scratch::new(&format!("smp-{cpus}"));
        let kernel = dir.file("kernel", &flat(&guests::smp()));
        let path = dir.path("socket");
        let mut child = spawn(
            run(&kernel)
                .args(["--cpus", &cpus.to_string()])
                .args(["--cmdline", &(cpus - 1).to_string()])
                .arg("--control")
                .arg(&path)
                .stdout(Stdio::piped()),
        );
        // A reader that does not hang: the VM may never say it.
        let mut out = child.stdout.take().unwrap();
        let said = std::thread::spawn(move || {
            let mut up = [0; 2];
            out.read_exact(&mut up).map(|()| up)
        });
        let end = Instant::now() + LIMIT;
        while !said.is_finished() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(said.is_finished(), "{cpus} vCPUs never came up");
        assert_eq!(said.join().unwrap().unwrap(), *b"up");

        let names = threads(&child);
        for index in 0..cpus {
            assert!(names.contains(&format!("vcpu{index}")), "{names:?}");
        }
        let mut control = connect(&path);
        for (id, there) in [(0, true), (cpus - 1, true), (cpus, false)] {
            let kick = ask(
                &mut control,
                &format!(r#"{{"request":"kick","apic_id":{id}}}"#),
            );
            assert_eq!(kick["ok"]["delivered"], there, "{id} of {cpus}");
        }
        signal(&child, Signal::TERM);
        assert_eq!(wait(&mut child, END).and_then(|s| s.code()), Some(0));
    }
}

#[test]
fn a_control_path_that_is_taken_is_refused() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("taken");
    let kernel = dir.file("kernel", &flat(&guests::spin()));
    let taken = dir.file("taken", b"something of somebody");
    let said = finish(run(&kernel).arg("--control").arg(&taken));
    assert_eq!(said.status, Some(1), "{said:?}");
    assert!(said.stderr.contains("--control"), "{said:?}");
    assert_eq!(said.stdout, "", "the guest did not run");
    assert_eq!(std::fs::read(&taken).unwrap(), b"something of somebody");
}
