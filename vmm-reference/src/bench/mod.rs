//! Measurements that are for the project's own figures rather than for a
//! newcomer: always several contenders in one run, ratios.
//!
//! - [`control`]: how long it takes to pause a VM;
//! - [`handover`]: where the time of a contended hand-over goes;
//! - [`locks`]: the policies on nested and independent locks;
//! - [`trace`]: what a trace costs;
//! - [`policies`]: what follows a kick, and what precedes a sleep, compared.

pub mod control;
pub mod handover;
pub mod locks;
pub mod policies;
pub mod snapshot;
pub mod trace;

/// The middle one; 0 of none.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The mean; 0 of none.
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The value, of sorted ones, that a share `q` of all does not exceed; 0 of none.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of 0 to 1 of a length that fits memory"
    )]
    let rank = (sorted.len() as f64 * q).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}
