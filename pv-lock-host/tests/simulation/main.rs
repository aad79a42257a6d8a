//! A discrete-event simulation of vCPUs, pCPUs and locks around the very policy
//! code: what is simulated is a `Platform` (words, clock, sleeps and wake-ups),
//! the host's scheduler, and the guests; halts, kicks and holds are the crate's.
//! Each vCPU is a coroutine, time is virtual, and all follows from a seed.
//!
//! ```text
//! cargo test --release -p pv-lock-host --test simulation -- --nocapture
//! ```
//! runs some thousand cases. `PV_SIMULATION_CASES` is how many,
//! `PV_SIMULATION_SEED` the first one's seed; a broken promise names the seed of
//! its case. What is printed ends with a digest of who ran when, in all cases: it
//! is the same as long as neither the policy nor the simulation does anything else.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics is a test that fails"
)]

mod case;
mod check;
mod guest;
mod loads;
mod platform;
mod random;
mod run;
mod world;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use check::{Sum, check, us};
use run::Case;

/// Debug builds are slower by an order of magnitude.
const CASES: u64 = if cfg!(debug_assertions) { 40 } else { 3_000 };

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| {
        let number = value.parse();
        number.unwrap_or_else(|_| panic!("{name}={value}: not a number"))
    })
}

#[test]
fn every_case_keeps_the_promises() {
    let first = from_environment("PV_SIMULATION_SEED", 1);
    let count = from_environment("PV_SIMULATION_CASES", CASES);
    let next = &AtomicU64::new(0);
    let work = || {
        let mut sum = Sum::default();
        loop {
            // Relaxed: each number is drawn once, and that is all.
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                return sum;
            }
            sum.add(check(&Case::of(first + n)));
        }
    };
    let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut sum = Sum::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            match worker.join() {
                Ok(part) => sum.add(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    println!(
        "simulation: {} cases from seed {first}, {} of them with holds ({}); \
         longest that a pCPU idled while a vCPU was held: {}; \
         locks taken {}, without a policy {}; digest {:016x}",
        sum.cases,
        sum.convoys,
        sum.holds,
        us(sum.longest_waste),
        sum.taken,
        sum.taken_with_nothing,
        sum.digest,
    );
    assert_eq!(sum.cases, count);
    assert!(count < 100 || sum.convoys > count / 10, "hardly a convoy");
}
