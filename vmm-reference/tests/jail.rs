//! The jail: what is left to each thread, and what happens to one that wants more.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::guests::{self, flat};
use common::{LIMIT, Process, Said, Scratch, finish, kvm, run, spawn, terminal, vmm, wait};
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::tcgetattr;
use vmm_reference::jail::{self, ThreadKind};
use vmm_reference::terminal::RawMode;

/// A thread as the kernel has it.
#[derive(Debug)]
struct Thread {
    name: String,
    seccomp: String,
    no_new_privs: String,
    capabilities: Vec<String>,
}

/// All but KVM's own: that is the process's since its first KVM_RUN, with whatever
/// filter the thread had that asked for it, and runs in the kernel only.
fn threads(pid: u32) -> Vec<Thread> {
    let mut threads = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        // One that has just ended has no status.
        let Ok(status) = fs::read_to_string(task.unwrap().path().join("status")) else {
            continue;
        };
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_string()
        };
        let name = field("Name:");
        if name.starts_with("kvm-") {
            continue;
        }
        threads.push(Thread {
            name,
            seccomp: field("Seccomp:"),
            no_new_privs: field("NoNewPrivs:"),
            capabilities: ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"]
                .map(field)
                .to_vec(),
        });
    }
    threads
}

/// Its threads once each is in the jail, or when that takes too long: one that was
/// just made has not run its first instruction yet, and runs nothing else before.
fn begun_threads(pid: u32) -> Vec<Thread> {
    let end = Instant::now() + LIMIT;
    loop {
        let all = threads(pid);
        if Instant::now() > end || all.iter().all(|thread| thread.seccomp == "2") {
            return all;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn assert_jailed(threads: &[Thread]) {
    for thread in threads {
        assert_eq!(thread.seccomp, "2", "{thread:?}");
        assert_eq!(thread.no_new_privs, "1", "{thread:?}");
        for set in &thread.capabilities {
            assert_eq!(set, "0000000000000000", "{thread:?}");
        }
    }
}

/// `run` of a guest of two vCPUs that spins, when its event loop answers.
fn running(name: &str, arguments: &[&str]) -> (Scratch, Process, UnixStream) {
    let dir = Scratch::new(name);
    let kernel = dir.file("kernel", &flat(&guests::spin()));
    let socket = dir.path("socket");
    let child = spawn(
        run(&kernel)
            .args(["--cpus", "2", "--control"])
            .arg(&socket)
            .args(arguments)
            // Open for as long as it runs: at its end the thread that reads it ends.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped()),
    );
    let control = connect(&socket);
    ask(&control, "status");
    (dir, child, control)
}

fn connect(socket: &Path) -> UnixStream {
    let end = Instant::now() + LIMIT;
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return stream,
            Err(e) => assert!(Instant::now() < end, "{e}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn ask(mut control: &UnixStream, request: &str) -> String {
    control
        .write_all(format!("{{\"request\":\"{request}\"}}\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    BufReader::new(control).read_line(&mut answer).unwrap();
    assert!(answer.contains("\"ok\""), "{request}: {answer}");
    answer
}

#[test]
fn every_thread_of_run_is_in_the_jail_and_serves_its_operator() {
    if !kvm() {
        return;
    }
    for halt in ["kernel", "userspace"] {
        let trace = std::env::temp_dir().join(format!("jail-{halt}-{}", std::process::id()));
        let arguments = [
            "--halt",
            halt,
            "--stats",
            "--trace",
            trace.to_str().unwrap(),
        ];
        let (_dir, mut child, control) = running(&format!("jail-{halt}"), &arguments);
        let all = begun_threads(child.id());
        assert_jailed(&all);
        let mut names: Vec<_> = all.iter().map(|thread| thread.name.as_str()).collect();
        names.sort_unstable();
        let expected = [
            "console",
            "input",
            "stats",
            "vcpu0",
            "vcpu1",
            "vmm-reference",
        ];
        assert_eq!(names, expected);
        for request in ["pause", "stats", "resume", "stats"] {
            ask(&control, request);
        }
        ask_with(&control, r#"{"request":"kick","apic_id":1}"#);
        kill_process(Pid::from_child(&child), Signal::USR1).unwrap();
        // Another client, and SIGSTOP: system calls that are gone on with.
        kill_process(Pid::from_child(&child), Signal::STOP).unwrap();
        kill_process(Pid::from_child(&child), Signal::CONT).unwrap();
        ask(&control, "stop");
        let stderr = child.stderr.take().unwrap();
        assert_eq!(wait(&mut child, LIMIT).and_then(|s| s.code()), Some(0));
        let lines: Vec<String> = BufReader::new(stderr).lines().map(Result::unwrap).collect();
        assert!(
            lines.iter().any(|line| line.contains("stats:")),
            "{lines:?}"
        );
        let traced = fs::read_to_string(&trace).unwrap();
        fs::remove_file(&trace).unwrap();
        assert!(traced.contains("vCPU 1"), "no vCPU in the trace");
    }
}

#[test]
fn a_snapshot_is_written_and_gone_on_with_in_the_jail() {
    if !kvm() {
        return;
    }
    for halt in ["kernel", "userspace"] {
        let (dir, mut child, control) = running(&format!("jail-save-{halt}"), &["--halt", halt]);
        let snapshot = dir.path("snapshot");
        let save = format!(r#"{{"request":"snapshot","path":{snapshot:?}}}"#);
        // The second one replaces the first.
        ask_with(&control, &save);
        ask_with(&control, &save);
        // One that fails when the guest goes on already: its name is a directory's.
        let taken = dir.path("taken");
        fs::create_dir(&taken).unwrap();
        let before = fs::read_dir(taken.parent().unwrap()).unwrap().count();
        let refused = answer(
            &control,
            &format!(r#"{{"request":"snapshot","path":{taken:?}}}"#),
        );
        assert!(
            refused.contains("\"error\"") && refused.contains("taken"),
            "{refused}"
        );
        let after = fs::read_dir(taken.parent().unwrap()).unwrap().count();
        assert_eq!(after, before, "half a snapshot is left");
        let status = ask(&control, "status");
        assert!(
            status.contains("running") && !status.contains("paused"),
            "{status}"
        );
        ask(&control, "stop");
        assert_eq!(wait(&mut child, LIMIT).and_then(|s| s.code()), Some(0));
        let socket = dir.path("socket");
        let mut restored = spawn(
            vmm(&["run", "--restore"])
                .arg(&snapshot)
                .arg("--control")
                .arg(&socket)
                .stdout(Stdio::null()),
        );
        let control = connect(&socket);
        ask(&control, "status");
        assert_jailed(&begun_threads(restored.id()));
        // Memory of which some is in the file only.
        ask_with(&control, &save);
        ask(&control, "stop");
        assert_eq!(wait(&mut restored, LIMIT).and_then(|s| s.code()), Some(0));
        assert!(!socket.exists(), "the socket's file is left");
    }
}

fn ask_with(control: &UnixStream, request: &str) {
    let answer = answer(control, request);
    assert!(answer.contains("\"ok\""), "{request}: {answer}");
}

fn answer(mut control: &UnixStream, request: &str) -> String {
    control
        .write_all(format!("{request}\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    BufReader::new(control).read_line(&mut answer).unwrap();
    answer
}

#[test]
fn no_descriptor_survives_an_exec_and_no_dump_has_guest_memory() {
    if !kvm() {
        return;
    }
    let (_dir, mut child, control) = running("jail-files", &[]);
    let pid = child.id();
    let mut seen = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap() {
        let path = entry.unwrap().path();
        let number: u32 = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let info = fs::read_to_string(&path).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = u32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
        let link = fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap();
        if number > 2 {
            assert_ne!(flags & 0o2_000_000, 0, "{number}: {}", link.display());
            seen += 1;
        }
    }
    // /dev/kvm, a VM, two vCPUs, the loop, events, the socket.
    assert!(seen > 8, "{seen} descriptors");
    let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let guest = maps.split("Size:              16384 kB").nth(1).unwrap();
    let flags = guest
        .lines()
        .find(|line| line.starts_with("VmFlags:"))
        .unwrap();
    assert!(flags.split_whitespace().any(|flag| flag == "dd"), "{flags}");
    ask(&control, "stop");
    assert_eq!(wait(&mut child, LIMIT).and_then(|s| s.code()), Some(0));
}

#[test]
fn without_a_jail_it_says_what_it_gives_up() {
    if !kvm() {
        return;
    }
    let (_dir, mut child, control) = running("no-jail", &["--no-jail"]);
    for thread in threads(child.id()) {
        assert_ne!(thread.seccomp, "2", "{thread:?}");
    }
    ask(&control, "stop");
    let mut said = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut said).unwrap();
    assert_eq!(
        said,
        "vmm-reference: no jail: a guest that breaks out has all system calls and all \
         capabilities of this process\n"
    );
    assert_eq!(wait(&mut child, LIMIT).and_then(|s| s.code()), Some(0));
}

/// Every command that runs guests, to its end; `run` is in all its other tests.
#[test]
fn every_command_does_its_work_in_the_jail() {
    let dir = Scratch::new("jail-walk");
    let trace = dir.path("trace.json");
    let files = dir.path("");
    let files = files.to_str().unwrap();
    let (trace, out) = (trace.to_str().unwrap(), dir.path("study"));
    let out = out.to_str().unwrap();
    let mut commands = vec![
        vec!["probe"],
        vec![
            "demo",
            "--backend",
            "hosted",
            "--vcpus",
            "1,4",
            "--seconds",
            "0.1",
        ],
        vec![
            "study",
            "--backend",
            "hosted",
            "--quick",
            "--budget",
            "2",
            "--out",
            out,
            "--trace",
            trace,
        ],
    ];
    if kvm() {
        commands.extend([
            vec!["demo", "--vcpus", "1,4", "--vms", "1,2", "--seconds", "0.1"],
            vec![
                "demo",
                "--vcpus",
                "4",
                "--seconds",
                "0.1",
                "--trace",
                trace,
                "--json",
            ],
            vec!["conformance"],
            vec!["bench", "handover"],
            vec!["bench", "control", "--count", "10"],
            vec!["bench", "snapshot", "--rounds", "3"],
            vec![
                "bench",
                "restore",
                "--memory",
                "8M",
                "--turns",
                "2",
                "--directory",
                files,
            ],
            vec!["bench", "policies", "--cell-ms", "10", "--turns", "1"],
            vec!["study", "--quick", "--budget", "4", "--out", out],
        ]);
    }
    for arguments in commands {
        let said = finish(&mut vmm(&arguments));
        assert_eq!(said.status, Some(0), "{arguments:?}: {}", said.stderr);
        assert!(
            !said.stderr.contains("jail"),
            "{arguments:?}: {}",
            said.stderr
        );
    }
}

#[test]
fn the_threads_of_a_demo_are_in_the_jail() {
    let demo = [
        "demo",
        "--backend",
        "hosted",
        "--vcpus",
        "2",
        "--seconds",
        "1",
    ];
    let mut child = spawn(vmm(&demo).stdout(Stdio::null()));
    let end = Instant::now() + LIMIT;
    // The main thread is, before it starts another.
    let all = loop {
        let all = threads(child.id());
        if all.iter().any(|thread| thread.name == "vcpu1") {
            break all;
        }
        assert!(Instant::now() < end && child.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_jailed(&all);
    assert_eq!(wait(&mut child, LIMIT).and_then(|s| s.code()), Some(0));
}

/// What the process of [`inside`] is to do.
const TASK: &str = "JAIL_TEST_TASK";

/// Starts this test again, as a process of its own in the jail, to do a task.
fn in_the_jail(kind: ThreadKind, task: &str) -> Said {
    finish(&mut jailed(kind, task))
}

fn jailed(kind: ThreadKind, task: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "inside", "--nocapture"])
        .env(TASK, format!("{} {task}", kind_index(kind)))
        .env("RUST_BACKTRACE", "1");
    command
}

fn kind_index(kind: ThreadKind) -> usize {
    ThreadKind::ALL.iter().position(|&k| k == kind).unwrap()
}

/// Does nothing by itself.
#[test]
fn inside() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    let (kind, task) = task.split_once(' ').unwrap();
    let kind = ThreadKind::ALL[kind.parse::<usize>().unwrap()];
    let task = task.to_string();
    jail::arm().unwrap();
    let host = (task == "vm").then(|| kvm_ioctls::Kvm::new().unwrap());
    let raw = (task == "terminal").then(|| RawMode::enter().unwrap().unwrap());
    let thread = std::thread::Builder::new().name("tested".to_string());
    let thread = thread.spawn(move || {
        jail::enter(kind).unwrap();
        match task.as_str() {
            "socket" | "terminal" => drop(std::net::UdpSocket::bind("127.0.0.1:0")),
            "exec" => drop(Command::new("/bin/true").exec()),
            "ioctl" => drop(rustix::io::ioctl_fioclex(std::io::stdin())),
            "open" => println!("{:?}", fs::read("/dev/null").map_err(|e| e.kind())),
            "open for writing" => drop(fs::OpenOptions::new().write(true).open("/dev/null")),
            "vm" => drop(host.unwrap().create_vm()),
            "kill" => drop(kill_process(Pid::INIT, Signal::USR1)),
            "panic" => panic!("on purpose"),
            other => unreachable!("{other}"),
        }
    });
    let joined = thread.unwrap().join();
    drop(raw);
    println!("\njoined: {}", joined.is_ok());
}

#[test]
fn a_hit_ends_the_process_and_names_the_call_and_the_thread() {
    for kind in ThreadKind::ALL {
        for (task, call) in [("socket", "socket (41)"), ("kill", "kill (62)")] {
            let said = in_the_jail(kind, task);
            assert_eq!(said.status, Some(148), "{kind:?}, {task}: {said:?}");
            let line = format!(
                "vmm-reference: jail: thread tested ({}) must not call {call}, arguments 0x",
                kind.name()
            );
            let lines: Vec<_> = said.stderr.lines().filter(|l| l.contains("jail")).collect();
            assert!(
                matches!(lines.as_slice(), [one] if one.starts_with(&line)),
                "{said:?}"
            );
        }
    }
    // A request that is not in a row.
    let said = in_the_jail(ThreadKind::Vcpu, "ioctl");
    assert_eq!(said.status, Some(148), "{said:?}");
    assert!(
        said.stderr.contains("ioctl (16), arguments 0x0, 0x5451,"),
        "{said:?}"
    );
    for (kind, task) in [
        (ThreadKind::EventLoop, "exec"),
        (ThreadKind::EventLoop, "open for writing"),
        (ThreadKind::Operated, "exec"),
        (ThreadKind::Operated, "open for writing"),
    ] {
        let said = in_the_jail(kind, task);
        // What fails where nothing may be opened ends who may make files.
        let status = match (kind, task) {
            (ThreadKind::EventLoop, "open for writing") => 0,
            _ => 148,
        };
        assert_eq!(said.status, Some(status), "{kind:?}, {task}: {said:?}");
    }
}

#[test]
fn only_who_builds_vms_can_make_one() {
    if !kvm() {
        return;
    }
    for kind in ThreadKind::ALL {
        let builds = matches!(
            kind,
            ThreadKind::Builder | ThreadKind::Saver | ThreadKind::Tracer | ThreadKind::Study
        );
        let said = in_the_jail(kind, "vm");
        let status = if builds { 0 } else { 148 };
        assert_eq!(said.status, Some(status), "{kind:?}: {said:?}");
    }
}

#[test]
fn the_terminal_is_as_before_after_a_hit() {
    let (_master, slave) = terminal();
    // What the modes are of: numbers and names, and control characters.
    let modes = || format!("{:?}", tcgetattr(&slave).unwrap());
    let before = modes();
    let said = finish(jailed(ThreadKind::Vcpu, "terminal").stdin(slave.try_clone().unwrap()));
    assert_eq!(said.status, Some(148), "{said:?}");
    assert_eq!(modes(), before);
}

#[test]
fn a_file_that_is_refused_is_an_error_only() {
    for kind in [
        ThreadKind::Vcpu,
        ThreadKind::Console,
        ThreadKind::Reader,
        ThreadKind::EventLoop,
        ThreadKind::Operated,
    ] {
        let said = in_the_jail(kind, "open");
        assert_eq!(said.status, Some(0), "{said:?}");
        assert!(said.stdout.contains("Err(PermissionDenied)"), "{said:?}");
    }
    let said = in_the_jail(ThreadKind::Builder, "open");
    assert!(said.stdout.contains("Ok([])"), "{said:?}");
}

/// With its backtrace.
#[test]
fn a_panic_is_told_in_the_jail() {
    for kind in ThreadKind::ALL {
        let said = in_the_jail(kind, "panic");
        assert_eq!(said.status, Some(0), "{kind:?}: {said:?}");
        assert!(said.stderr.contains("on purpose"), "{said:?}");
        assert!(said.stderr.contains("stack backtrace:"), "{said:?}");
        assert!(said.stdout.contains("joined: false"), "{said:?}");
    }
}
