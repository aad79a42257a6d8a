//! A cell of the study: one way to wait for a lock, on one load, with so many
//! vCPUs; and what each of its repetitions measured.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::super::finite::Finite;
use super::Waits;

/// What the guest does around its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// One lock a VM, short critical sections.
    Short,
    /// One lock a VM, sections twenty times as long.
    Long,
    /// A lock for each vCPU, which nobody else wants: what a lock costs where
    /// there is nothing to wait for.
    Uncontended,
    /// Short sections, beside as many vCPUs that take no lock: half of those
    /// compute, and half sleep until the host wakes them.
    Mixed,
    /// Short sections of two locks: every other vCPU takes the inner one within
    /// the outer one, the rest the inner one alone.
    Nested,
    /// Short sections of two locks, each for every other vCPU.
    Independent,
    /// Short sections of a lock that half of the vCPUs take; the others compute.
    Partial,
    /// Linux: a kernel lock that every CPU takes all the time.
    Contend,
    /// Linux: hackbench, messages between many processes.
    Hackbench,
    /// Linux: `perf bench sched messaging`.
    Messaging,
    /// Linux: dbench on tmpfs.
    Dbench,
}

/// How a vCPU waits for its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Waiter {
    /// In the order of arrival, busy for ever.
    Ticket,
    /// Whoever is first when the lock is free: unfair.
    TestAndSet,
    /// In the order of arrival, but a waiter that is due and does not take the
    /// lock in time is overtaken.
    Preemptable,
    /// In the order of arrival; halts past a threshold, and is kicked.
    PvTicket,
    /// A queue of waiters, each on a cache line of its own (MCS); halts past a
    /// threshold, and is kicked.
    PvQueue,
    /// As a Linux kernel does that sees no PV_UNHALT.
    LinuxNative,
    /// As a Linux kernel does that sees PV_UNHALT: a queue, and halts.
    LinuxPv,
}

/// Who puts a waiter to sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Halts {
    /// Nobody: it spins.
    Never,
    /// This process.
    Userspace,
    /// KVM.
    Kernel,
}

/// How a kick's hypercall leaves the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// There is none: the waiter spins.
    None,
    /// The doorbell port, to this process.
    Port,
    /// A hypercall instruction that KVM's Xen intercept brings to this process.
    Xen,
    /// A hypercall instruction that KVM serves.
    Kvm,
    /// A call within this process: the hosted backend.
    Hosted,
}

/// A line of a figure: everything but the load and the number of vCPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Series {
    /// How a vCPU waits.
    pub waiter: Waiter,
    /// Who puts it to sleep.
    pub halts: Halts,
    /// How its kick leaves the guest.
    pub transport: Transport,
}

/// What tells one cell from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CellKey {
    /// What the guest does.
    pub load: Load,
    /// How it waits.
    #[serde(flatten)]
    pub series: Series,
    /// VMs, all alike.
    pub vms: u32,
    /// vCPUs of each.
    pub vcpus: u32,
}

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
    /// Exits from the guest to this process.
    pub exits: u64,
    /// HLTs.
    pub halts: u64,
    /// Kicks.
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
    /// All.
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

/// A cell and what was measured of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// What is measured.
    #[serde(flatten)]
    pub key: CellKey,
    /// Without the first, which warms up.
    pub repetitions: Vec<Repetition>,
    /// Why there are no more of them: it failed, or it hung.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure: Option<String>,
}

impl Load {
    /// All, in the order of the report.
    pub const ALL: [Self; 11] = [
        Self::Short,
        Self::Long,
        Self::Uncontended,
        Self::Mixed,
        Self::Nested,
        Self::Independent,
        Self::Partial,
        Self::Contend,
        Self::Hackbench,
        Self::Messaging,
        Self::Dbench,
    ];

    /// Those of a Linux guest.
    pub const LINUX: [Self; 4] = [
        Self::Contend,
        Self::Hackbench,
        Self::Messaging,
        Self::Dbench,
    ];

    /// A Linux guest does it.
    pub const fn is_linux(self) -> bool {
        matches!(
            self,
            Self::Contend | Self::Hackbench | Self::Messaging | Self::Dbench
        )
    }

