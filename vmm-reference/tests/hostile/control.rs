//! The control socket: its file, and clients that mean no good.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};

use crate::common::control::{ask, connect};
use crate::common::guests::{self, flat};
use crate::common::{LIMIT, Process, Scratch, finish, kvm, run, signal, spawn, wait};

const STATUS: &str = r#"{"request":"status"}"#;

fn vm(kernel: &Path, socket: &Path) -> Command {
    let mut command = run(kernel);
    command.arg("--control").arg(socket).stdout(Stdio::null());
    command
}

/// A VM that sleeps, once its socket answers.
fn start(kernel: &Path, socket: &Path) -> Process {
    let child = spawn(&mut vm(kernel, socket));
    let answer = ask(&mut connect(socket), STATUS);
    assert!(answer.get("ok").is_some(), "{answer}");
    child
}

fn term(child: &mut Child) {
    signal(child, Signal::TERM);
    assert_eq!(wait(child, LIMIT).and_then(|s| s.code()), Some(0));
}

#[test]
fn a_socket_that_is_another_vm_s_by_now_stays() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("control-other");
    let kernel = dir.file("kernel", &flat(&guests::dead_halt()));
    let path = dir.path("socket");
    let mut first = start(&kernel, &path);
    std::fs::remove_file(&path).unwrap();
    let mut second = start(&kernel, &path);
    term(&mut first);
    let answer = ask(&mut connect(&path), STATUS);
    assert!(answer["ok"].is_object(), "{answer}");
    term(&mut second);
    assert!(!path.exists());
}

#[test]
fn a_socket_of_a_vm_that_was_killed_is_replaced_and_no_other() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("control-stale");
    let kernel = dir.file("kernel", &flat(&guests::dead_halt()));
    let path = dir.path("socket");
    let mut first = start(&kernel, &path);
    // While it lives it has it.
    let said = finish(&mut vm(&kernel, &path));
    assert_eq!(said.status, Some(1), "{said:?}");
    assert!(said.stderr.contains("in use"), "{said:?}");
    let answer = ask(&mut connect(&path), STATUS);
    assert!(answer["ok"].is_object(), "{answer}");
    signal(&first, Signal::KILL);
    first.wait().unwrap();
    assert!(path.exists());
    let mut second = start(&kernel, &path);
    term(&mut second);
}

/// How long the process's loop ran or wanted to: on a CPU and waiting for one.
fn runnable(child: &Child) -> Duration {
    // Nanoseconds of both, then time slices (Documentation/scheduler/sched-stats).
    let id = child.id();
    let stat = std::fs::read_to_string(format!("/proc/{id}/task/{id}/schedstat")).unwrap();
    let both = stat.split(' ').take(2).map(|ns| ns.parse::<u64>().unwrap());
    Duration::from_nanos(both.sum())
}

/// Clients that come while there is no descriptor for them wait, and cost nothing
/// meanwhile: a loop that is woken for them without end is runnable all the time.
#[test]
fn clients_without_a_descriptor_for_them_wait_and_cost_nothing() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("control-emfile");
    let kernel = dir.file("kernel", &flat(&guests::dead_halt()));
    let path = dir.path("socket");
    let mut child = start(&kernel, &path);
    let pid = Pid::from_child(&child);
    let open = std::fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap();
    let numbers = open.map(|fd| fd.unwrap().file_name().into_string().unwrap());
    let highest = numbers.map(|n| n.parse::<u64>().unwrap()).max().unwrap();
    // It has this process's limits. Gaps below the highest are filled first.
    let before = getrlimit(Resource::Nofile);
    let few = Rlimit {
        current: Some(highest + 1),
        ..before
    };
    prlimit(Some(pid), Resource::Nofile, few).unwrap();
    let mut clients: Vec<BufReader<UnixStream>> = (0..10).map(|_| connect(&path)).collect();
    std::thread::sleep(Duration::from_millis(200));
    let (begin, before_it) = (Instant::now(), runnable(&child));
    std::thread::sleep(Duration::from_secs(1));
    let (spent, time) = (runnable(&child) - before_it, begin.elapsed());
    assert!(spent < time / 2, "runnable for {spent:?} of {time:?}");
    // Once there are descriptors again they are served.
    prlimit(Some(pid), Resource::Nofile, before).unwrap();
    for client in &mut clients {
        assert!(ask(client, STATUS)["ok"].is_object());
    }
    term(&mut child);
}

#[test]
fn silent_clients_do_not_lock_out_the_owner() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("control-silent");
    let kernel = dir.file("kernel", &flat(&guests::dead_halt()));
    let path = dir.path("socket");
    let mut child = start(&kernel, &path);
    let silent: Vec<BufReader<UnixStream>> = (0..16).map(|_| connect(&path)).collect();
    std::thread::sleep(Duration::from_millis(200));
    for _ in 0..20 {
        // Each a client of its own that stays.
        let mut owner = connect(&path);
        assert!(ask(&mut owner, STATUS)["ok"].is_object());
        std::mem::forget(owner);
    }
    // Room was made by closing who said nothing.
    let mut gone = 0;
    for mut client in silent {
        let wait = Some(Duration::from_millis(1));
        client.get_ref().set_read_timeout(wait).unwrap();
        gone += usize::from(matches!(client.read_line(&mut String::new()), Ok(0)));
    }
    assert!(gone > 0);
    term(&mut child);
}

/// Who sends and never reads is dropped, and holds up nobody.
#[test]
fn a_client_that_does_not_read_its_answers_is_dropped() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("control-deaf");
    let kernel = dir.file("kernel", &flat(&guests::dead_halt()));
    let path = dir.path("socket");
    let mut child = start(&kernel, &path);
    let mut deaf = connect(&path);
    let requests = "{\"request\":\"stats\"}\n".repeat(100);
    deaf.get_ref().set_write_timeout(Some(LIMIT)).unwrap();
    // Until it is closed.
    let dropped = (0..1000).any(|_| deaf.get_mut().write_all(requests.as_bytes()).is_err());
    assert!(dropped);
    assert!(ask(&mut connect(&path), STATUS)["ok"].is_object());
    term(&mut child);
}
