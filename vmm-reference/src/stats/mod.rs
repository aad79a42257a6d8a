//! KVM's binary statistics: what KVM itself counted of halts, wake-ups, polls,
//! hypercalls and directed yields.
//!
//! - [`StatsFd`]: `KVM_GET_STATS_FD`, which kvm-ioctls does not wrap;
//! - [`decode`]: the binary format, from bytes that are taken to be anything;
//! - [`KvmStats`]: the counters this VMM reports, summed over a VM's vCPUs.

mod fd;
mod format;

use std::collections::BTreeMap;

use serde::Serialize;

pub use fd::StatsFd;
pub use format::{Base, Kind, MAX_IMAGE, MAX_STATS, Stat, StatsError, Unit, decode};

/// The counters of a vCPU that tell how its halts and kicks went
/// (`kvm_vcpu_stats_desc` in `arch/x86/kvm/x86.c`, `KVM_GENERIC_VCPU_STATS` in
/// `include/linux/kvm_host.h`).
pub const HALTS_AND_KICKS: &[&str] = &[
    "exits",
    "halt_exits",
    "halt_wakeup",
    "halt_attempted_poll",
    "halt_successful_poll",
    "halt_poll_invalid",
    "halt_poll_success_ns",
    "halt_poll_fail_ns",
    "halt_wait_ns",
    "hypercalls",
    "directed_yield_attempted",
    "directed_yield_successful",
    "preemption_reported",
    "preemption_other",
    "signal_exits",
];

/// Counters by KVM's names, summed over vCPUs. A counter that this host's KVM
/// does not have is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct KvmStats(BTreeMap<String, u64>);

impl KvmStats {
    /// Reads and sums [`HALTS_AND_KICKS`] of these vCPUs. May be called while
    /// they run: each counter is then as of its own instant.
    ///
    /// # Errors
    /// A file that can't be read or is not in the format.
    pub fn of_vcpus(vcpus: &[StatsFd]) -> Result<Self, StatsError> {
        let mut sums = Self::default();
        for vcpu in vcpus {
            sums.add(&vcpu.read()?);
        }
        Ok(sums)
    }

    fn add(&mut self, stats: &[Stat]) {
        for stat in stats {
            if let ([value], true) = (
                stat.values.as_slice(),
                HALTS_AND_KICKS.contains(&stat.name.as_str()),
            ) {
                let sum = self.0.entry(stat.name.clone()).or_default();
                *sum = sum.saturating_add(*value);
            }
        }
    }

    /// The sum of one counter.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.get(name).copied()
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, &value)| (name.as_str(), value))
    }

    /// What has been counted since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let rest = self.0.iter().map(|(name, &value)| {
            let then = before.get(name).unwrap_or(0);
            (name.clone(), value.saturating_sub(then))
        });
        Self(rest.collect())
    }

    /// One counter a line, for a person.
    pub fn text(&self) -> String {
        let lines = self
            .iter()
            .map(|(name, value)| match name.strip_suffix("_ns") {
                Some(name) => format!("{name:<28} {:>12.6} s\n", value as f64 / 1e9),
                None => format!("{name:<28} {value:>12}\n"),
            });
        lines.collect()
    }
}

#[cfg(test)]
mod tests;
