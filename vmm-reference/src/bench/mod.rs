//! Measurements that are for the project's own figures rather than for a
//! newcomer: always several contenders in one run, ratios.
//!
//! - [`handover`]: where the time of a contended hand-over goes;
//! - [`policies`]: what follows a kick, and what precedes a sleep, compared.

pub mod handover;
pub mod policies;

/// The middle one; 0 of none.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The mean; 0 of none.
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
