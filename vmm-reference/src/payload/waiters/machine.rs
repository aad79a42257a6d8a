//! The study's guest as a state machine, for the hosted backend: the program of
//! [`super::code`], step by step, on the same pages.

use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use hypercall_abi::{KVM_HC_KICK_CPU, Mode, RawHypercall};
use vm_memory::{VolatileMemory as _, VolatileSlice};

use super::layout::{COMPUTE_ROUNDS, lock_more, mode, node, param_more, result_more};
use crate::backend::hosted::{Program, ProgramExit};
use crate::memory::{self, GuestMemory, MemoryError};
use crate::payload::image::PARAM_PAGE;
use crate::payload::layout::{lock, param, result, waiter};

/// Where the program stands between two calls of `run`.
#[derive(Clone, Copy, Debug)]
enum At {
    Round,
    /// Spins for its ticket.
    Ticket {
        ticket: u64,
        since: u64,
    },
    /// Slept for its ticket.
    TicketHalted {
        ticket: u64,
        since: u64,
    },
    /// Waits to be due, or for its patience to end.
    Preemptable {
        ticket: u64,
        since: u64,
        left: u64,
    },
    /// Wants the word.
    Word {
        since: u64,
    },
    /// Spins on its node.
    Queue {
        since: u64,
    },
    /// Slept on its node.
    QueueHalted {
        since: u64,
    },
    /// Waits for the next one to say where its node is.
    Link {
        waited: u64,
    },
    Kicked {
        waited: u64,
    },
    Compute,
    Calibrate,
    Off,
}

/// One vCPU's run of the study's program.
#[derive(Debug)]
pub struct WaiterMachine {
    memory: Arc<GuestMemory>,
    result_page: u64,
    epoch: Instant,
    /// Drawn last: the unlock names it.
    ticket: u64,
    at: At,
    rax: u64,
}

/// The pages of one call, resolved once.
struct Pages<'a> {
    param: VolatileSlice<'a, ()>,
    lock: VolatileSlice<'a, ()>,
    waiters: VolatileSlice<'a, ()>,
    result: VolatileSlice<'a, ()>,
    mode: u64,
}

type Result<T> = std::result::Result<T, MemoryError>;

/// A step: where it stands now, and how it left the guest if it did.
type Step = (At, Option<ProgramExit>);

/// The atomic word at `offset` of a page.
fn word<'a>(page: &'a VolatileSlice<'_, ()>, offset: u64) -> Result<&'a AtomicU64> {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    page.get_atomic_ref(offset)
        .map_err(|e| MemoryError::Access(e.into()))
}

