//! The critical section, and the ways to unlock.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU8, Ordering};

use super::{At, Outer, Pages, Result, Step, WaiterMachine, bump, entry, kick, param, word, work};
use crate::payload::layout::{lock, result, waiter};
use crate::payload::waiters::layout::{hold, lock_more, mode, node, result_more};

impl WaiterMachine {
    /// Has the lock. In the outer one of two the inner one is taken first, and
    /// released before the section of the outer one.
    pub(super) fn critical(&mut self, p: &Pages<'_>, since: u64) -> Result<Step> {
        let entered = self.now();
        word(&p.result, result_more::ENTERED)?.store(entered, Ordering::Relaxed);
        let waited = entered.saturating_sub(since);
        if p.other.is_some() && self.outer.is_none() {
            self.outer = Some(Outer {
                ticket: self.ticket,
                waited,
                entered,
            });
            return Ok((At::Acquire, None));
        }
        self.section(p, waited)
    }

    /// The critical section and the unlock.
    pub(super) fn section(&mut self, p: &Pages<'_>, waited: u64) -> Result<Step> {
        let own = word(&p.result, result::APIC_ID)?.load(Ordering::Relaxed) + 1;
        // Relaxed: under the lock; the unlock publishes all of it.
        let owner = word(&p.here.lock, lock::OWNER)?;
        if owner.load(Ordering::Relaxed) != 0 {
            bump(&p.result, result::VIOLATIONS)?;
        }
        owner.store(own, Ordering::Relaxed);
        let counter = word(&p.here.lock, lock::COUNTER)?;
        let value = counter.load(Ordering::Relaxed);
        work(param(p, param::HOLD)?);
        counter.store(value + 1, Ordering::Relaxed);
        if owner.load(Ordering::Relaxed) != own {
            bump(&p.result, result::VIOLATIONS)?;
        }
        owner.store(0, Ordering::Relaxed);
        if let Some(holds) = &p.holds {
            // Relaxed: under the lock, and the host reads it when all are gone.
            let entered = word(&p.result, result_more::ENTERED)?.load(Ordering::Relaxed);
            let place = ((value + 1) & hold::MASK) * hold::SIZE;
            for (offset, value) in [
                (hold::FROM, entered),
                (hold::APIC_ID, own - 1),
                (hold::WAITED, waited),
                (hold::TO, self.now()),
            ] {
                word(holds, place + offset)?.store(value, Ordering::Relaxed);
            }
        }
        self.unlock(p, waited)
    }

    fn unlock(&mut self, p: &Pages<'_>, waited: u64) -> Result<Step> {
        let serving = word(&p.here.lock, lock::SERVING)?;
        let taken = word(&p.here.lock, lock_more::WORD)?;
        match p.mode {
            mode::PV_QUEUE => return Ok((At::Link { waited }, None)),
            mode::TEST_AND_SET => taken.store(0, Ordering::Release),
            mode::PREEMPTABLE => {
                // Relaxed: under the word, which publishes the section.
                let over = serving.load(Ordering::Relaxed) + 1;
                serving.store(over, Ordering::Relaxed);
                taken.store(0, Ordering::Release);
            }
            _ => {
                let next = self.ticket + 1;
                // SeqCst: publishes the section to the next holder, and pairs
                // with the waiter's swap in `spin_ticket`.
                serving.swap(next, Ordering::SeqCst);
                let entry = entry(p, next)?;
                let sleeper = word(&p.here.waiters, entry + waiter::TICKET)?.load(Ordering::SeqCst);
                if p.mode == mode::PV_TICKET && sleeper == next + 1 {
                    // Relaxed: written before the ticket just seen.
                    let id =
                        word(&p.here.waiters, entry + waiter::APIC_ID)?.load(Ordering::Relaxed);
                    return Ok((At::Kicked { waited }, Some(kick(id))));
                }
            }
        }
        self.book(p, waited)
    }

    /// Unlocks the queue: for nobody, or for the next one.
    pub(super) fn link(
        &mut self,
        p: &Pages<'_>,
        waited: u64,
        exit_request: &AtomicU8,
    ) -> Result<Step> {
        let own = self.result_page + p.here.node;
        let next = word(&p.result, p.here.node + node::NEXT)?;
        // Acquire: the next one's node is as it was when it joined.
        let mut gpa = next.load(Ordering::Acquire);
        if gpa == 0 {
            let tail = word(&p.here.lock, lock_more::TAIL)?;
            // Release: publishes the section to whoever swaps the tail next.
            let free = tail.compare_exchange(own, 0, Ordering::AcqRel, Ordering::Relaxed);
            if free.is_ok() {
                return self.book(p, waited);
            }
            while gpa == 0 {
                if exit_request.load(Ordering::Relaxed) != 0 {
                    return Ok((At::Link { waited }, None));
                }
                spin_loop();
                gpa = next.load(Ordering::Acquire);
            }
        }
        let node = self.node(gpa)?;
        let id = word(&node, node::APIC_ID)?.load(Ordering::Relaxed);
        // AcqRel: publishes the section, and pairs with the exchange in
        // `spin_queue`: who finds HALTED kicks.
        let state = word(&node, node::STATE)?.swap(node::GRANTED, Ordering::AcqRel);
        if state == node::HALTED {
            return Ok((At::Kicked { waited }, Some(kick(id))));
        }
        self.book(p, waited)
    }

    pub(super) fn book(&mut self, p: &Pages<'_>, waited: u64) -> Result<Step> {
        let longest = word(&p.result, result_more::LONGEST)?;
        if waited > longest.load(Ordering::Relaxed) {
            longest.store(waited, Ordering::Relaxed);
            let end = word(&p.result, result_more::ENTERED)?.load(Ordering::Relaxed);
            word(&p.result, result_more::LONGEST_END)?.store(end, Ordering::Relaxed);
        }
        let bucket = 8 * result::bucket(waited) as u64;
        bump(&p.result, result::HISTOGRAM + bucket)?;
        if let Some(outer) = self.outer.take() {
            self.ticket = outer.ticket;
            let entered = word(&p.result, result_more::ENTERED)?;
            entered.store(outer.entered, Ordering::Relaxed);
            let waited = outer.waited;
            return Ok((At::Section { waited }, None));
        }
        bump(&p.result, result::ACQUISITIONS)?;
        work(param(p, param::THINK)?);
        Ok((At::Round, None))
    }
}
