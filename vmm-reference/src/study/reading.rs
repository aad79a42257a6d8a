//! What the guests of a cell have written, and their threads have spent, at some
//! time: a repetition is what lies between two readings.

use std::time::Duration;

use super::dataset::{Repetition, Waits};
use super::finite::Finite;
use crate::memory::{self, MemoryError};
use crate::payload::image::result_page;
use crate::payload::layout::result;
use crate::payload::waiters::layout::{WaiterProgram, result_more};
use crate::stats::meter::{Meter, Total};
use crate::vm::{RunningVm, VmParts};

/// A VM of a cell, running.
pub(super) struct CellVm {
    pub(super) running: RunningVm,
    pub(super) parts: VmParts,
    pub(super) meter: Meter,
}

/// What the guests of a cell had written at some time.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    acquisitions: Vec<u64>,
    background: u64,
    exits: u64,
    halts: u64,
    kicks: u64,
    buckets: Vec<u64>,
    threads: Total,
}

impl Reading {
    /// Of a cell's VMs, while they run.
    pub(super) fn of(vms: &[CellVm], program: &WaiterProgram) -> Result<Self, MemoryError> {
        let mut all = Self {
            buckets: vec![0; result::HISTOGRAM_BUCKETS],
            ..Self::default()
        };
        for vm in vms {
            let memory = &vm.parts.memory;
            let vcpus = vm.parts.apic_ids.len();
            let lockers = vcpus.saturating_sub(program.computing as usize);
            for (index, page) in (0u32..).map(result_page).take(vcpus).enumerate() {
                let word = |offset| memory::read_word(memory, page + offset);
                if index < lockers {
                    all.acquisitions.push(word(result::ACQUISITIONS)?);
                }
                all.background = all
                    .background
                    .saturating_add(word(result_more::BACKGROUND)?);
                all.halts = all.halts.saturating_add(word(result::HALTS)?);
                all.kicks = all.kicks.saturating_add(word(result::KICKS)?);
                for (bucket, offset) in all.buckets.iter_mut().zip((0..).map(|n| 8 * n)) {
                    *bucket = bucket.saturating_add(word(result::HISTOGRAM + offset)?);
                }
            }
            let exits = vm.parts.gauges.iter().map(|gauge| gauge.exits());
            all.exits += exits.sum::<u64>();
            all.threads += vm.meter.read(vm.running.handle().held_ns());
        }
        Ok(all)
    }

    /// What was between the two. The guests wrote most of it: nothing says that
    /// it only grew.
    pub(super) fn since(&self, before: &Self, time: Duration, clock_hz: f64) -> Repetition {
        let grown = |now: u64, then: u64| now.saturating_sub(then);
        let pairs = self.acquisitions.iter().zip(&before.acquisitions);
        let buckets = self.buckets.iter().zip(&before.buckets);
        let waits: Vec<(u64, u64)> = buckets
            .enumerate()
            .map(|(bucket, (&now, &then))| {
                let ticks = result::bucket_limit(bucket) as f64;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "`as` saturates, and the last bucket has no end"
                )]
                let ns = (ticks / clock_hz * 1e9) as u64;
                (ns, grown(now, then))
            })
            .collect();
        let threads = self.threads.since(&before.threads, time);
        Repetition {
            at: Finite::ZERO,
            seconds: time.into(),
            acquisitions: pairs.map(|(&now, &then)| grown(now, then)).collect(),
            background: grown(self.background, before.background),
            exits: grown(self.exits, before.exits),
            halts: grown(self.halts, before.halts),
            kicks: grown(self.kicks, before.kicks),
            running: threads.running.into(),
            halted: threads.halted.into(),
            held: threads.held.into(),
            run_delay: threads.run_delay.into(),
            waits: Waits::from(waits),
        }
    }
}
