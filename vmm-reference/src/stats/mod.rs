//! Statistics: KVM's binary ones, what KVM itself counted of halts, wake-ups, polls,
//! hypercalls and directed yields.
//!
//! - [`StatsFd`]: `KVM_GET_STATS_FD`, which kvm-ioctls does not wrap;
//! - [`decode`]: the binary format, from bytes that are taken to be anything;
//! - [`KvmStats`]: the counters this VMM reports, summed over a VM's vCPUs;
//! - [`VmmStats`]: what this process counts itself: exits by kind, halts and kicks.

mod counts;
mod decode;
mod fd;
pub mod meter;

use std::collections::BTreeMap;
use std::sync::Arc;

use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};

pub use counts::{Event, VcpuCounts, VmmStats};
pub use decode::{Base, Kind, MAX_IMAGE, MAX_STATS, Stat, StatsError, Unit, decode};
pub use fd::{StatValue, StatsFd};

/// The counters of a vCPU about its exits, halts and kicks
/// (`kvm_vcpu_stats_desc` in `arch/x86/kvm/x86.c`, `KVM_GENERIC_VCPU_STATS` in
/// `include/linux/kvm_host.h`).
pub const REPORTED: &[&str] = &[
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
    "io_exits",
    "mmio_exits",
    "irq_exits",
    "irq_window_exits",
    "request_irq_exits",
    "pf_taken",
];

/// KVM's statistics of the vCPUs of one VM, where KVM has them.
#[derive(Debug, Default)]
pub struct VcpuStats {
    vcpus: Vec<Option<StatsFd>>,
    missing: Option<StatsError>,
    before: KvmStats,
}

impl VcpuStats {
    /// Adds those of the next vCPU. A KVM without them (before Linux 5.14) is no
    /// error yet: nobody asked.
    pub fn add(&mut self, vcpu: &VcpuFd) {
        match StatsFd::of_vcpu(vcpu) {
            Ok(fd) => self.vcpus.push(Some(fd)),
            Err(e) => {
                self.vcpus.push(None);
                self.missing.get_or_insert(e);
            }
        }
    }

    /// Whether those of every vCPU are there.
    pub fn are_complete(&self) -> bool {
        self.missing.is_none()
    }

    /// Why those of some vCPU are not there.
    pub fn missing(&self) -> Option<&StatsError> {
        self.missing.as_ref()
    }

    /// What was counted of the VM before, by the process that saved it.
    pub fn carry_on(&mut self, before: KvmStats) {
        self.before = before;
    }

    /// The sums over the vCPUs that have them.
    ///
    /// # Errors
    /// A file that can't be read or is not in the format.
    pub fn sums(&self) -> Result<KvmStats, StatsError> {
        let mut sums = KvmStats::of_vcpus(self.vcpus.iter().flatten())?;
        for (name, value) in sums.0.iter_mut() {
            *value = value.saturating_add(self.before.get(name).unwrap_or(0));
        }
        Ok(sums)
    }

    /// How many of the vCPUs sleep in a halt in KVM now, for a thread that asks
    /// again and again; None where KVM has no statistic `blocking` for each.
    pub fn blocking_counter(&self) -> Option<Arc<dyn Fn() -> usize + Send + Sync>> {
        let value = |fd: &Option<StatsFd>| fd.as_ref()?.value_of("blocking").ok()?;
        let values: Vec<StatValue> = self.vcpus.iter().map(value).collect::<Option<_>>()?;
        Some(Arc::new(move || {
            let blocks = |value: &&StatValue| value.get().is_some_and(|value| value != 0);
            values.iter().filter(blocks).count()
        }))
    }

    /// Whether the thread of the vCPU with this index sleeps in KVM now: KVM's
    /// statistic `blocking`, if there is one.
    pub fn is_blocking(&self, index: usize) -> Option<bool> {
        let stats = self.vcpus.get(index)?.as_ref()?.read().ok()?;
        let stat = stats.into_iter().find(|stat| stat.name == "blocking")?;
        stat.values.first().map(|&value| value != 0)
    }
}

/// Counters by KVM's names, summed over vCPUs. A counter that this host's KVM
/// does not have is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KvmStats(BTreeMap<String, u64>);

impl KvmStats {
    /// Reads and sums [`REPORTED`] of these vCPUs. May be called while
    /// they run: each counter is then as of its own instant.
    ///
    /// # Errors
    /// A file that can't be read or is not in the format.
    pub fn of_vcpus<'a>(vcpus: impl IntoIterator<Item = &'a StatsFd>) -> Result<Self, StatsError> {
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
                REPORTED.contains(&stat.name.as_str()),
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
