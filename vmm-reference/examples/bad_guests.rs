//! Runs every guest of `tests/common/bad_guests` in `vmm-reference run` for a while and
//! prints a verdict each (`ci/bad-guests`): the VMM is alive, its own threads take
//! little CPU, its memory does not grow, and SIGTERM ends it within a second.
//!
//! Usage: bad_guests VMM [HALT] [SECONDS]

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "of the tests' guests, which are shared, only these are run"
)]

#[macro_use]
#[path = "../tests/common/guests.rs"]
mod guests;
#[path = "../tests/common/bad_guests/mod.rs"]
mod bad_guests;
#[path = "../tests/common/process.rs"]
mod process;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use bad_guests::{ALL, observe};

/// CPU of the threads that are not vCPUs, as a part of the time.
const OWN_CPU: f64 = 0.1;
/// Growth of memory in the window, in KiB.
const GROWTH_KIB: i64 = 256;
/// So many interrupts came in where they come again and again.
const MANY: u64 = 10;
/// From SIGTERM to the end.
const STOP: Duration = Duration::from_secs(1);

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (vmm, halt, seconds) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [vmm] => (vmm, "userspace", "2"),
        [vmm, halt] => (vmm, halt, "2"),
        [vmm, halt, seconds] => (vmm, halt, seconds),
        _ => return Err("usage: bad_guests VMM [userspace|kernel] [SECONDS]".into()),
    };
    let window = Duration::from_secs_f64(seconds.parse()?);
    let dir = std::env::temp_dir().join(format!("bad-guests-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    println!("halts in {halt}, {seconds} s each");
    println!(
        "{:<28} {:>9} {:>9} {:>8} {:>7} {:>9} {:>11}  verdict",
        "guest", "vCPU CPU", "own CPU", "growth", "stop", "exits", "interrupts"
    );
    let mut bad = 0;
    for guest in ALL {
        let options = ["--halt", halt, "--stats"];
        let seen = observe(Path::new(vmm), &dir, guest, &options, window)?;
        // KVM's own are not counted by every KVM.
        let interrupts = seen.count("vmm_interrupts") + seen.count("vmm_nmis");
        let too_few = guest.interrupted && halt == "userspace" && interrupts < MANY;
        let verdict = match &seen {
            seen if !seen.up => "FAIL: it did not begin",
            seen if seen.stderr.contains("panicked") => "FAIL: a panic",
            _ if too_few => "FAIL: interrupts do not come in",
            seen if !seen.ran_on => "FAIL: it ended by itself",
            seen if seen.status != Some(0) => "FAIL: exit status",
            seen if seen.own_cpu > OWN_CPU => "FAIL: CPU of its own threads",
            seen if seen.growth_kib > GROWTH_KIB => "FAIL: memory grows",
            seen if seen.stopped_in.is_none_or(|took| took > STOP) => "FAIL: not stopped in 1 s",
            _ => "good",
        };
        println!(
            "{:<28} {:>7.0} % {:>7.1} % {:>4} KiB {:>4} ms {:>9} {:>11}  {verdict}",
            guest.name,
            seen.vcpu_cpu * 100.0,
            seen.own_cpu * 100.0,
            seen.growth_kib,
            seen.stopped_in.unwrap_or_default().as_millis(),
            seen.count("exits"),
            interrupts,
        );
        if verdict != "good" {
            bad += 1;
            eprintln!("{}: status {:?}: {}", guest.name, seen.status, seen.stderr);
        }
    }
    std::fs::remove_dir_all(&dir)?;
    match bad {
        0 => println!("all {} good", ALL.len()),
        _ => println!("{bad} of {} bad", ALL.len()),
    }
    Ok(ExitCode::from(u8::from(bad > 0)))
}
