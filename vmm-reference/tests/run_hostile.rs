//! Guests that mean harm, and files that are none: one clear line or plain
//! survival.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

mod common;

use std::io::Read as _;
use std::process::Stdio;
use std::time::Duration;

use common::guests::{self, flat};
use common::{LIMIT, Scratch, finish, kvm, run, run_unsized, spawn, wait};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn every_port_and_page_may_be_touched() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("touch");
    let kernel = dir.file("kernel", &flat(&guests::toucher()));
    let said = finish(&mut run(&kernel));
    assert_eq!(said.status, Some(1), "code 0 is status 1: {said:?}");
    assert_eq!(said.stderr, "");
}

#[test]
fn a_triple_fault_is_told_with_registers() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("triple");
    let kernel = dir.file("kernel", &flat(&guests::triple_fault()));
    let said = finish(&mut run(&kernel));
    assert_eq!(said.status, Some(1), "{said:?}");
    let begin = "vmm-reference: vCPU 0: triple fault";
    assert!(said.stderr.starts_with(begin), "{said:?}");
    // On AMD they are lost before KVM reports the fault, and the message says so.
    let registers = said.stderr.contains("rcx    000000001234abcd");
    let lost = said.stderr.contains("KVM has reset its registers");
    assert!(registers || lost, "{said:?}");
}

/// Lets a guest that never ends run for a while, with a reader that reads
/// `read` bytes and then no more; its resident memory in KiB and whether
/// SIGTERM ended it.
fn survive(name: &str, code: &[u8], arguments: &[&str], read: usize) -> (u64, Option<i32>) {
    let dir = Scratch::new(name);
    let kernel = dir.file("kernel", &flat(code));
    let mut child = spawn(run(&kernel).args(arguments).stdout(Stdio::piped()));
    let mut out = child.stdout.take().unwrap();
    let mut text = vec![0; read];
    out.read_exact(&mut text).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let rss = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    let rss = rss
        .split_ascii_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::TERM).unwrap();
    (rss, wait(&mut child, LIMIT).and_then(|s| s.code()))
}

#[test]
fn a_flood_that_nobody_reads_costs_no_memory_and_ends() {
    if !kvm() {
        return;
    }
    let (rss, status) = survive("flood", &guests::flood(), &[], 1000);
    assert_eq!(status, Some(0));
    // The guest touches two pages of its 16 MiB; the program itself is 5 MiB.
    assert!(rss < 16 << 10, "{rss} KiB resident");
}

#[test]
fn a_halt_for_ever_with_interrupts_off_ends_by_a_signal() {
    if kvm() {
        for halt in ["kernel", "userspace"] {
            let (_, status) = survive("halt", &guests::dead_halt(), &["--halt", halt], 2);
            assert_eq!(status, Some(0), "{halt}");
        }
    }
}

/// A flood of its own interrupts and a timer of no period cost no memory either,
/// and the VM is stopped as any other.
#[test]
fn noise_in_the_apics_ends_by_a_signal() {
    if kvm() {
        let (rss, status) = survive("noise", &guests::apic_noise(), &["--halt", "userspace"], 2);
        assert_eq!(status, Some(0));
        assert!(rss < 16 << 10, "{rss} KiB resident");
    }
}

#[test]
fn kicks_without_end_end_by_a_signal() {
    if kvm() {
        // It prints after 1,000 halts: each was ended by the kick before it.
        let (_, status) = survive("kick", &guests::kicker(), &["--halt", "userspace"], 1);
        assert_eq!(status, Some(0));
    }
}

/// One line on standard error, that begins with the program's name and holds
/// `what`; status 1.
fn refused(kernel: &std::path::Path, arguments: &[&str], what: &str) {
    refuses(run(kernel).args(arguments), what);
}

fn refuses(command: &mut std::process::Command, what: &str) {
    let said = finish(command);
    assert_eq!(said.status, Some(1), "{said:?}");
    assert_eq!(said.stdout, "", "{said:?}");
    assert!(said.stderr.starts_with("vmm-reference: "), "{said:?}");
    assert_eq!(said.stderr.lines().count(), 1, "{said:?}");
    assert!(said.stderr.contains(what), "{what}: {said:?}");
}

#[test]
fn files_that_are_no_kernel_are_named() {
    if !kvm() {
        return;
    }
    let dir = Scratch::new("files");
    refused(&dir.path("absent"), &[], "No such file");
    refused(&dir.path("."), &[], "not a regular file");
    refused(&dir.file("empty", b""), &[], "is empty");
    refused(&dir.file("gz", b"\x1f\x8b\x08\0"), &[], "gzip data");
    let noise = (0..9000u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]);
    let noise: Vec<u8> = noise.collect();
    refused(&dir.file("noise", &noise), &[], "no known format");
    // A bzImage of which only the header is there.
    let mut short = vec![0; 0x300];
    short[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    short[0x202..0x206].copy_from_slice(b"HdrS");
    refused(&dir.file("short", &short), &[], "short: ");
    let image = flat(&guests::spin());
    let good = dir.file("good", &image);
    // Of a multiboot image: cut in its header, and larger than memory.
    refused(
        &dir.file("cut", &image[..20]),
        &[],
        "ends in its multiboot header",
    );
    let mut large = image.clone();
    large.resize(17 << 20, 0);
    refused(&dir.file("large", &large), &[], "more --memory");
    // Program headers of no size: 65,535 times the first, a segment of 1 MiB.
    let often = |mut image: Vec<u8>, kind: usize, bytes: [usize; 2], size: usize| {
        image.resize(2 << 20, 0);
        image[kind] = 1;
        for at in bytes {
            image[at..at + 4].copy_from_slice(&(1u32 << 20).to_le_bytes());
        }
        image[size..size + 2].fill(0);
        image[size + 2..size + 4].fill(0xff);
        dir.file("often", &image)
    };
    let wide = often(guests::vmlinux(), 64, [96, 104], 54);
    refused(&wide, &[], "more --memory");
    let narrow = often(guests::elf(&guests::spin()), 52, [68, 72], 42);
    refused(&narrow, &[], "bytes of the file, and RAM ends at");
    let module = dir.file("module", &vec![0; 16 << 20]);
    refused(
        &good,
        &["--initrd", module.to_str().unwrap()],
        "have no room",
    );
    refused(&good, &["--initrd", "/"], "not a regular file");
    refused(&good, &["--cmdline", &"x".repeat(70_000)], "70000 bytes");
    refused(&good, &["--cpus", "5000"], "--cpus 5000");
    let mut command = run_unsized(&good);
    refuses(command.args(["--memory", "1000T"]), "this host has");
}

#[test]
fn arguments_that_make_no_sense_are_usage_errors() {
    let dir = Scratch::new("usage");
    let good = dir.file("good", b"");
    for arguments in [
        ["--cpus", "0"],
        ["--cpus", "99999999999"],
        ["--memory", "0"],
        ["--memory", "4194305"],
        ["--memory", "lots"],
        ["--halt", "never"],
        ["--pv", "+no-such-thing"],
    ] {
        let said = finish(run_unsized(&good).args(arguments));
        assert_eq!(said.status, Some(2), "{arguments:?}: {said:?}");
        assert_eq!(said.stderr.lines().count(), 1, "{said:?}");
        assert!(said.stderr.contains(arguments[0]), "{said:?}");
    }
}
