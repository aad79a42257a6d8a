//! What one repetition of a cell measured, and the figures that follow from it.

use serde::{Deserialize, Serialize};

use super::super::finite::Finite;
use super::Waits;

/// What one repetition measured, over all its VMs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repetition {
    /// Seconds after the begin of the study.
    pub at: Finite,
    /// Seconds from the first guest instruction to the last vCPU's end.
    pub seconds: Finite,
    /// Acquisitions of each vCPU that takes locks, VM by VM.
    pub acquisitions: Vec<u64>,
    /// Rounds of computing, of vCPUs that take no lock.
    pub background: u64,
    /// Exits from the guests to this process, a count over all vCPUs.
    pub exits: u64,
    /// HLTs that the guests executed, a count over all vCPUs.
    pub halts: u64,
    /// KVM_HC_KICK_CPU calls of the guests, a count over all vCPUs; of Linux all its
    /// hypercalls, which are kicks but for a few IPIs.
    pub kicks: u64,
    /// Host CPU seconds of the vCPU threads.
    pub running: Finite,
    /// Seconds that vCPUs slept in a halt.
    pub halted: Finite,
    /// Seconds that vCPUs were held back by the scheduler, ready to run.
    pub held: Finite,
    /// Seconds that vCPU threads were ready to run and had no pCPU.
    pub run_delay: Finite,
    /// Waits for the lock.
    pub waits: Waits,
    /// What the vCPUs that take no lock did, where there are some.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub beside: Option<Beside>,
}

/// vCPUs that take no lock, beside those that do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beside {
    /// vCPUs that compute.
    pub computing: u32,
    /// vCPUs that sleep until the host wakes them, and compute for a moment then.
    pub sleeping: u32,
    /// Host CPU seconds of the threads of those that compute.
    pub computing_s: Finite,
    /// Host CPU seconds of the threads of those that sleep.
    pub sleeping_s: Finite,
    /// Wake-ups by the host that the sleeping ones have seen.
    pub wakes: u64,
    /// How well the host could set its clock by the guest's; absent: not within
    /// 20 us.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wake_error_ns: Option<u64>,
    /// Time from the host's kick to the first instruction behind the HLT; absent
    /// where the host could not set its clock by the guest's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wake_latency: Option<Waits>,
}

/// A kind of vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It takes locks.
    Locks,
    /// It computes.
    Computes,
    /// It sleeps until it is woken.
    Sleeps,
}

impl Role {
    /// Every kind, in the order of figures and tables.
    pub const ALL: [Self; 3] = [Self::Locks, Self::Computes, Self::Sleeps];

    /// In a legend or a column's head.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Locks => "takes locks",
            Self::Computes => "computes",
            Self::Sleeps => "sleeps",
        }
    }
}

impl Repetition {
    /// Acquisitions of all vCPUs.
    pub fn total(&self) -> u64 {
        let each = self.acquisitions.iter();
        each.fold(0, |sum, &own| sum.saturating_add(own))
    }

    /// Acquisitions a second; none without time.
    pub fn rate(&self) -> Option<Finite> {
        Finite::ratio(self.total() as f64, self.seconds.get())
    }

    /// Acquisitions of the vCPU that had the fewest, as a share of the mean: 1
    /// is fair, 0 is a vCPU that never had the lock.
    pub fn least_share(&self) -> Option<Finite> {
        let least = *self.acquisitions.iter().min()?;
        let mean = self.total() as f64 / self.acquisitions.len() as f64;
        Finite::ratio(least as f64, mean)
    }

    /// Jain's index of fairness, without a unit: 1 is fair; one over the number of
    /// vCPUs, if a single one has all acquisitions.
    pub fn jain(&self) -> Option<Finite> {
        let squares: f64 = self.acquisitions.iter().map(|&n| (n as f64).powi(2)).sum();
        let total = self.total() as f64;
        Finite::ratio(total * total, squares * self.acquisitions.len() as f64)
    }

    /// vCPUs of this kind, of all VMs, and the host CPU seconds of their threads.
    fn of(&self, role: Role) -> (u32, f64) {
        let (computing, sleeping) = self.beside.as_ref().map_or(((0, 0.0), (0, 0.0)), |all| {
            (
                (all.computing, all.computing_s.get()),
                (all.sleeping, all.sleeping_s.get()),
            )
        });
        match role {
            Role::Computes => computing,
            Role::Sleeps => sleeping,
            Role::Locks => {
                let vcpus = u32::try_from(self.acquisitions.len()).unwrap_or(u32::MAX);
                let rest = self.running.get() - computing.1 - sleeping.1;
                (vcpus, rest.max(0.0))
            }
        }
    }

