//! Which policy is best when vCPUs outnumber CPUs: a lock like the one that
//! `KVM_HC_KICK_CPU` was made for (a ticket lock whose waiters halt after a
//! while and are kicked by the unlocker), taken by threads that stand for
//! vCPUs, under every policy.
//!
//! ```text
//! cargo run --release -p pv-lock-host --example overcommit -- [MILLISECONDS]
//! ```
//! Lock acquisitions per second, in thousands, as a Markdown table; the number
//! is how long each cell is measured (250 without it). `spin` never halts.
#![expect(clippy::unwrap_used, reason = "an example that cannot run stops")]

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pv_lock_host::{
    AdaptivePolling, ApicId, HaltScheduler, Polling, SchedulerBuilder, VcpuParker, WakeReason,
    Yielding,
};

/// Rounds of spinning before a waiter halts, some ten microseconds.
const THRESHOLD: u32 = 1 << 11;
/// Rounds inside the lock and outside it.
const INSIDE: u32 = 100;
const OUTSIDE: u32 = 100;
/// No ticket is waited for.
const NOTHING: u64 = u64::MAX;

/// The lock, in guest memory. SeqCst throughout: a waiter publishes its ticket
/// and then looks at `serving`, an unlocker writes `serving` and then looks for
/// tickets, and one of them must see the other.
struct TicketLock {
    next: AtomicU64,
    serving: AtomicU64,
    /// By vCPU: the ticket it has halted for.
    halted_for: Vec<AtomicU64>,
}

/// One vCPU: its guest's and its host's part.
struct Vcpu<'a> {
    lock: &'a TicketLock,
    parker: VcpuParker,
    halts: bool,
}

impl Vcpu<'_> {
    /// Whether the lock was taken; not if the VM was stopped.
    fn acquire(&mut self, stop: &AtomicBool) -> bool {
        let ticket = self.lock.next.fetch_add(1, Ordering::SeqCst);
        let mine = || self.lock.serving.load(Ordering::SeqCst) == ticket;
        let me = self.lock.halted_for.get(self.parker.apic_id().0 as usize);
        loop {
            for _ in 0..THRESHOLD {
                if mine() {
                    return true;
                }
                std::hint::spin_loop();
            }
            if stop.load(Ordering::Relaxed) {
                return false;
            }
            if !self.halts {
                continue;
            }
            // kvm_wait: publish, check again, HLT.
            let me = me.unwrap();
            me.store(ticket, Ordering::SeqCst);
            if !mine()
                && (self.parker.halt() == WakeReason::Stopped || self.parker.enter().is_err())
            {
                return false;
            }
            me.store(NOTHING, Ordering::SeqCst);
        }
    }

    fn release(&mut self) {
        let next = self.lock.serving.fetch_add(1, Ordering::SeqCst) + 1;
        let waits = |ticket: &AtomicU64| ticket.load(Ordering::SeqCst) == next;
        if let Some(vcpu) = self.lock.halted_for.iter().position(waits) {
            // kvm_kick_cpu: an exit, and in again.
            self.parker
                .kick_by_guest(ApicId(u32::try_from(vcpu).unwrap()));
            let _ = self.parker.enter();
        }
    }
}

fn work(rounds: u32) {
    for _ in 0..rounds {
        std::hint::spin_loop();
    }
}

/// Acquisitions per second.
fn measure(builder: SchedulerBuilder, vcpus: u32, halts: bool, time: Duration) -> f64 {
    let ids: Vec<ApicId> = (0..vcpus).map(ApicId).collect();
    let (scheduler, parkers) = builder.build(&ids).unwrap();
    let lock = TicketLock {
        next: AtomicU64::new(0),
        serving: AtomicU64::new(0),
        halted_for: ids.iter().map(|_| AtomicU64::new(NOTHING)).collect(),
    };
    let (stop, acquired) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut spent = Duration::ZERO;
    thread::scope(|scope| {
        for parker in parkers {
            let mut vcpu = Vcpu {
                lock: &lock,
                parker,
                halts,
            };
            let (stop, acquired) = (&stop, &acquired);
            scope.spawn(move || {
                while vcpu.parker.enter().is_ok() && vcpu.acquire(stop) {
                    acquired.fetch_add(1, Ordering::Relaxed);
                    work(INSIDE);
                    vcpu.release();
                    work(OUTSIDE);
                }
            });
        }
        // Let it get going first.
        thread::sleep(time / 5);
        let (begin, before) = (Instant::now(), acquired.load(Ordering::Relaxed));
        thread::sleep(time);
        let after = acquired.load(Ordering::Relaxed);
        spent = begin.elapsed();
        stop.store(true, Ordering::Relaxed);
        scheduler.kicker().stop_all();
        acquired.store(after - before, Ordering::Relaxed);
    });
    f64::from(u32::try_from(acquired.into_inner()).unwrap_or(u32::MAX)) / spent.as_secs_f64()
}

/// One line on what was wrong with the arguments, and status 2.
fn usage(wrong: &str) -> ! {
    eprintln!("overcommit: {wrong}; its argument is the milliseconds a cell, 250 without");
    std::process::exit(2)
}

fn main() {
    let milliseconds = std::env::args().nth(1).map_or(250, |arg| {
        arg.parse()
            .unwrap_or_else(|_| usage(&format!("{arg} is no number")))
    });
    let time = Duration::from_millis(milliseconds);
    let cpus = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let yielding = [
        ("nothing", Yielding::Nothing),
        ("sched_yield", Yielding::SchedYield),
        ("hold", Yielding::default()),
    ];
    let polling = [
        ("off", Polling::Off),
        ("20 us", Polling::Fixed(Duration::from_micros(20))),
        ("adaptive", Polling::Adaptive(AdaptivePolling::default())),
    ];
    println!("| yield | polling | 1x | 2x | 4x | 8x |");
    println!("|---|---|--:|--:|--:|--:|");
    let row = |name: &str, window: &str, builder: &SchedulerBuilder, halts| {
        print!("| {name} | {window} |");
        for overcommit in [1, 2, 4, 8] {
            let vcpus = u32::try_from(cpus.get() * overcommit).unwrap();
            let rate = measure(builder.clone(), vcpus, halts, time);
            print!(" {:.0} |", rate / 1e3);
        }
        println!();
    };
    let nothing = HaltScheduler::builder().yielding(Yielding::Nothing);
    row("never halts", "-", &nothing, false);
    for (yields, yielding) in &yielding {
        for (polls, polling) in polling {
            let builder = HaltScheduler::builder()
                .yielding(*yielding)
                .polling(polling);
            row(yields, polls, &builder, true);
        }
    }
}
