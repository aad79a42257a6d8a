//! What the embedded guest and the host agree on: three kinds of page.
//!
//! Every offset is a constant that the assembly takes as a `const` operand, the
//! hosted twin uses for its atomics and the host uses to read results, so that
//! the three cannot drift apart. All fields are little-endian 64-bit words.

/// The parameter page, written by the host before the start (and `STOP` during
/// the run), read by every vCPU.
pub mod param {
    /// One of [`mode`](super::mode).
    pub const MODE: u64 = 0x00;
    /// Spin rounds before the slow path.
    pub const THRESHOLD: u64 = 0x08;
    /// Rounds of work inside the critical section.
    pub const HOLD: u64 = 0x10;
    /// Rounds of work between two critical sections.
    pub const THINK: u64 = 0x18;
    /// Non-zero: leave as soon as no lock is held.
    pub const STOP: u64 = 0x20;
    /// Entries of the waiter table minus one; entries are a power of two, at
    /// least the number of vCPUs.
    pub const WAITER_MASK: u64 = 0x38;
    /// One of [`issue`](super::issue).
    pub const ISSUE: u64 = 0x40;
}

/// How the guest waits for its lock. The study's guest has more ways, between and
/// behind these.
pub mod mode {
    /// Busy-wait for ever: a kernel without paravirtual spinlocks.
    pub const SPIN: u64 = 0;
    /// No lock: time `THRESHOLD` spin rounds and leave. It shows how
    /// fast this guest runs.
    pub const CALIBRATE: u64 = 3;
    /// The seed's slow path: past the threshold, publish, re-check, HLT. This and all
    /// above it need PV_UNHALT.
    pub const PV: u64 = 4;
}

/// How the guest issues a hypercall.
pub mod issue {
    use crate::transport::{Instruction, Transport};

    /// `out` to the doorbell port of hypercall-abi.
    pub const DOORBELL: u64 = 0;
    /// `vmcall`, Intel's instruction.
    pub const VMCALL: u64 = 1;
    /// `vmmcall`, AMD's instruction.
    pub const VMMCALL: u64 = 2;

    /// How a guest of this transport issues a hypercall. The instruction matters
    /// to those transports that use one.
    pub const fn by(transport: Transport, instruction: Instruction) -> u64 {
        match (transport, instruction) {
            (Transport::Port | Transport::Hosted, _) => DOORBELL,
            (Transport::Xen | Transport::Kvm, Instruction::Vmcall) => VMCALL,
            (Transport::Xen | Transport::Kvm, Instruction::Vmmcall) => VMMCALL,
        }
    }
}

/// The lock page: one cache line a field, as a kernel would lay it out.
pub mod lock {
    /// Ticket the next arrival will draw.
    pub const NEXT: u64 = 0x000;
    /// Ticket that may enter.
    pub const SERVING: u64 = 0x040;
    /// 0, or the APIC ID of the holder plus one: proof of mutual exclusion.
    pub const OWNER: u64 = 0x080;
    /// Incremented by read, work, write under the lock: a lost update shows a
    /// broken lock.
    pub const COUNTER: u64 = 0x0c0;
}

/// An entry of the waiter table, indexed by ticket modulo its size. There are
/// never more tickets out than vCPUs, so an entry has one writer at a time.
pub mod waiter {
    /// The ticket that sleeps, plus one; 0 is nobody.
    pub const TICKET: u64 = 0x0;
    /// The APIC ID to kick.
    pub const APIC_ID: u64 = 0x8;
    /// Bytes an entry: twice what the assembly can scale an index by.
    pub const SIZE: u64 = 16;
}

/// The result page of one vCPU, written by it alone.
pub mod result {
    /// The vCPU's own APIC ID, written by the host before the start.
    pub const APIC_ID: u64 = 0x00;
    /// Critical sections completed.
    pub const ACQUISITIONS: u64 = 0x08;
    /// HLT instructions executed.
    pub const HALTS: u64 = 0x10;
    /// KVM_HC_KICK_CPU issued.
    pub const KICKS: u64 = 0x18;
    /// Kicks that were not answered with 0.
    pub const KICK_ERRORS: u64 = 0x20;
    /// Times the owner word was not as the lock promises.
    pub const VIOLATIONS: u64 = 0x28;
    /// 1 once the vCPU has left the program.
    pub const DONE: u64 = 0x30;
    /// TSC ticks that calibration took.
    pub const CALIBRATION: u64 = 0x38;
    /// Waits in TSC ticks, as [`HISTOGRAM_BUCKETS`] counters.
    pub const HISTOGRAM: u64 = 0x40;
    /// Four buckets per power of two: see [`bucket`].
    pub const HISTOGRAM_BUCKETS: usize = 252;
    /// GPA of the lock that this vCPU takes; written by the host.
    pub const LOCK: u64 = 0x8a0;
    /// GPA of the waiter table of that lock; written by the host.
    pub const TABLE: u64 = 0x8b8;

    /// Bucket of a wait of `ticks`: exact below 4, then four to each power of
    /// two (25 % wide). The assembly computes the same.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "below 4 where it is cast, and this crate is for 64-bit hosts"
    )]
    pub const fn bucket(ticks: u64) -> usize {
        if ticks < 4 {
            return ticks as usize;
        }
        let msb = 63 - ticks.leading_zeros();
        // At most (62 * 4) + 3: `HISTOGRAM_BUCKETS` is 252.
        ((msb - 1) * 4) as usize + ((ticks >> (msb - 2)) & 3) as usize
    }

    /// Largest wait that falls into `bucket`.
    pub const fn bucket_limit(bucket: usize) -> u64 {
        if bucket < 4 {
            return bucket as u64;
        }
        let msb = bucket / 4 + 1;
        let step = 1u64 << (msb - 2);
        // The last bucket ends at u64::MAX: add one step less one, without
        // overflow.
        (1u64 << msb) + (bucket % 4) as u64 * step + (step - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::result::{HISTOGRAM, HISTOGRAM_BUCKETS, LOCK, TABLE, bucket, bucket_limit};

    #[test]
    fn buckets_partition_the_ticks() {
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), HISTOGRAM_BUCKETS - 1);
        for b in 0..HISTOGRAM_BUCKETS {
            let limit = bucket_limit(b);
            assert_eq!(bucket(limit), b, "limit of bucket {b} lies in it");
            if let Some(next) = limit.checked_add(1) {
                assert_eq!(bucket(next), b + 1, "and the next tick does not");
            }
        }
    }

    #[test]
    fn result_page_is_one_page() {
        const {
            assert!(HISTOGRAM + 8 * HISTOGRAM_BUCKETS as u64 <= LOCK);
            assert!(TABLE + 8 <= 4096);
        }
    }
}
