//! What the study's guest and the host agree on, beyond [`super::super::layout`]:
//! more words in the same pages.

use crate::memory::{self, GuestMemory, MemoryError, read_word, write_word};
use crate::payload::image::{LOCK_PAGE, MAX_VCPUS, PARAM_PAGE, WAITERS, result_page};
use crate::payload::layout::{lock, param as base, result as fields, waiter};

pub use crate::payload::layout::{param, result};

/// How the guest waits for its lock: the lock program's ways, and more.
pub mod mode {
    use crate::payload::layout::mode as base;

    /// Ticket lock, busy for ever.
    pub const TICKET: u64 = base::SPIN;
    /// Test and test-and-set.
    pub const TEST_AND_SET: u64 = 1;
    /// Ticket lock whose waiters overtake one that is due and does not come
    /// (Ouyang and Lange, VEE 2013): past a patience in proportion to its
    /// distance in the queue, a waiter takes the lock if it is free.
    pub const PREEMPTABLE: u64 = 2;
    /// No lock: time `THRESHOLD` rounds of spinning.
    pub const CALIBRATE: u64 = base::CALIBRATE;
    /// Ticket lock; halts past the threshold. This and all above it need
    /// PV_UNHALT.
    pub const PV_TICKET: u64 = base::PV;
    /// MCS queue; halts past the threshold, as Linux's paravirtual qspinlock.
    pub const PV_QUEUE: u64 = 5;
}

/// More of the parameter page.
pub mod param_more {
    /// Spin rounds that a waiter of [`PREEMPTABLE`](super::mode::PREEMPTABLE)
    /// has for each place before it.
    pub const PATIENCE: u64 = 0x48;
    /// Spin rounds that a vCPU that sleeps computes after each wake-up.
    pub const BURST: u64 = 0x50;
    /// GPA of the notes of who had the lock when ([`hold`](super::hold)); 0: none are
    /// wanted.
    pub const HOLDS: u64 = 0x58;
}

/// A note of one critical section, written under the lock. There is room for
/// [`MOST`](hold::MOST); the last ones are there, the section that was the lock's
/// n-th (its COUNTER behind it) at n modulo that.
pub mod hold {
    /// TSC at its begin.
    pub const FROM: u64 = 0x00;
    /// TSC at its end, before the unlock.
    pub const TO: u64 = 0x08;
    /// APIC ID of the vCPU that had the lock.
    pub const APIC_ID: u64 = 0x10;
    /// How long it had waited for the lock, in ticks of the TSC.
    pub const WAITED: u64 = 0x18;
    /// Bytes of a note.
    pub const SIZE: u64 = 0x20;
    /// Room for so many: 8 MiB, which cost if they are used.
    pub const MOST: u64 = 1 << 18;
    /// From a number to its place.
    pub const MASK: u64 = MOST - 1;
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

/// GPA of the second lock, and of its waiter table.
const SECOND_LOCK: u64 = LOCK_PAGE + 0x400;
const SECOND_WAITERS: u64 = WAITERS + MAX_VCPUS as u64 * waiter::SIZE;

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
    /// One of [`role`](super::role), written by the host.
    pub const ROLE: u64 = 0x8a8;
    /// Thousands of rounds computed.
    pub const BACKGROUND: u64 = 0x8b0;
    /// GPA of the lock that this vCPU takes within its own, 0: none; and of its
    /// waiter table. Written by the host.
    pub const INNER: u64 = 0x8c0;
    /// See above.
    pub const INNER_TABLE: u64 = 0x8c8;
    /// Ticket, wait and time of entry of the outer section, while within it.
    pub const OUTER_TICKET: u64 = 0x8d0;
    /// See above.
    pub const OUTER_WAIT: u64 = 0x8d8;
    /// See above.
    pub const OUTER_ENTERED: u64 = 0x8e0;
    /// Of a vCPU that sleeps: wake-ups by the host. Its histogram is of the time
    /// from each to its first instruction behind the HLT.
    pub const WAKES: u64 = 0x8e8;
    /// Of a vCPU that sleeps: number of the last question about its clock that it
    /// answered, and the TSC that it read for it.
    pub const ANSWERED: u64 = 0x8f0;
    /// See above.
    pub const ANSWER: u64 = 0x8f8;
    /// A lock of its own, where nobody else wants one.
    pub const OWN_LOCK: u64 = 0x900;
    /// Its node in the queue, alone in its cache lines: others write into it.
    pub const NODE: u64 = 0xc00;
    /// The same for the inner lock.
    pub const INNER_NODE: u64 = 0xc40;
    /// Of a vCPU that sleeps: TSC at which the host woke it, and 0 once it has
    /// seen that.
    pub const WOKEN: u64 = 0xc80;
    /// Of a vCPU that sleeps: number of the host's question about its clock;
    /// [`NO_MORE`](super::NO_MORE) ends them.
    pub const QUESTION: u64 = 0xc88;
}