/// A word that only its own vCPU writes: no other thread orders by it.
fn bump(page: &VolatileSlice<'_, ()>, offset: u64) -> Result<()> {
    let word = word(page, offset)?;
    word.store(word.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    Ok(())
}

/// KVM_HC_KICK_CPU(0, APIC ID), from a kernel in 64-bit mode.
fn kick(apic_id: u64) -> ProgramExit {
    ProgramExit::Hypercall(RawHypercall {
        nr: KVM_HC_KICK_CPU,
        args: [0, apic_id, 0, 0],
        mode: Mode::Bits64,
        cpl: 0,
    })
}

/// `rounds` of work that the compiler may not drop.
fn work(rounds: u64) {
    for i in 0..rounds {
        black_box(i);
    }
}

impl Program for WaiterMachine {
    /// The flag is looked at wherever the program could stay for long.
    fn run(&mut self, exit_request: &AtomicU8) -> Result<ProgramExit> {
        let memory = Arc::clone(&self.memory);
        let param = memory::slice(&memory, PARAM_PAGE, 0x1000)?;
        let own = memory::slice(&memory, self.result_page, 0x1000)?;
        // Relaxed, here and below, for words the host wrote before the start.
        let read = |page, offset| Ok::<_, MemoryError>(word(page, offset)?.load(Ordering::Relaxed));
        let entries = read(&param, param::WAITER_MASK)? + 1;
        let table = usize::try_from(entries * waiter::SIZE).unwrap_or(usize::MAX);
        let size = usize::try_from(lock_more::SIZE).unwrap_or(usize::MAX);
        let pages = Pages {
            lock: memory::slice(&memory, read(&own, result_more::LOCK)?, size)?,
            waiters: memory::slice(&memory, read(&param, param::WAITERS)?, table)?,
            mode: read(&param, param::MODE)?,
            result: own,
            param,
        };
        loop {
            // Relaxed: the flag only says "return"; what for is read elsewhere.
            if exit_request.load(Ordering::Relaxed) != 0 {
                return Ok(ProgramExit::Interrupted);
            }
            let (next, leave) = self.step(&pages, exit_request)?;
            self.at = next;
            if let Some(leave) = leave {
                return Ok(leave);
            }
        }
    }

    fn set_result(&mut self, rax: u64) {
        self.rax = rax;
    }
}

impl WaiterMachine {
    /// The program at its entry. `epoch` is what TSC 0 is to a real guest: the
    /// same for all vCPUs.
    pub fn new(memory: Arc<GuestMemory>, result_page: u64, epoch: Instant) -> Result<Self> {
        let param = memory::slice(&memory, PARAM_PAGE, 0x1000)?;
        let own = memory::slice(&memory, result_page, 0x1000)?;
        // Relaxed: the host wrote both before this vCPU's thread began.
        let role = word(&own, result_more::ROLE)?.load(Ordering::Relaxed);
        let at = match (word(&param, param::MODE)?.load(Ordering::Relaxed), role) {
            (mode::CALIBRATE, _) => At::Calibrate,
            (_, 0) => At::Round,
            _ => At::Compute,
        };
        Ok(Self {
            memory,
            result_page,
            epoch,
            ticket: 0,
            at,
            rax: 0,
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn step(&mut self, p: &Pages<'_>, exit_request: &AtomicU8) -> Result<Step> {
        match self.at {
            At::Round => self.round(p),
            At::Ticket { ticket, since } => self.spin_ticket(p, ticket, since, exit_request),
            At::TicketHalted { ticket, since } => {
                // Acquire: sees what the holder before wrote under the lock (its
                // swap of SERVING publishes it).
                if word(&p.lock, lock::SERVING)?.load(Ordering::Acquire) != ticket {
                    return Self::on(p, At::Ticket { ticket, since });
                }
                Self::unpublish(p, ticket)?;
                self.critical(p, since)
            }
            At::Preemptable {
                ticket,
                since,
                left,
            } => Self::wait_due(p, ticket, since, left, exit_request),
            At::Word { since } => self.take_word(p, since, exit_request),
            At::Queue { since } => self.spin_queue(p, since, exit_request),
            At::QueueHalted { since } => {
                let state = word(&p.result, result_more::NODE + node::STATE)?;
                // Acquire on failure: GRANTED was swapped in after the section
                // before.
                match state.compare_exchange(
                    node::HALTED,
                    node::WAITING,
                    Ordering::AcqRel,
                    Ordering::Acquire,
                ) {
                    Ok(_) => Self::on(p, At::Queue { since }),
                    Err(_) => self.critical(p, since),
                }
            }
            At::Link { waited } => self.link(p, waited, exit_request),
            At::Kicked { waited } => {
                bump(&p.result, result::KICKS)?;
                if self.rax != 0 {
                    bump(&p.result, result::KICK_ERRORS)?;
                }
                Self::book(p, waited)
            }
            At::Compute => {
                work(COMPUTE_ROUNDS);
                bump(&p.result, result_more::BACKGROUND)?;
                Self::on(p, At::Compute)
            }
            At::Calibrate => self.calibrate(p),
            At::Off => Ok((At::Off, Some(ProgramExit::Halt))),
        }
    }

    fn round(&mut self, p: &Pages<'_>) -> Result<Step> {
        if param(p, param::STOP)? != 0 {
            return off(p);
        }
        let since = self.now();
        match p.mode {
            mode::TEST_AND_SET => Ok((At::Word { since }, None)),
            mode::PV_QUEUE => self.join(p, since),
            _ => {
                // AcqRel: a ticket is drawn once; what the lock protects is
                // published by SERVING or by the word.
                let ticket = word(&p.lock, lock::NEXT)?.fetch_add(1, Ordering::AcqRel);
                self.ticket = ticket;
                let serving = word(&p.lock, lock::SERVING)?.load(Ordering::Acquire);
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
    fn on(p: &Pages<'_>, at: At) -> Result<Step> {
        if param(p, param::STOP)? != 0 {
            return off(p);
        }
        Ok((at, None))
    }

    fn spin_ticket(
        &self,
        p: &Pages<'_>,
        ticket: u64,
        since: u64,
        exit_request: &AtomicU8,
    ) -> Result<Step> {
        let serving = word(&p.lock, lock::SERVING)?;
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
        word(&p.waiters, entry + waiter::APIC_ID)?.store(own, Ordering::Relaxed);
        // SeqCst pair with the unlocker's swap of SERVING: either it sees this
        // ticket, or the load below sees its SERVING.
        word(&p.waiters, entry + waiter::TICKET)?.swap(ticket + 1, Ordering::SeqCst);
        if serving.load(Ordering::SeqCst) == ticket {
            Self::unpublish(p, ticket)?;
            return self.critical(p, since);
        }
        bump(&p.result, result::HALTS)?;
        Ok((At::TicketHalted { ticket, since }, Some(ProgramExit::Halt)))
    }

    fn unpublish(p: &Pages<'_>, ticket: u64) -> Result<()> {
        // Relaxed: a late reader kicks a vCPU that runs, which is allowed.
        let entry = entry(p, ticket)? + waiter::TICKET;
        word(&p.waiters, entry)?.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn wait_due(
        p: &Pages<'_>,
        ticket: u64,
        since: u64,
        left: u64,
        exit_request: &AtomicU8,
    ) -> Result<Step> {
        let serving = word(&p.lock, lock::SERVING)?;
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

    fn take_word(&self, p: &Pages<'_>, since: u64, exit_request: &AtomicU8) -> Result<Step> {
        let taken = word(&p.lock, lock_more::WORD)?;
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

    fn join(&self, p: &Pages<'_>, since: u64) -> Result<Step> {
        let own = self.result_page + result_more::NODE;
        // Relaxed: published by the swap of the tail.
        word(&p.result, result_more::NODE + node::NEXT)?.store(0, Ordering::Relaxed);
        word(&p.result, result_more::NODE + node::STATE)?.store(node::WAITING, Ordering::Relaxed);
        // AcqRel: publishes this node, and sees that of the one before, or what
        // was written under a lock that is free again.
        let before = word(&p.lock, lock_more::TAIL)?.swap(own, Ordering::AcqRel);
        if before == 0 {
            return self.critical(p, since);
        }
        let node = self.node(before)?;
        // Release: who unlocks finds this node through it.
        word(&node, node::NEXT)?.store(own, Ordering::Release);
        Ok((At::Queue { since }, None))
    }

    fn node(&self, gpa: u64) -> Result<VolatileSlice<'_, ()>> {
        memory::slice(&self.memory, gpa, 0x40)
    }

    fn spin_queue(&self, p: &Pages<'_>, since: u64, exit_request: &AtomicU8) -> Result<Step> {
        let state = word(&p.result, result_more::NODE + node::STATE)?;
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
            Ok(_) => {
                bump(&p.result, result::HALTS)?;
                Ok((At::QueueHalted { since }, Some(ProgramExit::Halt)))
            }
            Err(_) => self.critical(p, since),
        }
    }

    /// The critical section and the unlock.
    fn critical(&self, p: &Pages<'_>, since: u64) -> Result<Step> {
        let now = self.now();
        word(&p.result, result_more::ENTERED)?.store(now, Ordering::Relaxed);
        let waited = now.saturating_sub(since);
        let own = word(&p.result, result::APIC_ID)?.load(Ordering::Relaxed) + 1;
        // Relaxed: under the lock; the unlock publishes all of it.
        let owner = word(&p.lock, lock::OWNER)?;
        if owner.load(Ordering::Relaxed) != 0 {
            bump(&p.result, result::VIOLATIONS)?;
        }
        owner.store(own, Ordering::Relaxed);
        let counter = word(&p.lock, lock::COUNTER)?;
        let value = counter.load(Ordering::Relaxed);
        work(param(p, param::HOLD)?);
        counter.store(value + 1, Ordering::Relaxed);
        if owner.load(Ordering::Relaxed) != own {
            bump(&p.result, result::VIOLATIONS)?;
        }
        owner.store(0, Ordering::Relaxed);
        self.unlock(p, waited)
    }

    fn unlock(&self, p: &Pages<'_>, waited: u64) -> Result<Step> {
        let serving = word(&p.lock, lock::SERVING)?;
        let taken = word(&p.lock, lock_more::WORD)?;
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
                let sleeper = word(&p.waiters, entry + waiter::TICKET)?.load(Ordering::SeqCst);
                if p.mode == mode::PV_TICKET && sleeper == next + 1 {
                    // Relaxed: written before the ticket just seen.
                    let id = word(&p.waiters, entry + waiter::APIC_ID)?.load(Ordering::Relaxed);
                    return Ok((At::Kicked { waited }, Some(kick(id))));
                }
            }
        }
        Self::book(p, waited)
    }

    /// Unlocks the queue: for nobody, or for the next one.
    fn link(&self, p: &Pages<'_>, waited: u64, exit_request: &AtomicU8) -> Result<Step> {
        let own = self.result_page + result_more::NODE;
        let next = word(&p.result, result_more::NODE + node::NEXT)?;
        // Acquire: the next one's node is as it was when it joined.
        let mut gpa = next.load(Ordering::Acquire);
        if gpa == 0 {
            let tail = word(&p.lock, lock_more::TAIL)?;
            // Release: publishes the section to whoever swaps the tail next.
            let free = tail.compare_exchange(own, 0, Ordering::AcqRel, Ordering::Relaxed);
            if free.is_ok() {
                return Self::book(p, waited);
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
        Self::book(p, waited)
    }

    fn book(p: &Pages<'_>, waited: u64) -> Result<Step> {
        bump(&p.result, result::ACQUISITIONS)?;
        let longest = word(&p.result, result_more::LONGEST)?;
        if waited > longest.load(Ordering::Relaxed) {
            longest.store(waited, Ordering::Relaxed);
            let end = word(&p.result, result_more::ENTERED)?.load(Ordering::Relaxed);
            word(&p.result, result_more::LONGEST_END)?.store(end, Ordering::Relaxed);
        }
        let bucket = 8 * result::bucket(waited) as u64;
        bump(&p.result, result::HISTOGRAM + bucket)?;
        work(param(p, param::THINK)?);
        Ok((At::Round, None))
    }

    fn calibrate(&self, p: &Pages<'_>) -> Result<Step> {
        let serving = word(&p.lock, lock::SERVING)?;
        let since = self.now();
        for _ in 0..param(p, param::THRESHOLD)? {
            spin_loop();
            if serving.load(Ordering::Acquire) == u64::MAX {
                break;
            }
        }
        let ticks = self.now() - since;
        word(&p.result, result::CALIBRATION)?.store(ticks, Ordering::Relaxed);
        off(p)
    }
}

/// A parameter. Relaxed: they do not change but for STOP, which orders nothing.
fn param(p: &Pages<'_>, offset: u64) -> Result<u64> {
    Ok(word(&p.param, offset)?.load(Ordering::Relaxed))
}

fn entry(p: &Pages<'_>, ticket: u64) -> Result<u64> {
    Ok((ticket & param(p, param::WAITER_MASK)?) * waiter::SIZE)
}

fn off(p: &Pages<'_>) -> Result<Step> {
    word(&p.result, result::DONE)?.store(1, Ordering::Relaxed);
    Ok((At::Off, Some(ProgramExit::ExitPort(0))))
}
