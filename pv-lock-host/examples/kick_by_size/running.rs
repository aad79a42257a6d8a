//! Kicks of vCPUs that run: the look-up and one write.

use std::hint::black_box;
use std::time::Instant;

use pv_lock_host::{ApicId, HaltScheduler, Kicker};

use super::Timed;

pub(crate) const SIZES: [u32; 4] = [2, 16, 256, 4096];

/// Of each of two ids in one round.
const KICKS: u32 = 500;

struct Vm {
    name: String,
    kicker: Kicker,
    /// Kicked in turns.
    ids: Vec<ApicId>,
    _scheduler: HaltScheduler,
}

pub(crate) fn vms() -> Vec<Box<dyn Timed>> {
    let dense = SIZES.map(|n| Vm::new("dense", n, |vcpu| vcpu));
    let sparse = SIZES.map(|n| Vm::new("sparse", n, |vcpu| 0x8000_0000 + (vcpu << 12)));
    let boxed = |vm| Box::new(vm) as Box<dyn Timed>;
    dense.into_iter().chain(sparse).map(boxed).collect()
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
        }
    }
}

impl Timed for Vm {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn round(&mut self) -> f64 {
        let begin = Instant::now();
        for _ in 0..KICKS {
            for &id in &self.ids {
                black_box(self.kicker.kick_by_host(black_box(id)));
            }
        }
        let kicks = f64::from(KICKS) * self.ids.len() as f64;
        begin.elapsed().as_secs_f64() * 1e9 / kicks
    }
}