/// What a vCPU does.
pub mod role {
    /// It takes locks.
    pub const LOCKS: u64 = 0;
    /// It computes.
    pub const COMPUTES: u64 = 1;
    /// It sleeps until the host wakes it, and computes for a moment.
    pub const SLEEPS: u64 = 2;
}

/// The host has no more questions.
pub const NO_MORE: u64 = u64::MAX;

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

/// Which locks there are, and who takes which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locks {
    /// One, that all take.
    One,
    /// Each vCPU has its own.
    Own,
    /// Two; every other vCPU takes the same.
    Independent,
    /// Two: every other vCPU takes the inner one within the outer one, and the
    /// rest take the inner one alone.
    Nested,
}

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
    /// Spin rounds that a vCPU that sleeps computes after each wake-up.
    pub burst: u64,
    /// Which locks there are.
    pub locks: Locks,
    /// So many vCPUs, the last ones but for those that sleep, compute and take no
    /// lock.
    pub computing: u32,
    /// So many vCPUs, the last ones, sleep until the host wakes them.
    pub sleeping: u32,
    /// Who had the lock when is noted. Of one lock: where there are others
    /// ([`Locks`]), nothing is.
    pub notes_holds: bool,
}

/// A critical section, in ticks of the guest's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// When it began.
    pub from: u64,
    /// When it was over, before the unlock.
    pub to: u64,
    /// Who had the lock.
    pub apic_id: u64,
    /// How long it had waited.
    pub waited: u64,
}

/// GPAs of a vCPU's lock and of its waiter table.
type LockAndTable = (u64, u64);

impl WaiterProgram {
    /// Writes the parameter page, and each vCPU's own part.
    ///
    /// # Errors
    /// The memory is not that of an embedded guest with as many vCPUs.
    pub fn install(&self, memory: &GuestMemory, apic_ids: &[u32]) -> Result<(), MemoryError> {
        let vcpus = u32::try_from(apic_ids.len()).unwrap_or(u32::MAX);
        let notes = self.notes_holds && self.locks == Locks::One;
        let entries = apic_ids.len().next_power_of_two() as u64;
        debug_assert!(SECOND_WAITERS + entries * waiter::SIZE <= result_page(0));
        for (offset, value) in [
            (base::MODE, self.mode),
            (base::THRESHOLD, self.threshold.max(1)),
            (base::HOLD, self.hold),
            (base::THINK, self.think),
            (base::STOP, 0),
            (base::WAITER_MASK, entries - 1),
            (base::ISSUE, self.issue),
            (param_more::PATIENCE, self.patience),
            (param_more::BURST, self.burst.max(1)),
            (param_more::HOLDS, if notes { notes_at(vcpus) } else { 0 }),
        ] {
            write_word(memory, PARAM_PAGE + offset, value)?;
        }
        for (index, &id) in (0u32..).zip(apic_ids) {
            let page = result_page(index);
            let ((lock, table), inner) = self.locks_of(index);
            let (inner, inner_table) = inner.unwrap_or_default();
            for (offset, value) in [
                (fields::APIC_ID, u64::from(id)),
                (fields::LOCK, lock),
                (fields::TABLE, table),
                (result_more::INNER, inner),
                (result_more::INNER_TABLE, inner_table),
                (result_more::ROLE, self.role(index, vcpus)),
                (result_more::NODE + node::APIC_ID, u64::from(id)),
                (result_more::INNER_NODE + node::APIC_ID, u64::from(id)),
            ] {
                write_word(memory, page + offset, value)?;
            }
        }
        Ok(())
    }

    /// Number of vCPUs that take locks, of so many: the first ones.
    pub const fn lockers(&self, vcpus: u32) -> u32 {
        vcpus.saturating_sub(self.computing.saturating_add(self.sleeping))
    }

    /// One of [`role`].
    pub const fn role(&self, index: u32, vcpus: u32) -> u64 {
        if index < self.lockers(vcpus) {
            role::LOCKS
        } else if index < vcpus.saturating_sub(self.sleeping) {
            role::COMPUTES
        } else {
            role::SLEEPS
        }
    }

    /// The lock of a vCPU, and the one that it takes within it.
    fn locks_of(&self, index: u32) -> (LockAndTable, Option<LockAndTable>) {
        const FIRST: LockAndTable = (LOCK_PAGE, WAITERS);
        const SECOND: LockAndTable = (SECOND_LOCK, SECOND_WAITERS);
        match (self.locks, index.is_multiple_of(2)) {
            (Locks::One, _) | (Locks::Independent, true) => (FIRST, None),
            // Nobody else looks into the table.
            (Locks::Own, _) => {
                let own = result_page(index) + result_more::OWN_LOCK;
                ((own, WAITERS), None)
            }
            (Locks::Independent | Locks::Nested, false) => (SECOND, None),
            (Locks::Nested, true) => (FIRST, Some(SECOND)),
        }
    }

