//! What a kick costs in a VM with few vCPUs and in one with many, for APIC IDs
//! without gaps (looked up in an array) and for sparse ones (a hash table).
//!
//! All VMs take turns in rounds of a few microseconds, so that whatever changes
//! the speed of the machine hits all alike; what is compared are ratios to the
//! smallest VM within the same round.
//!
//! ```text
//! cargo run --release -p pv-lock-host --example kick_by_size -- [ROUNDS]
//! ```
#![expect(
    clippy::unwrap_used,
    reason = "an example that cannot do its work says why and stops"
)]

use std::hint::black_box;
use std::time::Instant;

use pv_lock_host::{ApicId, HaltScheduler, Kicker};

const KICKS: u32 = 500;

struct Vm {
    name: String,
    kicker: Kicker,
    /// Kicked in turns.
    ids: Vec<ApicId>,
    _scheduler: HaltScheduler,
    /// Nanoseconds of a kick, by round.
    times: Vec<f64>,
}

impl Vm {
    fn new(kind: &str, vcpus: u32, id: fn(u32) -> u32) -> Self {
        let all: Vec<ApicId> = (0..vcpus).map(|vcpu| ApicId(id(vcpu))).collect();
        let (scheduler, _parkers) = HaltScheduler::new(&all).unwrap();
        // As many in each VM, for as many cache lines; at no power of two from
        // each other, where lines compete for the same place in the cache.
        let step = all.len() / 2 - 1;
        Self {
            name: format!("{kind}, {vcpus} vCPUs"),
            kicker: scheduler.kicker(),
            ids: all.iter().copied().step_by(step.max(1)).take(2).collect(),
            _scheduler: scheduler,
            times: Vec::new(),
        }
    }

    fn round(&mut self) {
        let begin = Instant::now();
        for _ in 0..KICKS {
            for &id in &self.ids {
                black_box(self.kicker.kick(black_box(id)));
            }
        }
        let kicks = f64::from(KICKS) * self.ids.len() as f64;
        self.times.push(begin.elapsed().as_secs_f64() * 1e9 / kicks);
    }
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_unstable_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() {
    let rounds: usize = std::env::args()
        .nth(1)
        .map_or(2_000, |rounds| rounds.parse().unwrap());
    let sizes = [2, 16, 256, 4096];
    let dense = sizes.map(|n| Vm::new("dense", n, |vcpu| vcpu));
    let sparse = sizes.map(|n| Vm::new("sparse", n, |vcpu| 0x8000_0000 + (vcpu << 12)));
    let mut vms: Vec<Vm> = dense.into_iter().chain(sparse).collect();
    for round in 0..rounds {
        // Another one begins each time: nobody always follows the same one.
        let count = vms.len();
        vms.rotate_left(round % count);
        vms.iter_mut().for_each(Vm::round);
        vms.rotate_right(round % count);
    }
    println!("kick of a running vCPU, {rounds} rounds of {KICKS} kicks of each of two ids");
    println!(
        "{:<20} {:>8} {:>12} {:>12}",
        "", "ns", "to dense, 2", "to its 2"
    );
    for of_kind in vms.chunks(sizes.len()) {
        for vm in of_kind {
            let to = |base: &Vm| {
                let both = vm.times.iter().zip(&base.times);
                median(both.map(|(time, base)| time / base).collect())
            };
            let (first, own) = (vms.first().unwrap(), of_kind.first().unwrap());
            println!(
                "{:<20} {:>8.1} {:>11.3}x {:>11.3}x",
                vm.name,
                median(vm.times.clone()),
                to(first),
                to(own)
            );
        }
    }
}