    /// What is counted, in the plural.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Contend => "rounds of the lock",
            Self::Hackbench | Self::Messaging => "messages",
            Self::Dbench => "KiB",
            _ => "lock acquisitions",
        }
    }

    /// As in a file.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Long => "long",
            Self::Uncontended => "uncontended",
            Self::Mixed => "mixed",
            Self::Nested => "nested",
            Self::Independent => "independent",
            Self::Partial => "partial",
            Self::Contend => "contend",
            Self::Hackbench => "hackbench",
            Self::Messaging => "messaging",
            Self::Dbench => "dbench",
        }
    }

    /// For a heading.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Short => "short critical sections",
            Self::Long => "long critical sections",
            Self::Uncontended => "no contention",
            Self::Mixed => "short sections beside vCPUs that compute or sleep",
            Self::Nested => "an inner lock within an outer one",
            Self::Independent => "two independent locks",
            Self::Partial => "a lock that half of the vCPUs take",
            Self::Contend => "Linux, one kernel lock (contend)",
            Self::Hackbench => "Linux, hackbench",
            Self::Messaging => "Linux, perf bench sched messaging",
            Self::Dbench => "Linux, dbench on tmpfs",
        }
    }
}

impl Series {
    /// It halts and is kicked.
    pub const fn is_pv(self) -> bool {
        matches!(
            self.waiter,
            Waiter::PvTicket | Waiter::PvQueue | Waiter::LinuxPv
        )
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.waiter {
            Waiter::Ticket => "ticket, spins",
            Waiter::TestAndSet => "test-and-set, spins",
            Waiter::Preemptable => "preemptable ticket, spins",
            Waiter::PvTicket => "PV ticket",
            Waiter::PvQueue => "PV queue",
            Waiter::LinuxNative => "Linux without PV locks",
            Waiter::LinuxPv => "Linux with PV locks",
        })?;
        f.write_str(match self.halts {
            Halts::Never => "",
            Halts::Userspace => ", halts here",
            Halts::Kernel => ", halts in KVM",
        })?;
        f.write_str(match self.transport {
            Transport::None | Transport::Hosted => "",
            Transport::Port => ", kicks by port",
            Transport::Xen => ", kicks by Xen intercept",
            Transport::Kvm => ", kicks in KVM",
        })
    }
}

impl CellKey {
    /// vCPUs a pCPU.
    pub fn ratio(&self, cpus: u32) -> Finite {
        let vcpus = f64::from(self.vms) * f64::from(self.vcpus);
        // At least one CPU runs this program.
        Finite::ratio(vcpus, f64::from(cpus.max(1))).unwrap_or_default()
    }
}

impl fmt::Display for CellKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (load, vms, vcpus) = (self.load.name(), self.vms, self.vcpus);
        let plural = if vms == 1 { "" } else { "s" };
        write!(f, "{}; {load}; {vms} VM{plural} of {vcpus}", self.series)
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

    /// Jain's index: 1 is fair, one over the number of vCPUs is one that has it
    /// all.
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

impl Cell {
    /// Acquisitions a second, a value for each repetition that has one.
    pub fn rates(&self) -> Vec<f64> {
        self.each(Repetition::rate)
    }

    /// A value for each repetition that has one.
    pub fn each(&self, value: impl Fn(&Repetition) -> Option<Finite>) -> Vec<f64> {
        let values = self.repetitions.iter().filter_map(value);
        values.map(Finite::get).collect()
    }

    /// The waits of all repetitions.
    pub fn waits(&self) -> Waits {
        let mut all = Waits::default();
        for repetition in &self.repetitions {
            all.merge(&repetition.waits);
        }
        all
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

    #[test]
    fn vms_count_in_the_ratio() {
        let key = CellKey {
            vms: 2,
            vcpus: 3,
            ..sample::dataset().cells[0].key
        };
        assert_eq!(key.ratio(2).get(), 3.0);
        assert_eq!(key.ratio(4).get(), 1.5);
    }
}
