//! What the guests of a cell have written, and their threads have spent, at some
//! time: a repetition is what lies between two readings.

use std::time::Duration;

use super::dataset::{Beside, Repetition, Waits};
use super::finite::Finite;
use super::waker::Waker;
use crate::memory::{self, MemoryError};
use crate::payload::image::result_page;
use crate::payload::layout::result;
use crate::payload::waiters::layout::{WaiterProgram, result_more, role};
use crate::stats::meter::{Meter, Total};
use crate::vm::{RunningVm, VmParts};

/// A VM of a cell, running.
pub(super) struct CellVm {
    pub(super) running: RunningVm,
    pub(super) parts: VmParts,
    pub(super) meter: Meter,
    /// Of the threads of the vCPUs that compute.
    pub(super) computing: Meter,
    /// Of the threads of the vCPUs that sleep, and who wakes them.
    pub(super) sleeping: Meter,
    pub(super) waker: Option<Waker>,
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
    beside: Option<BesideReading>,
}

/// The part of it of vCPUs that take no lock.
#[derive(Clone, Debug, Default)]
struct BesideReading {
    computing: Total,
    sleeping: Total,
    wakes: u64,
    buckets: Vec<u64>,
    /// How well the vCPUs' clocks are known, if they are.
    error_ns: Option<u64>,
}

impl Reading {
    /// Of a cell's VMs, while they run.
    pub(super) fn of(vms: &[CellVm], program: &WaiterProgram) -> Result<Self, MemoryError> {
        let mut all = Self {
            buckets: vec![0; result::HISTOGRAM_BUCKETS],
            beside: (program.computing + program.sleeping > 0).then(|| BesideReading {
                buckets: vec![0; result::HISTOGRAM_BUCKETS],
                error_ns: Some(0),
                ..BesideReading::default()
            }),
            ..Self::default()
        };
        for vm in vms {
            let memory = &vm.parts.memory;
            let vcpus = u32::try_from(vm.parts.apic_ids.len()).unwrap_or(u32::MAX);
            for index in 0..vcpus {
                let word = |offset| memory::read_word(memory, result_page(index) + offset);
                let grow = |sum: &mut u64, offset| {
                    *sum = sum.saturating_add(word(offset)?);
                    Ok::<_, MemoryError>(())
                };
                let role = program.role(index, vcpus);
                if role == role::LOCKS {
                    all.acquisitions.push(word(result::ACQUISITIONS)?);
                }
                grow(&mut all.background, result_more::BACKGROUND)?;
                grow(&mut all.halts, result::HALTS)?;
                grow(&mut all.kicks, result::KICKS)?;
                let buckets = match &mut all.beside {
                    Some(beside) if role == role::SLEEPS => {
                        grow(&mut beside.wakes, result_more::WAKES)?;
                        &mut beside.buckets
                    }
                    _ => &mut all.buckets,
                };
                for (bucket, offset) in buckets.iter_mut().zip((0..).map(|n| 8 * n)) {
                    grow(bucket, result::HISTOGRAM + offset)?;
                }
            }
            if let Some(beside) = &mut all.beside {
                beside.computing += vm.computing.read(0);
                beside.sleeping += vm.sleeping.read(0);
                let error = vm.waker.as_ref().and_then(Waker::error_ns);
                beside.error_ns = beside.error_ns.zip(error).map(|(a, b)| a.max(b));
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
        let pairs = self.acquisitions.iter().zip(&before.acquisitions);
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
            waits: waits(&self.buckets, &before.buckets, clock_hz),
            beside: self
                .beside
                .as_ref()
                .zip(before.beside.as_ref())
                .map(|(after, before)| after.since(before, time, clock_hz)),
        }
    }
}

impl BesideReading {
    fn since(&self, before: &Self, time: Duration, clock_hz: f64) -> Beside {
        let computing = self.computing.since(&before.computing, time);
        let sleeping = self.sleeping.since(&before.sleeping, time);
        let latency = waits(&self.buckets, &before.buckets, clock_hz);
        Beside {
            computing: self.computing.threads(),
            sleeping: self.sleeping.threads(),
            computing_s: computing.running.into(),
            sleeping_s: sleeping.running.into(),
            wakes: grown(self.wakes, before.wakes),
            wake_error_ns: self.error_ns,
            wake_latency: self.error_ns.map(|_| latency).filter(|all| all.total() > 0),
        }
    }
}

fn grown(now: u64, then: u64) -> u64 {
    now.saturating_sub(then)
}

/// A histogram in ticks as one in nanoseconds.
fn waits(after: &[u64], before: &[u64], clock_hz: f64) -> Waits {
    let buckets = after.iter().zip(before).enumerate();
    let waits: Vec<(u64, u64)> = buckets
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
    Waits::from(waits)
}
