//! The host, watched while a study runs: its facts, its noise, and what
//! disturbs it.

use std::hint::black_box;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::dataset::host::{CpuTicks, cpu_model, is_virtual_machine};
use super::dataset::{Disturbance, Host, Noise};
use super::finite::Finite;
use crate::host;

/// A sleep of the host that counts as one; the clocks are read one by one.
const SUSPENDED: Duration = Duration::from_millis(100);

/// Looks at the host now and then.
#[derive(Debug)]
pub struct Watch {
    began: Instant,
    suspended: Duration,
    cpus: u32,
    ticks: Option<CpuTicks>,
    own: Duration,
    loops: Vec<(Finite, u64)>,
    disturbances: Vec<Disturbance>,
}

impl Watch {
    /// From now on.
    pub fn begin() -> Self {
        Self {
            began: Instant::now(),
            suspended: suspended(),
            cpus: cpus(),
            ticks: ticks(),
            own: own_cpu_time(),
            loops: Vec::new(),
            disturbances: Vec::new(),
        }
    }

    /// Since the begin, without the time that the host slept.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Times the calibration loop, about a millisecond.
    pub fn calibrate(&mut self) {
        let at = self.elapsed().into();
        let begin = Instant::now();
        for round in 0..ROUNDS {
            black_box(round);
        }
        let took = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.loops.push((at, took));
    }

    /// Whether what ran since the last look is worth something: not if the host
    /// slept, or lost or got a CPU.
    pub fn is_undisturbed(&mut self) -> bool {
        let at = self.elapsed().into();
        let before = self.disturbances.len();
        let suspended = suspended();
        let slept = suspended.saturating_sub(self.suspended);
        self.suspended = suspended;
        if slept >= SUSPENDED {
            let seconds = slept.into();
            self.disturbances
                .push(Disturbance::Suspended { at, seconds });
        }
        let cpus = cpus();
        if cpus != self.cpus {
            self.disturbances.push(Disturbance::Cpus {
                at,
                before: self.cpus,
                after: cpus,
            });
            self.cpus = cpus;
        }
        self.disturbances.len() == before
    }

    /// The host as it was.
    pub fn end(self, backend: &str, why_hosted: Option<String>, cpus: u32) -> Host {
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let release = rustix::system::uname();
        let (others, stolen) = self.shares().unzip();
        Host {
            backend: backend.to_string(),
            why_hosted,
            cpus,
            cpu_model: cpu_model(&cpuinfo).unwrap_or("unknown").to_string(),
            kernel: release.release().to_string_lossy().into_owned(),
            virtual_machine: is_virtual_machine(&cpuinfo),
            emulated: false,
            noise: Noise {
                loops: self.loops,
                others,
                stolen,
            },
            disturbances: self.disturbances,
        }
    }

    /// Shares of the host's CPU time that other programs, and the hypervisor
    /// below, had.
    fn shares(&self) -> Option<(Finite, Finite)> {
        let passed = ticks()?.since(self.ticks?);
        let hz = rustix::param::clock_ticks_per_second() as f64;
        let own = own_cpu_time().saturating_sub(self.own).as_secs_f64() * hz;
        let total = passed.total as f64;
        let others = Finite::ratio((passed.busy as f64 - own).max(0.0), total)?;
        Some((others, Finite::ratio(passed.stolen as f64, total)?))
    }
}

/// About a millisecond of a loop that does nothing but count.
const ROUNDS: u32 = 1_000_000;

fn cpus() -> u32 {
    u32::try_from(host::cpus()).unwrap_or(u32::MAX)
}

fn ticks() -> Option<CpuTicks> {
    CpuTicks::parse(&std::fs::read_to_string("/proc/stat").ok()?)
}

fn own_cpu_time() -> Duration {
    duration(ClockId::ProcessCPUTime)
}

/// How long the host has slept: one clock stands still then, the other does not.
fn suspended() -> Duration {
    let boot = duration(ClockId::Boottime);
    boot.saturating_sub(duration(ClockId::Monotonic))
}

fn duration(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    // Neither part of these clocks is ever negative.
    Duration::new(
        time.tv_sec.try_into().unwrap_or(0),
        time.tv_nsec.try_into().unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_moment() {
        let mut watch = Watch::begin();
        watch.calibrate();
        assert!(watch.is_undisturbed());
        let host = watch.end("hosted", Some("a reason".to_string()), 2);
        assert_eq!(host.noise.loops.len(), 1);
        assert!(host.noise.loops[0].1 > 0);
        assert!(!host.kernel.is_empty());
        assert_eq!(host.disturbances, []);
    }

    #[test]
    fn a_cpu_that_went_is_told_once() {
        let mut watch = Watch::begin();
        watch.cpus += 1;
        assert!(!watch.is_undisturbed());
        assert!(watch.is_undisturbed());
        let (before, after) = (cpus() + 1, cpus());
        assert!(matches!(
            watch.disturbances[..],
            [Disturbance::Cpus { before: b, after: a, .. }] if (b, a) == (before, after)
        ));
    }
}
