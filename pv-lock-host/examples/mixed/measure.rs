//! One load under one policy, once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pv_lock_host::{ApicId, HaltScheduler, Kicker, Yielding};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::guest::{Vcpu, Vm};
use crate::loads::{LOCKS, Load, Role};
use crate::lock::TicketLock;
use crate::meter::{Meter, Phase};

/// What one measurement gave.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// In us; not a number if nobody woke up.
    pub(crate) wake_p50: f64,
    pub(crate) wake_p99: f64,
    pub(crate) wakes: f64,
    pub(crate) cpu_shares: Vec<f64>,
    /// Acquisitions a second.
    pub(crate) lock_rate: Option<f64>,
    pub(crate) idle_while_waiting: f64,
}

/// The pCPUs that the vCPUs share, until it is dropped: those of the main thread,
/// which its new threads inherit.
struct Bound(CpuSet);

impl Bound {
    fn to(cpus: usize) -> Self {
        let own = sched_getaffinity(None).unwrap();
        let mut fewer = CpuSet::new();
        let ours = (0..CpuSet::MAX_CPU).filter(|&cpu| own.is_set(cpu));
        ours.take(cpus).for_each(|cpu| fewer.set(cpu));
        sched_setaffinity(None, &fewer).unwrap();
        Self(own)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        sched_setaffinity(None, &self.0).unwrap();
    }
}

/// A device: notifies its vCPU once in a period, on any CPU but for what the
/// vCPUs leave.
fn device(vm: &Vm, kicker: &Kicker, id: ApicId, period: Duration, cpus: &CpuSet) {
    let _ = sched_setaffinity(None, cpus);
    // A sleep is as late as the timer slack of the thread, 50 us: shorten it.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    let due = vm.due.get(id.0 as usize).unwrap();
    while !vm.stop.load(Ordering::Relaxed) {
        thread::sleep(period);
        // Relaxed: the notification publishes it. The first one counts, if the
        // guest has not looked since.
        let _ = due.compare_exchange(0, vm.now(), Ordering::Relaxed, Ordering::Relaxed);
        kicker.notify(id);
    }
}

pub(crate) fn run(load: &Load, yielding: Yielding, time: Duration) -> Sample {
    let everywhere = sched_getaffinity(None).unwrap();
    let bound = Bound::to(load.cpus);
    let count = load.vcpus.len();
    let ids: Vec<ApicId> = (0..count)
        .map(|n| ApicId(u32::try_from(n).unwrap()))
        .collect();
    let builder = HaltScheduler::builder().yielding(yielding);
    let (scheduler, parkers) = builder.build(&ids).unwrap();
    let kicker = scheduler.kicker();
    let vm = Vm {
        locks: (0..LOCKS).map(|_| TicketLock::new(count)).collect(),
        phase: Phase::default(),
        stop: AtomicBool::new(false),
        epoch: Instant::now(),
        due: ids.iter().map(|_| AtomicU64::new(0)).collect(),
    };
    let held = || scheduler.counters().total().held_ns;
    let (meters, spent, held) = thread::scope(|scope| {
        let vm = &vm;
        let threads: Vec<_> = (parkers.into_iter().zip(&load.vcpus))
            .map(|(parker, &role)| {
                let meter = Meter::default();
                scope.spawn(move || Vcpu { vm, parker, meter }.run(role))
            })
            .collect();
        for (&id, role) in ids.iter().zip(&load.vcpus) {
            if let &Role::Notified { period, .. } = role {
                let (kicker, cpus) = (&kicker, &everywhere);
                scope.spawn(move || device(vm, kicker, id, period, cpus));
            }
        }
        // Let it get going first.
        thread::sleep(time / 5);
        let (begin, held_before) = (Instant::now(), held());
        vm.phase.measure();
        thread::sleep(time);
        vm.phase.end();
        let (spent, held) = (begin.elapsed(), held().saturating_sub(held_before));
        // A round or two later all have noticed who can.
        thread::sleep(Duration::from_millis(2));
        vm.stop.store(true, Ordering::Relaxed);
        kicker.stop_all();
        let meters: Vec<Meter> = (threads.into_iter())
            .map(|thread| thread.join().unwrap())
            .collect();
        (meters, spent, Duration::from_nanos(held))
    });
    drop(bound);
    sample(load, &scheduler, &meters, spent, held)
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn sample(
    load: &Load,
    scheduler: &HaltScheduler,
    meters: &[Meter],
    spent: Duration,
    held: Duration,
) -> Sample {
    let mut wakes: Vec<u64> = meters
        .iter()
        .flat_map(|meter| meter.wakes.clone())
        .collect();
    wakes.sort_unstable();
    let kicks = scheduler.counters().total().kick_to_run;
    // Where no timer and no device wakes, kicks do.
    let at = |percent: usize| {
        let rank = wakes.len().saturating_sub(1) * percent / 100;
        match wakes.get(rank) {
            Some(&ns) => ns as f64 / 1e3,
            None => kicks
                .quantile(percent as f64 / 100.0)
                .map_or(f64::NAN, |late| late.as_secs_f64() * 1e6),
        }
    };
    let share = |time: Duration| time.as_secs_f64() / spent.as_secs_f64();
    let all = |of: fn(&Meter) -> Duration| -> f64 { meters.iter().map(|m| share(of(m))).sum() };
    let cpus = load.cpus as f64;
    let idle = (1.0 - all(|meter| meter.cpu) / cpus).max(0.0);
    let waiting = (all(|meter| meter.delay) + share(held)) / cpus;
    let locks = (meters.iter().zip(&load.vcpus)).filter_map(|(meter, role)| match role {
        Role::Locks { .. } => Some(meter.rounds as f64),
        _ => None,
    });
    let locks: Vec<f64> = locks.collect();
    Sample {
        wake_p50: at(50),
        wake_p99: at(99),
        wakes: match wakes.len() {
            0 => kicks.count() as f64,
            n => n as f64,
        },
        cpu_shares: meters.iter().map(|meter| share(meter.cpu)).collect(),
        lock_rate: (!locks.is_empty()).then(|| locks.iter().sum::<f64>() / spent.as_secs_f64()),
        idle_while_waiting: idle.min(waiting),
    }
}
