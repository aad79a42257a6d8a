//! How late an interrupt is that the scheduler is not told of: vCPUs that halt in
//! KVM take a lock over and over, their kicks come through this process, and
//! interrupts are sent from one local APIC to another, in KVM. A vCPU that is held
//! asks for its interrupts every 4 ms (`enter_unless`); here threads stand for
//! vCPUs, and a mutex and a condition variable for KVM's halts.
//!
//! ```text
//! cargo run --release -p pv-lock-host --example unseen_interrupts -- \
//!     [--milliseconds N] [--turns N]
//! ```
//! A Markdown table. The policies take turns (3 of 1,000 ms without the options);
//! the times, from the interrupt until the guest's handler runs, are of all turns
//! together. `met a hold`: the interrupts that came while their vCPU was held.
#![expect(
    clippy::unwrap_used,
    reason = "an example that cannot do its work says why and stops"
)]

mod guest;
mod machine;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use pv_lock_host::{ApicId, HaltScheduler, HoldPolicy, Yielding};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use guest::{Seen, TicketLock, Vcpu};
use machine::Machine;

/// vCPUs for each of the two CPUs.
const OVER: [usize; 3] = [2, 4, 8];

/// Between two interrupts, of which each vCPU has one in its turn.
const PERIOD: Duration = Duration::from_micros(250);

/// vmm-reference's holds of vCPUs that halt in KVM.
fn hold() -> Yielding {
    let mut hold = HoldPolicy::default();
    hold.longest = Duration::from_millis(20);
    Yielding::Hold(hold)
}

fn main() {
    let (time, turns) = options();
    let cpus = two_cpus();
    let policies = [("hold", hold()), ("nothing", Yielding::Nothing)];
    println!(
        "{cpus} CPUs; {turns} turns of {} ms; times in us",
        time.as_millis()
    );
    println!();
    println!(
        "| vCPUs | policy | locks k/s | interrupts | p50 | p99 | max | met a hold | p50 | p99 | max |"
    );
    println!("|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for over in OVER {
        let mut seen = [Seen::default(), Seen::default()];
        for _ in 0..turns {
            for ((_, yielding), seen) in policies.iter().zip(&mut seen) {
                seen.add(run(cpus * over, *yielding, time));
            }
        }
        for ((policy, _), seen) in policies.iter().zip(seen) {
            let rate = seen.rounds * 1_000 / u64::try_from(time.as_micros()).unwrap();
            println!(
                "| {} | {policy} | {} | {} | {} |",
                cpus * over,
                rate / u64::from(turns),
                times(seen.late.iter().map(|late| late.ns)),
                times(
                    seen.late
                        .iter()
                        .filter(|late| late.held)
                        .map(|late| late.ns)
                ),
            );
        }
    }
}

/// How many, median, 99th percentile and the longest.
fn times(ns: impl Iterator<Item = u64>) -> String {
    let mut ns: Vec<u64> = ns.collect();
    ns.sort_unstable();
    let at = |percent: usize| match ns.get(ns.len().saturating_sub(1) * percent / 100) {
        Some(ns) => format!("{}", ns / 1_000),
        None => "-".into(),
    };
    format!("{} | {} | {} | {}", ns.len(), at(50), at(99), at(100))
}

fn run(count: usize, yielding: Yielding, time: Duration) -> Seen {
    let ids: Vec<ApicId> = (0..count)
        .map(|n| ApicId(u32::try_from(n).unwrap()))
        .collect();
    let machine = Arc::new(Machine::new(count));
    let halted = Arc::clone(&machine);
    let (scheduler, parkers) = HaltScheduler::builder()
        .yielding(yielding)
        .halts_elsewhere(Arc::new(move || halted.blocking()))
        .build(&ids)
        .unwrap();
    let lock = TicketLock::new(count);
    thread::scope(|scope| {
        let (machine, scheduler, lock) = (&*machine, &scheduler, &lock);
        let vcpus: Vec<_> = (parkers.into_iter())
            .map(|parker| scope.spawn(move || Vcpu::new(machine, scheduler, lock, parker).run()))
            .collect();
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        // Let it get going first.
        thread::sleep(time / 5);
        machine.measures(true);
        let end = Instant::now() + time;
        for n in (0..count).cycle() {
            if Instant::now() >= end {
                break;
            }
            thread::sleep(PERIOD);
            machine.interrupt(n);
        }
        machine.measures(false);
        machine.stop();
        scheduler.kicker().stop_all();
        let mut seen = Seen::default();
        for vcpu in vcpus {
            seen.add(vcpu.join().unwrap());
        }
        seen
    })
}

/// All threads share two CPUs, or what there is.
fn two_cpus() -> usize {
    let own = sched_getaffinity(None).unwrap();
    let mut two = CpuSet::new();
    let ours = (0..CpuSet::MAX_CPU).filter(|&cpu| own.is_set(cpu));
    ours.take(2).for_each(|cpu| two.set(cpu));
    sched_setaffinity(None, &two).unwrap();
    two.count() as usize
}

/// One line on what was wrong with the arguments, and status 2.
fn usage(wrong: &str) -> ! {
    eprintln!("unseen_interrupts: {wrong}; the top of its source says what there is");
    std::process::exit(2)
}

fn options() -> (Duration, u32) {
    let (mut milliseconds, mut turns) = (1_000, 3);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args
            .next()
            .unwrap_or_else(|| usage(&format!("{arg} needs a value")));
        let number = match value.parse::<u32>() {
            Ok(n) if n > 0 => n,
            _ => usage(&format!("{value} is not a number above zero")),
        };
        match arg.as_str() {
            "--milliseconds" => milliseconds = number,
            "--turns" => turns = number,
            _ => usage(&format!("unknown argument {arg}")),
        }
    }
    (Duration::from_millis(milliseconds.into()), turns)
}