    /// Sum of the counters of those locks that every vCPU takes once for each of
    /// its acquisitions: what only their holders increment.
    ///
    /// # Errors
    /// The memory is not that of an embedded guest with as many vCPUs.
    pub fn counters(&self, memory: &GuestMemory, vcpus: u32) -> Result<u64, MemoryError> {
        let mut locks: Vec<u64> = (0..vcpus)
            .map(|index| {
                let ((lock, _), inner) = self.locks_of(index);
                inner.map_or(lock, |(inner, _)| inner)
            })
            .collect();
        locks.sort_unstable();
        locks.dedup();
        locks.into_iter().try_fold(0u64, |sum, gpa| {
            Ok(sum.saturating_add(read_word(memory, gpa + lock::COUNTER)?))
        })
    }
}

/// GPA of the notes of a guest with so many vCPUs: behind its result pages.
const fn notes_at(vcpus: u32) -> u64 {
    result_page(vcpus)
}

/// Bytes behind the result pages that a guest needs which notes its holds.
pub const NOTES: u64 = hold::MOST * hold::SIZE;

/// The critical sections that a guest has noted, oldest first; none if it noted none.
///
/// # Errors
/// The memory is not that of a guest of this program.
pub fn holds(memory: &GuestMemory) -> Result<Vec<Hold>, MemoryError> {
    let notes = read_word(memory, PARAM_PAGE + param_more::HOLDS)?;
    if notes == 0 {
        return Ok(Vec::new());
    }
    // The guest can have written anything there; in memory no sum below overflows.
    memory::slice(memory, notes, usize::try_from(NOTES).unwrap_or(usize::MAX))?;
    let count = read_word(memory, LOCK_PAGE + lock::COUNTER)?;
    let first = count.saturating_sub(hold::MOST);
    (first..count)
        .map(|number| {
            // Counted behind the section.
            let place = notes + ((number + 1) & hold::MASK) * hold::SIZE;
            Ok(Hold {
                from: read_word(memory, place + hold::FROM)?,
                to: read_word(memory, place + hold::TO)?,
                apic_id: read_word(memory, place + hold::APIC_ID)?,
                waited: read_word(memory, place + hold::WAITED)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::image;

    /// The guest can write to the page that says where they are, and to the counter.
    #[test]
    fn notes_are_only_read_from_memory() {
        let memory = image::build_with(1, &[], NOTES).unwrap();
        for count in [0, 1, u64::MAX] {
            write_word(&memory, LOCK_PAGE + lock::COUNTER, count).unwrap();
            for at in [u64::MAX, u64::MAX - NOTES, notes_at(1) + (1 << 30)] {
                write_word(&memory, PARAM_PAGE + param_more::HOLDS, at).unwrap();
                assert!(holds(&memory).is_err(), "{at:#x}, {count}");
            }
            write_word(&memory, PARAM_PAGE + param_more::HOLDS, notes_at(1)).unwrap();
            let all = holds(&memory).unwrap().len() as u64;
            assert_eq!(all, count.min(hold::MOST));
        }
    }

    #[test]
    fn the_parts_do_not_overlap() {
        const HISTOGRAM_END: u64 = fields::HISTOGRAM + 8 * fields::HISTOGRAM_BUCKETS as u64;
        const {
            assert!(HISTOGRAM_END <= result_more::ENTRY);
            assert!(result_more::ANSWER + 8 <= result_more::OWN_LOCK);
            assert!(result_more::OWN_LOCK + lock_more::SIZE <= result_more::NODE);
            assert!(result_more::NODE + 0x40 <= result_more::INNER_NODE);
            assert!(result_more::INNER_NODE + 0x40 <= result_more::WOKEN);
            assert!(LOCK_PAGE + lock_more::SIZE <= SECOND_LOCK);
            assert!(SECOND_LOCK + lock_more::SIZE <= LOCK_PAGE + 0x1000);
            assert!(SECOND_WAITERS + (SECOND_WAITERS - WAITERS) <= result_page(0));
            assert!(lock::COUNTER + 8 <= lock_more::WORD);
            assert!(lock_more::TAIL + 8 <= lock_more::SIZE);
            // A cache line each.
            assert!(result_more::NODE.is_multiple_of(64));
            assert!(result_more::OWN_LOCK.is_multiple_of(64));
        }
    }
}
