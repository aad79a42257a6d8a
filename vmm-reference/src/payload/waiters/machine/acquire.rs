//! The ways to wait for a lock.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU8, Ordering};

use vm_memory::VolatileSlice;

use super::{At, Pages, Result, Step, WaiterMachine, bump, entry, off, param, word};
use crate::backend::hosted::ProgramExit;
use crate::memory;
use crate::payload::layout::{lock, result, waiter};
use crate::payload::waiters::layout::{lock_more, mode, node, param_more};

impl WaiterMachine {
    /// Draws a ticket, joins the queue, or wants the word.
    pub(super) fn acquire(&mut self, p: &Pages<'_>) -> Result<Step> {
        let since = self.now();
        match p.mode {
            mode::TEST_AND_SET => Ok((At::Word { since }, None)),
            mode::PV_QUEUE => self.join(p, since),
            _ => {
                // AcqRel: a ticket is drawn once; what the lock protects is
                // published by SERVING or by the word.
                let ticket = word(&p.here.lock, lock::NEXT)?.fetch_add(1, Ordering::AcqRel);
                self.ticket = ticket;
                let serving = word(&p.here.lock, lock::SERVING)?.load(Ordering::Acquire);
                if p.mode == mode::PREEMPTABLE {
                    let left = param(p, param_more::PATIENCE)?
                        .saturating_mul(ticket.saturating_sub(serving));
                    return Ok((
                        At::Preemptable {
                            ticket,
                            since,
                            left,
                        },
                        None,
                    ));
                }
                if serving == ticket {
                    return self.critical(p, since);
                }
                Ok((At::Ticket { ticket, since }, None))
            }
        }
    }

    /// Goes on at `at`, unless the host wants an end.
    pub(super) fn on(p: &Pages<'_>, at: At) -> Result<Step> {
        if param(p, param::STOP)? != 0 {
            return off(p);
        }
        Ok((at, None))
    }

    /// Halts at `at`, unless the host wants an end: its kick behind STOP may have
    /// ended another halt, and nobody kicks once more.
    fn halt(p: &Pages<'_>, at: At) -> Result<Step> {
        if param(p, param::STOP)? != 0 {
            return off(p);
        }
        bump(&p.result, result::HALTS)?;
        Ok((at, Some(ProgramExit::Halt)))
    }

    pub(super) fn spin_ticket(
        &mut self,
        p: &Pages<'_>,
        ticket: u64,
        since: u64,
        exit_request: &AtomicU8,
    ) -> Result<Step> {
        let serving = word(&p.here.lock, lock::SERVING)?;
        for _ in 0..param(p, param::THRESHOLD)? {
            spin_loop();
            // Acquire: as in TicketHalted.
            if serving.load(Ordering::Acquire) == ticket {
                return self.critical(p, since);
            }
            if exit_request.load(Ordering::Relaxed) != 0 {
                return Ok((At::Ticket { ticket, since }, None));
            }
        }
        if p.mode != mode::PV_TICKET {
            return Self::on(p, At::Ticket { ticket, since });
        }
        let entry = entry(p, ticket)?;
        let own = word(&p.result, result::APIC_ID)?.load(Ordering::Relaxed);
        // Relaxed: published by the swap below, read by the unlocker after it
        // has seen the ticket.
        word(&p.here.waiters, entry + waiter::APIC_ID)?.store(own, Ordering::Relaxed);
        // SeqCst pair with the unlocker's swap of SERVING: either it sees this
        // ticket, or the load below sees its SERVING.
        word(&p.here.waiters, entry + waiter::TICKET)?.swap(ticket + 1, Ordering::SeqCst);
        if serving.load(Ordering::SeqCst) == ticket {
            Self::unpublish(p, ticket)?;
            return self.critical(p, since);
        }
        Self::halt(p, At::TicketHalted { ticket, since })
    }

    pub(super) fn unpublish(p: &Pages<'_>, ticket: u64) -> Result<()> {
        // Relaxed: a late reader kicks a vCPU that runs, which is allowed.
        let entry = entry(p, ticket)? + waiter::TICKET;
        word(&p.here.waiters, entry)?.store(0, Ordering::Relaxed);
        Ok(())
    }

    pub(super) fn wait_due(
        p: &Pages<'_>,
        ticket: u64,
        since: u64,
        left: u64,
        exit_request: &AtomicU8,
    ) -> Result<Step> {
        let serving = word(&p.here.lock, lock::SERVING)?;
        for gone in 0..left {
            // Relaxed: it only says who is due; the word is what is acquired.
            if serving.load(Ordering::Relaxed) >= ticket {
                break;
            }
            if exit_request.load(Ordering::Relaxed) != 0 {
                let left = left - gone;
                return Ok((
                    At::Preemptable {
                        ticket,
                        since,
                        left,
                    },
                    None,
                ));
            }
            spin_loop();
        }
        Ok((At::Word { since }, None))
    }

    pub(super) fn take_word(
        &mut self,
        p: &Pages<'_>,
        since: u64,
        exit_request: &AtomicU8,
    ) -> Result<Step> {
        let taken = word(&p.here.lock, lock_more::WORD)?;
        for _ in 0..param(p, param::THRESHOLD)? {
            // Relaxed test, then Acquire: sees what the holder before wrote (its
            // Release store of 0 publishes it).
            if taken.load(Ordering::Relaxed) == 0 && taken.swap(1, Ordering::Acquire) == 0 {
                return self.critical(p, since);
            }
            if exit_request.load(Ordering::Relaxed) != 0 {
                return Ok((At::Word { since }, None));
            }
            spin_loop();
        }
        Self::on(p, At::Word { since })
    }

    fn join(&mut self, p: &Pages<'_>, since: u64) -> Result<Step> {
        let own = self.result_page + p.here.node;
        // Relaxed: published by the swap of the tail.
        word(&p.result, p.here.node + node::NEXT)?.store(0, Ordering::Relaxed);
        word(&p.result, p.here.node + node::STATE)?.store(node::WAITING, Ordering::Relaxed);
        // AcqRel: publishes this node, and sees that of the one before, or what
        // was written under a lock that is free again.
        let before = word(&p.here.lock, lock_more::TAIL)?.swap(own, Ordering::AcqRel);
        if before == 0 {
            return self.critical(p, since);
        }
        let node = self.node(before)?;
        // Release: who unlocks finds this node through it.
        word(&node, node::NEXT)?.store(own, Ordering::Release);
        Ok((At::Queue { since }, None))
    }

    pub(super) fn node(&self, gpa: u64) -> Result<VolatileSlice<'_, ()>> {
        memory::slice(&self.memory, gpa, 0x40)
    }

    pub(super) fn spin_queue(
        &mut self,
        p: &Pages<'_>,
        since: u64,
        exit_request: &AtomicU8,
    ) -> Result<Step> {
        let state = word(&p.result, p.here.node + node::STATE)?;
        for _ in 0..param(p, param::THRESHOLD)? {
            spin_loop();
            // Acquire: GRANTED was swapped in after the section before.
            if state.load(Ordering::Acquire) == node::GRANTED {
                return self.critical(p, since);
            }
            if exit_request.load(Ordering::Relaxed) != 0 {
                return Ok((At::Queue { since }, None));
            }
        }
        // AcqRel: partner of the swap in `link`; exactly one of the two sees the
        // other.
        match state.compare_exchange(
            node::WAITING,
            node::HALTED,
            Ordering::AcqRel,
            Ordering::Acquire,
        ) {
            Ok(_) => Self::halt(p, At::QueueHalted { since }),
            Err(_) => self.critical(p, since),
        }
    }
}