    /// The part of a pCPU that a vCPU of this kind had; none where there is none.
    pub fn pcpu_share(&self, role: Role) -> Option<Finite> {
        let (vcpus, seconds) = self.of(role);
        Finite::ratio(seconds, self.seconds.get() * f64::from(vcpus))
    }

    /// The pCPUs that all vCPUs of this kind had.
    pub fn pcpus(&self, role: Role) -> Option<Finite> {
        Finite::ratio(self.of(role).1, self.seconds.get())
    }

    /// A quantile of the time that a wake-up takes, in nanoseconds.
    pub fn wake_quantile(&self, q: f64) -> Option<u64> {
        self.beside.as_ref()?.wake_latency.as_ref()?.quantile(q)
    }

    /// Wake-ups a second of each vCPU that sleeps.
    pub fn wakes_per_s(&self) -> Option<Finite> {
        let beside = self.beside.as_ref()?;
        let time = self.seconds.get() * f64::from(beside.sleeping);
        Finite::ratio(beside.wakes as f64, time)
    }

    /// `count` an acquisition; none without acquisitions.
    pub fn per_acquisition(&self, count: u64) -> Option<Finite> {
        Finite::ratio(count as f64, self.total() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::sample;
    use super::*;

    #[test]
    fn shares_of_known_counts() {
        let mut repetition = sample::repetition(0.0, &[100, 100, 100, 100]);
        assert_eq!(repetition.least_share().unwrap().get(), 1.0);
        assert_eq!(repetition.jain().unwrap().get(), 1.0);
        repetition.acquisitions = vec![400, 0, 0, 0];
        assert_eq!(repetition.least_share().unwrap().get(), 0.0);
        assert_eq!(repetition.jain().unwrap().get(), 0.25);
        repetition.acquisitions = vec![300, 100];
        assert_eq!(repetition.least_share().unwrap().get(), 0.5);
        // (300 + 100)^2 / (2 (300^2 + 100^2))
        assert_eq!(repetition.jain().unwrap().get(), 0.8);
    }

    #[test]
    fn parts_of_pcpus_by_hand() {
        // Half a second on two pCPUs: 0.9 s, of which one vCPU computed 0.4 s
        // and two slept but for 0.02 s.
        let mut repetition = sample::repetition(0.0, &[100, 100]);
        repetition.beside = Some(Beside {
            computing: 1,
            sleeping: 2,
            computing_s: Finite::new(0.4).unwrap(),
            sleeping_s: Finite::new(0.02).unwrap(),
            wakes: 100,
            wake_error_ns: Some(800),
            wake_latency: Some(vec![(1000, 99), (5000, 1)].into()),
        });
        let share = |role| (repetition.pcpu_share(role).unwrap().get() * 1000.0).round();
        assert_eq!(Role::ALL.map(share), [480.0, 800.0, 20.0]);
        let pcpus = |role| (repetition.pcpus(role).unwrap().get() * 1000.0).round();
        assert_eq!(Role::ALL.map(pcpus), [960.0, 800.0, 40.0]);
        assert_eq!(repetition.wakes_per_s().unwrap().get(), 100.0);
        assert_eq!(repetition.wake_quantile(0.5), Some(1000));
        assert_eq!(repetition.wake_quantile(1.0), Some(5000));
        let alone = sample::repetition(0.0, &[100, 100]);
        assert_eq!(alone.pcpu_share(Role::Sleeps), None);
        assert_eq!(alone.wake_quantile(0.5), None);
    }

    #[test]
    fn nothing_acquired_has_no_shares() {
        let mut repetition = sample::repetition(0.0, &[0, 0]);
        assert_eq!(repetition.least_share(), None);
        assert_eq!(repetition.jain(), None);
        assert_eq!(repetition.per_acquisition(5), None);
        assert_eq!(repetition.rate(), Some(Finite::ZERO));
        repetition.seconds = Finite::ZERO;
        assert_eq!(repetition.rate(), None);
        repetition.acquisitions = vec![u64::MAX, u64::MAX];
        assert_eq!(repetition.total(), u64::MAX, "sums saturate");
    }
}
