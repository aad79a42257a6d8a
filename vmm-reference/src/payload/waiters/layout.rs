//! What the study's guest and the host agree on, beyond [`super::super::layout`]:
//! more words in the same pages.

use crate::memory::{GuestMemory, MemoryError, read_word, write_word};
use crate::payload::image::{LOCK_PAGE, PARAM_PAGE, WAITERS, result_page};
use crate::payload::layout::{param as base, result as fields, waiter};

pub use crate::payload::layout::{param, result};

/// How the guest waits for its lock.
pub mod mode {
    /// Ticket lock, busy for ever.
    pub const TICKET: u64 = 0;
    /// Test and test-and-set.
    pub const TEST_AND_SET: u64 = 1;
    /// Ticket lock whose waiters overtake one that is due and does not come
    /// (Ouyang and Lange, VEE 2013): past a patience in proportion to its
    /// distance in the queue, a waiter takes the lock if it is free.
    pub const PREEMPTABLE: u64 = 2;
    /// No lock: time `THRESHOLD` rounds of spinning.
    pub const CALIBRATE: u64 = 3;
    /// Ticket lock; halts past the threshold. This and all above it need
    /// PV_UNHALT.
    pub const PV_TICKET: u64 = 4;
    /// MCS queue; halts past the threshold, as Linux's paravirtual qspinlock.
    pub const PV_QUEUE: u64 = 5;
}

/// More of the parameter page.
pub mod param_more {
    /// Spin rounds that a waiter of [`PREEMPTABLE`](super::mode::PREEMPTABLE)
    /// has for each place before it.
    pub const PATIENCE: u64 = 0x48;
}

/// More of a lock's page.
pub mod lock_more {
    /// Non-zero: taken. Of the locks that are one word.
    pub const WORD: u64 = 0x100;
    /// GPA of the last node of the queue; 0: free.
    pub const TAIL: u64 = 0x140;
    /// Bytes of a lock.
    pub const SIZE: u64 = 0x180;
}

/// More of a vCPU's result page.
pub mod result_more {
    /// TSC at the entry.
    pub const ENTRY: u64 = 0x880;
    /// TSC when the lock was taken last.
    pub const ENTERED: u64 = 0x888;
    /// Longest wait, in ticks.
    pub const LONGEST: u64 = 0x890;
    /// TSC at its end.
    pub const LONGEST_END: u64 = 0x898;
    /// GPA of the lock that this vCPU takes; written by the host.
    pub const LOCK: u64 = 0x8a0;
    /// 0: takes locks; else: computes; written by the host.
    pub const ROLE: u64 = 0x8a8;
    /// Thousands of rounds computed.
    pub const BACKGROUND: u64 = 0x8b0;
    /// A lock of its own, where nobody else wants one.
    pub const OWN_LOCK: u64 = 0x900;
    /// Its node in the queue, alone in its cache lines: others write into it.
    pub const NODE: u64 = 0xc00;
}

/// A vCPU's node of a queue.
pub mod node {
    /// GPA of the next one's node; 0: none yet.
    pub const NEXT: u64 = 0x00;
    /// One of the states below.
    pub const STATE: u64 = 0x08;
    /// Whom to kick.
    pub const APIC_ID: u64 = 0x10;
    /// It spins.
    pub const WAITING: u64 = 0;
    /// The lock is its.
    pub const GRANTED: u64 = 1;
    /// It sleeps, or is about to: kick it.
    pub const HALTED: u64 = 2;
}

/// Rounds of one count of [`result_more::BACKGROUND`].
pub const COMPUTE_ROUNDS: u64 = 1000;

/// What the guest is to do, in guest terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaiterProgram {
    /// One of [`mode`].
    pub mode: u64,
    /// One of [`crate::payload::layout::issue`].
    pub issue: u64,
    /// Spin rounds before HLT.
    pub threshold: u64,
    /// Spin rounds for each place, before a waiter overtakes.
    pub patience: u64,
    /// Rounds of work under the lock.
    pub hold: u64,
    /// Rounds of work between two critical sections.
    pub think: u64,
    /// Each vCPU has a lock of its own.
    pub own_locks: bool,
    /// So many vCPUs, the last ones, compute and take no lock.
    pub computing: u32,
}

impl WaiterProgram {
    /// Writes the parameter page, and each vCPU's own part.
    ///
    /// # Errors
    /// The memory is not that of an embedded guest with as many vCPUs.
    pub fn install(&self, memory: &GuestMemory, apic_ids: &[u32]) -> Result<(), MemoryError> {
        let entries = apic_ids.len().next_power_of_two() as u64;
        debug_assert!(WAITERS + entries * waiter::SIZE <= result_page(0));
        for (offset, value) in [
            (base::MODE, self.mode),
            (base::THRESHOLD, self.threshold.max(1)),
            (base::HOLD, self.hold),
            (base::THINK, self.think),
            (base::STOP, 0),
            (base::WAITERS, WAITERS),
            (base::WAITER_MASK, entries - 1),
            (base::ISSUE, self.issue),
            (param_more::PATIENCE, self.patience),
        ] {
            write_word(memory, PARAM_PAGE + offset, value)?;
        }
        let lockers = apic_ids.len() - (self.computing as usize).min(apic_ids.len());
        for (index, (page, &id)) in (0u32..).map(result_page).zip(apic_ids).enumerate() {
            let own = page + result_more::OWN_LOCK;
            for (offset, value) in [
                (fields::APIC_ID, u64::from(id)),
                (
                    result_more::LOCK,
                    if self.own_locks { own } else { LOCK_PAGE },
                ),
                (result_more::ROLE, u64::from(index >= lockers)),
                (result_more::NODE + node::APIC_ID, u64::from(id)),
            ] {
                write_word(memory, page + offset, value)?;
            }
        }
        Ok(())
    }

    /// Sum of the counters of all locks: what only their holders increment.
    ///
    /// # Errors
    /// The memory is not that of an embedded guest with as many vCPUs.
    pub fn counters(&self, memory: &GuestMemory, vcpus: u32) -> Result<u64, MemoryError> {
        let counter = crate::payload::layout::lock::COUNTER;
        if !self.own_locks {
            return read_word(memory, LOCK_PAGE + counter);
        }
        (0..vcpus).try_fold(0u64, |sum, index| {
            let own = result_page(index) + result_more::OWN_LOCK;
            Ok(sum.saturating_add(read_word(memory, own + counter)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::layout::lock;

    #[test]
    fn the_parts_do_not_overlap() {
        const HISTOGRAM_END: u64 = fields::HISTOGRAM + 8 * fields::HISTOGRAM_BUCKETS as u64;
        const {
            assert!(HISTOGRAM_END <= result_more::ENTRY);
            assert!(result_more::BACKGROUND + 8 <= result_more::OWN_LOCK);
            assert!(result_more::OWN_LOCK + lock_more::SIZE <= result_more::NODE);
            assert!(lock::COUNTER + 8 <= lock_more::WORD);
            assert!(lock_more::TAIL + 8 <= lock_more::SIZE);
            // A cache line each.
            assert!(result_more::NODE.is_multiple_of(64));
            assert!(result_more::OWN_LOCK.is_multiple_of(64));
        }
    }
}
