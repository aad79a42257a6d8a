//! The host: what it is, how steady it was, and what disturbed it.

use serde::{Deserialize, Serialize};

use super::super::finite::Finite;
use crate::study::statistics::median;

/// Where a study ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// What ran the guests: `kvm` or `hosted`.
    pub backend: String,
    /// Why not KVM.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why_hosted: Option<String>,
    /// CPUs that the study had.
    pub cpus: u32,
    /// As the CPU names itself.
    pub cpu_model: String,
    /// Release of the kernel.
    pub kernel: String,
    /// It is itself a virtual machine.
    pub virtual_machine: bool,
    /// Time is emulated: figures of time mean nothing, ratios and counts do.
    pub emulated: bool,
    /// How steady.
    pub noise: Noise,
    /// What happened meanwhile.
    pub disturbances: Vec<Disturbance>,
}

/// A fixed loop, timed between the cells: what else changes than the host?
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noise {
    /// Seconds after the begin, and how long the loop took, in nanoseconds.
    pub loops: Vec<(Finite, u64)>,
    /// Share of the CPUs' time that other programs had, 0 to 1.
    pub others: Option<Finite>,
    /// Share of the CPUs' time that this host's own hypervisor took, 0 to 1.
    pub stolen: Option<Finite>,
}

/// What happened to the host during the study.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub enum Disturbance {
    /// It slept for so many seconds: the repetition was dropped.
    Suspended {
        /// Seconds after the begin.
        at: Finite,
        /// How long it lasted, in seconds.
        seconds: Finite,
    },
    /// CPUs came or went: ratios before and after differ.
    Cpus {
        /// Seconds after the begin.
        at: Finite,
        /// Number of pCPUs before the change.
        before: u32,
        /// Number of pCPUs after the change.
        after: u32,
    },
}

impl Noise {
    /// By how much one in ten loops was slower than the median: 0.02 is 2 %.
    pub fn spread(&self) -> Option<Finite> {
        let mut times: Vec<f64> = self.loops.iter().map(|&(_, ns)| ns as f64).collect();
        let middle = median(&times)?;
        times.sort_by(f64::total_cmp);
        let ninth = *times.get(times.len() * 9 / 10)?;
        Finite::ratio(ninth - middle, middle)
    }
}

/// What `/proc/cpuinfo` calls the CPU.
pub fn cpu_model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|l| l.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim())
}

/// Whether `/proc/cpuinfo` shows the bit that only hypervisors set.
pub fn is_virtual_machine(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|line| line.split_whitespace().any(|flag| flag == "hypervisor"))
}

/// Clock ticks of all CPUs, of the first line of `/proc/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuTicks {
    /// Of any program.
    pub busy: u64,
    /// Taken by the hypervisor below.
    pub stolen: u64,
    /// Ticks of all kinds together.
    pub total: u64,
}

impl CpuTicks {
    /// Of the text of `/proc/stat`; see proc_stat(5).
    pub fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = line
            .split_whitespace()
            .map_while(|n| n.parse().ok())
            .collect();
        // user nice system idle iowait irq softirq steal; guests are in user.
        let &[user, nice, system, idle, iowait, irq, softirq, stolen, ..] = ticks.as_slice() else {
            return None;
        };
        let busy = user + nice + system + irq + softirq;
        Some(Self {
            busy,
            stolen,
            total: busy + idle + iowait + stolen,
        })
    }

    /// The ticks since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            busy: self.busy.saturating_sub(before.busy),
            stolen: self.stolen.saturating_sub(before.stolen),
            total: self.total.saturating_sub(before.total),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_as_the_kernel_writes_them() {
        let cpuinfo =
            "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nflags\t\t: fpu hypervisor sse\n";
        assert_eq!(cpu_model(cpuinfo), Some("Some CPU @ 2.00GHz"));
        assert!(is_virtual_machine(cpuinfo));
        assert!(!is_virtual_machine("flags\t\t: fpu hypervisors\n"));
        assert_eq!(cpu_model(""), None);
        let stat = "cpu  10 1 20 300 5 2 3 40 7 0\ncpu0 1 2 3\n";
        let ticks = CpuTicks::parse(stat).unwrap();
        assert_eq!((ticks.busy, ticks.stolen, ticks.total), (36, 40, 381));
        assert_eq!(CpuTicks::parse("cpu  10 1"), None);
        assert_eq!(CpuTicks::parse("intr 5"), None);
    }

    #[test]
    fn spread_of_known_loops() {
        let loops = |times: &[u64]| Noise {
            loops: times.iter().map(|&ns| (Finite::ZERO, ns)).collect(),
            ..Noise::default()
        };
        assert_eq!(loops(&[100; 10]).spread(), Some(Finite::ZERO));
        let mut times = [100; 10];
        times[3] = 150;
        assert_eq!(loops(&times).spread().unwrap().get(), 0.5);
        assert_eq!(loops(&[]).spread(), None);
        assert_eq!(loops(&[0, 0]).spread(), None, "no share of nothing");
    }
}
