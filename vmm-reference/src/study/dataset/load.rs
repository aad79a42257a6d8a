//! What a guest does around its lock.

use serde::{Deserialize, Serialize};

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
