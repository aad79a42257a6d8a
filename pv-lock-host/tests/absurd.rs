//! Parameters and figures from outside that are as large as they can be: no
//! overflow, which is a panic with overflow checks and a wrong number without.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use pv_lock_host::{AdaptivePolling, ApicId, HaltScheduler, Polling, WakeReason};

const IDS: [ApicId; 2] = [ApicId(0), ApicId(1)];

/// A halt that may poll for centuries ends by a kick, and one that was kicked
/// before does not begin.
fn halts(polling: Polling) {
    let builder = HaltScheduler::builder().polling(polling);
    let (scheduler, mut parkers) = builder.build(&IDS).unwrap();
    let (kicker, mut parker) = (scheduler.kicker(), parkers.remove(0));
    for _ in 0..3 {
        kicker.kick_by_host(IDS[0]);
        assert_eq!(parker.halt(), WakeReason::Kicked, "{polling:?}");
    }
    let halted = std::thread::spawn(move || {
        let reasons = (parker.halt(), parker.halt());
        (reasons, parker)
    });
    // Two kicks may be one: as many as it takes.
    while !halted.is_finished() {
        kicker.kick_by_host(IDS[0]);
        std::thread::yield_now();
    }
    let (reasons, mut parker) = halted.join().unwrap();
    assert_eq!(reasons, (WakeReason::Kicked, WakeReason::Kicked));
    // The last kick may have come after the second halt: it is used up here.
    parker.halt_until(std::time::Instant::now());
    // A deadline beside it counts.
    let soon = std::time::Instant::now() + Duration::from_millis(1);
    assert_eq!(parker.halt_until(soon), WakeReason::TimedOut, "{polling:?}");
}

#[test]
fn a_fixed_poll_without_end_overflows_nothing() {
    halts(Polling::Fixed(Duration::MAX));
    halts(Polling::Fixed(Duration::from_nanos(u64::MAX)));
}

#[test]
fn an_adaptive_poll_without_end_overflows_nothing() {
    let mut huge = AdaptivePolling::default();
    huge.max = Duration::MAX;
    huge.grow = u32::MAX;
    huge.grow_start = Duration::MAX;
    huge.shrink = u32::MAX;
    halts(Polling::Adaptive(huge));
}

/// Figures that somebody else wrote down: each as large as its type has room for.
#[cfg(feature = "serde")]
#[test]
fn histograms_and_counters_from_outside_saturate() {
    use pv_lock_host::{Counters, Histogram};

    let full = format!("{{\"buckets\":{:?}}}", [u64::MAX; 32]);
    let mut histogram: Histogram = serde_json::from_str(&full).unwrap();
    assert_eq!(histogram.count(), u64::MAX);
    assert_eq!(histogram.quantile(0.5), Some(Duration::from_nanos(2)));
    // Its rank is the count itself, which the first bucket has alone.
    assert!(histogram.quantile(1.0).is_some());
    histogram.merge(&histogram.clone());
    assert_eq!(histogram.buckets(), [u64::MAX; 32]);

    // Of a whole VM: every number of it at its most.
    let (scheduler, _parkers) = HaltScheduler::new(&IDS).unwrap();
    let mut counters = serde_json::to_value(scheduler.counters()).unwrap();
    fill(&mut counters);
    for vcpu in counters["vcpus"].as_array_mut().unwrap() {
        vcpu["apic_id"] = 7.into();
    }
    let counters: Counters = serde_json::from_value(counters).unwrap();
    let total = counters.total();
    assert_eq!((total.halts, total.held_ns), (u64::MAX, u64::MAX));
    assert_eq!(total.halt_time.count(), u64::MAX);
}

#[cfg(feature = "serde")]
fn fill(value: &mut serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::Number(_) => *value = u64::MAX.into(),
        Value::Array(all) => all.iter_mut().for_each(fill),
        Value::Object(all) => all.values_mut().for_each(fill),
        _ => {}
    }
}
