//! What each operation costs that does not put a thread to sleep.
//!
//! `cargo bench -p pv-lock-host`; the hand-over of a sleeping vCPU is the
//! example `handoff`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot run stops"
)]

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use pv_lock_host::{ApicId, HaltScheduler, SchedulerBuilder, VcpuParker};

fn ids(n: u32) -> Vec<ApicId> {
    (0..n).map(ApicId).collect()
}

fn build(builder: SchedulerBuilder, n: u32) -> (HaltScheduler, Vec<VcpuParker>) {
    builder.build(&ids(n)).unwrap()
}

/// With and without counting, by name.
fn counting() -> [(&'static str, SchedulerBuilder); 2] {
    [
        ("counting", HaltScheduler::builder()),
        ("not counting", HaltScheduler::builder().counting(false)),
    ]
}

/// A kick of a running vCPU: the latch is set already, or not yet. Beside it what it
/// can't do without: one atomic operation on the word, and one to count.
fn latched_kick(c: &mut Criterion) {
    let mut group = c.benchmark_group("kick of a running vCPU");
    let (word, count) = (AtomicU32::new(1), AtomicU64::new(0));
    group.bench_function("two bare atomic operations", |b| {
        b.iter(|| {
            count.fetch_add(1, Ordering::Relaxed);
            black_box(black_box(&word).fetch_or(1, Ordering::AcqRel))
        });
    });
    group.bench_function("one bare atomic operation", |b| {
        b.iter(|| black_box(black_box(&word).fetch_or(1, Ordering::AcqRel)));
    });
    for (name, builder) in counting() {
        let (scheduler, mut parkers) = build(builder, 1);
        let kicker = scheduler.kicker();
        group.bench_function(BenchmarkId::new("already latched", name), |b| {
            b.iter(|| black_box(kicker.kick_by_host(black_box(ApicId(0)))));
        });
        // The halt between two kicks is not measured with them, but it is
        // measured below: this is kick and halt together.
        group.bench_function(BenchmarkId::new("kick, then halt", name), |b| {
            b.iter(|| {
                kicker.kick_by_host(black_box(ApicId(0)));
                black_box(parkers[0].halt())
            });
        });
    }
    group.finish();
}

/// A halt that finds the latch set: many vCPUs are kicked, then all are timed.
fn halt_with_latch(c: &mut Criterion) {
    const VCPUS: u32 = 64;
    let mut group = c.benchmark_group("halt with the latch set");
    for (name, builder) in counting() {
        let (scheduler, mut parkers) = build(builder, VCPUS);
        let kicker = scheduler.kicker();
        parkers.iter_mut().for_each(|parker| {
            kicker.kick_by_host(parker.apic_id());
            parker.halt();
        });
        group.bench_function(name, |b| {
            b.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                let batches = iterations.div_ceil(VCPUS.into());
                for _ in 0..batches {
                    kicker.kick_all();
                    let begin = Instant::now();
                    for parker in &mut parkers {
                        black_box(parker.halt());
                    }
                    spent += begin.elapsed();
                }
                // Of as many halts as were asked for.
                spent.mul_f64(ratio(iterations, batches * u64::from(VCPUS)))
            });
        });
    }
    group.finish();
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn ratio(of: u64, to: u64) -> f64 {
    of as f64 / to as f64
}

/// How the cost of a kick depends on how many vCPUs there are: the example
/// `kick_by_size`.
fn kick_of_nobody(c: &mut Criterion) {
    let (scheduler, _parkers) = HaltScheduler::new(&ids(4096)).unwrap();
    let kicker = scheduler.kicker();
    c.bench_function("kick of no such vCPU", |b| {
        b.iter(|| black_box(kicker.kick_by_host(black_box(ApicId(u32::MAX)))));
    });
}

/// What is called before each run of the guest.
fn enter(c: &mut Criterion) {
    let (_scheduler, mut parkers) = build(HaltScheduler::builder(), 2);
    c.bench_function("enter", |b| b.iter(|| black_box(parkers[0].enter())));
}

/// A kick by a guest of a vCPU that runs: what the convoy rule adds to a kick by
/// the host.
fn kick_by_guest(c: &mut Criterion) {
    let mut group = c.benchmark_group("kick by a guest of a running vCPU");
    for (name, builder) in counting() {
        let (_scheduler, mut parkers) = build(builder, 2);
        group.bench_function(name, |b| {
            b.iter(|| black_box(parkers[0].kick_by_guest(black_box(ApicId(1)))));
        });
    }
    group.finish();
}

fn building(c: &mut Criterion) {
    let ids = ids(4096);
    c.bench_function("build 4096 slots", |b| {
        b.iter_batched(
            || (),
            |()| HaltScheduler::new(&ids).unwrap(),
            BatchSize::PerIteration,
        );
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(700))
        .sample_size(20);
    targets = latched_kick, halt_with_latch, kick_of_nobody, kick_by_guest, enter, building
}
criterion_main!(benches);
