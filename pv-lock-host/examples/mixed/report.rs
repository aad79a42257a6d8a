//! What is printed: medians over the turns.

use std::thread;

use serde_json::{Value, json};

use crate::loads::{Load, Role};
use crate::measure::Sample;
use crate::{NOTHING, Options, Results, policies};

fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut of: Vec<f64> = of.collect();
    of.sort_unstable_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

fn rate(sample: &Sample) -> f64 {
    sample.lock_rate.unwrap_or(f64::NAN)
}

/// The vCPUs' medians, one by one.
fn shares(samples: &[Sample]) -> Vec<f64> {
    let count = samples.first().map_or(0, |sample| sample.cpu_shares.len());
    let of = |vcpu: usize| {
        let shares = samples
            .iter()
            .map(move |sample| sample.cpu_shares.get(vcpu));
        median(shares.map(|share| share.copied().unwrap_or(f64::NAN)))
    };
    (0..count).map(of).collect()
}

/// The median over the turns of the ratio within each.
fn ratio(samples: &[Sample], base: &[Sample], of: fn(&Sample) -> f64) -> f64 {
    median(samples.iter().zip(base).map(|(a, b)| of(a) / of(b)))
}

/// The least that a vCPU has of what it has without a policy. Which of several
/// equal vCPUs the host puts alone on a CPU is luck: the one with the least of
/// its role is compared with the one with the least, and so on.
fn least_share(load: &Load, samples: &[Sample], base: &[Sample]) -> f64 {
    let ranked = |samples: &[Sample]| {
        let ranked: Vec<Sample> = samples
            .iter()
            .map(|sample| Sample {
                cpu_shares: by_rank(load, &sample.cpu_shares),
                ..sample.clone()
            })
            .collect();
        shares(&ranked)
    };
    let pairs = ranked(samples).into_iter().zip(ranked(base));
    pairs.map(|(a, b)| a / b).fold(f64::INFINITY, f64::min)
}

/// The shares, those of each role in order.
fn by_rank(load: &Load, shares: &[f64]) -> Vec<f64> {
    let mut pairs: Vec<(String, f64)> = (load.vcpus.iter().zip(shares))
        .map(|(role, share)| (format!("{role:?}"), *share))
        .collect();
    pairs.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    pairs.into_iter().map(|(_, share)| share).collect()
}

/// A number with so many places; null if it is none.
fn number(n: f64, places: i32) -> Value {
    let unit = 10_f64.powi(places);
    match n.is_finite() {
        #[expect(clippy::cast_possible_truncation, reason = "a count or a rate")]
        true if places == 0 => json!(n.round() as i64),
        true => json!((n * unit).round() / unit),
        false => Value::Null,
    }
}

pub(crate) fn json(results: &[Results]) {
    let mut lines = Vec::new();
    for of in results {
        for ((policy, _), samples) in policies().iter().zip(&of.samples) {
            let field = |of: fn(&Sample) -> f64| median(samples.iter().map(of));
            let shares = shares(samples).into_iter().map(|share| number(share, 3));
            lines.push(json!({
                "load": of.load.name,
                "policy": policy,
                "host_cpus": of.load.cpus,
                "wake_p50_us": number(field(|s| s.wake_p50), 1),
                "wake_p99_us": number(field(|s| s.wake_p99), 1),
                "wakes": number(field(|s| s.wakes), 0),
                "cpu_shares": shares.collect::<Vec<_>>(),
                "lock_rate": number(field(rate), 0),
                "idle_while_waiting": number(field(|s| s.idle_while_waiting), 3),
            }));
        }
    }
    println!("{}", serde_json::to_string_pretty(&lines).unwrap());
}

/// A number, or a dash if it is none.
fn cell(n: f64, places: usize) -> String {
    match n.is_finite() {
        true => format!("{n:.places$}"),
        false => "-".into(),
    }
}

pub(crate) fn table(results: &[Results], options: &Options) {
    println!(
        "{} CPUs; medians of {} turns of {} ms; x: of what it is with the policy `nothing` in the same turn",
        thread::available_parallelism().map_or(1, |n| n.get()),
        options.turns,
        options.time.as_millis(),
    );
    println!();
    println!(
        "| load | CPUs | policy | wake p50 us | p99 us | wakes | locks k/s | idle while waiting % | p50 x | p99 x | least CPU x | locks x |"
    );
    println!("|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    for of in results {
        let Some(base) = of.samples.get(NOTHING) else {
            continue;
        };
        let locks = |role: &Role| matches!(role, Role::Locks { .. });
        let of_timers = !of.load.vcpus.iter().all(locks);
        for ((policy, _), samples) in policies().iter().zip(&of.samples) {
            let field = |of: fn(&Sample) -> f64| median(samples.iter().map(of));
            let to_base = |of: fn(&Sample) -> f64| cell(ratio(samples, base, of), 2);
            // Kicks are timed in powers of two, and few: no ratio of those.
            let late = |of: fn(&Sample) -> f64| match of_timers {
                true => to_base(of),
                false => "-".into(),
            };
            println!(
                "| {} | {} | {policy} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
                of.load.name,
                of.load.cpus,
                cell(field(|s| s.wake_p50), 1),
                cell(field(|s| s.wake_p99), 1),
                cell(field(|s| s.wakes), 0),
                cell(field(rate) / 1e3, 0),
                cell(field(|s| s.idle_while_waiting) * 100.0, 1),
                late(|s| s.wake_p50),
                late(|s| s.wake_p99),
                cell(least_share(&of.load, samples, base), 2),
                to_base(rate),
            );
        }
    }
}
