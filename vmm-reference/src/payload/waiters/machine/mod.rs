//! The study's guest as a state machine, for the hosted backend: the program of
//! [`super::code`], step by step, on the same pages.
//!
//! - `acquire`: the ways to wait for a lock;
//! - `section`: the critical section and the ways to unlock;
//! - `sleeper`: a vCPU that sleeps.

mod acquire;
mod section;
mod sleeper;

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use vm_memory::VolatileSlice;

use super::layout::{COMPUTE_ROUNDS, NOTES, lock_more, mode, node, param_more, result_more, role};
use crate::backend::hosted::{Program, ProgramExit};
use crate::memory::{self, GuestMemory, MemoryError};
use crate::payload::image::PARAM_PAGE;
use crate::payload::layout::{lock, param, result, waiter};
use crate::payload::machine::{bump, kick, word, work};

/// Where the program stands between two calls of `run`.
#[derive(Clone, Copy, Debug)]
enum At {
    Round,
    /// Is about to take the lock of its level.
    Acquire,
    /// Has taken it, and the one within it if there is one.
    Section {
        waited: u64,
    },
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
    /// Answers questions about its clock: the number of the last one, and how often
    /// it looks for another before it halts.
    Questions {
        answered: u64,
        looks: u64,
    },
    Sleep,
    Slept,
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
    /// While it wants or has the inner lock: what the outer one left.
    outer: Option<Outer>,
    at: At,
    rax: u64,
}

/// The outer section, while within the inner one.
#[derive(Clone, Copy, Debug)]
struct Outer {
    ticket: u64,
    waited: u64,
    entered: u64,
}

/// A lock, and what a vCPU waits for it with.
struct Side<'a> {
    lock: VolatileSlice<'a, ()>,
    waiters: VolatileSlice<'a, ()>,
    /// Its node's offset in its result page.
    node: u64,
}

/// The pages of one call, resolved once.
struct Pages<'a> {
    param: VolatileSlice<'a, ()>,
    /// The lock of this level.
    here: Side<'a>,
    /// That of the other level, if there is one.
    other: Option<Side<'a>>,
    result: VolatileSlice<'a, ()>,
    /// Where critical sections are noted, if they are.
    holds: Option<VolatileSlice<'a, ()>>,
    mode: u64,
}

type Result<T> = std::result::Result<T, MemoryError>;

/// A step: where it stands now, and how it left the guest if it did.
type Step = (At, Option<ProgramExit>);

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
        let side = |lock, waiters, node| {
            Ok::<_, MemoryError>(Side {
                lock: memory::slice(&memory, read(&own, lock)?, size)?,
                waiters: memory::slice(&memory, read(&own, waiters)?, table)?,
                node,
            })
        };
        let first = side(result::LOCK, result::TABLE, result_more::NODE)?;
        let inner = match read(&own, result_more::INNER)? {
            0 => None,
            _ => Some(side(
                result_more::INNER,
                result_more::INNER_TABLE,
                result_more::INNER_NODE,
            )?),
        };
        let holds = match read(&param, param_more::HOLDS)? {
            0 => None,
            gpa => Some(memory::slice(
                &memory,
                gpa,
                usize::try_from(NOTES).unwrap_or(usize::MAX),
            )?),
        };
        let mut pages = Pages {
            holds,
            here: first,
            other: inner,
            mode: read(&param, param::MODE)?,
            result: own,
            param,
        };
        let mut level = false;
        loop {
            // Relaxed: the flag only says "return"; what for is read elsewhere.
            if exit_request.load(Ordering::Relaxed) != 0 {
                return Ok(ProgramExit::Interrupted);
            }
            if self.outer.is_some() != level
                && let Some(other) = &mut pages.other
            {
                std::mem::swap(&mut pages.here, other);
                level = !level;
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
            (_, role::LOCKS) => At::Round,
            (_, role::COMPUTES) => At::Compute,
            _ => At::Questions {
                answered: 0,
                looks: 1,
            },
        };
        Ok(Self {
            memory,
            result_page,
            epoch,
            ticket: 0,
            outer: None,
            at,
            rax: 0,
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn step(&mut self, p: &Pages<'_>, exit_request: &AtomicU8) -> Result<Step> {
        match self.at {
            At::Round => Self::on(p, At::Acquire),
            At::Acquire => self.acquire(p),
            At::Section { waited } => self.section(p, waited),
            At::Ticket { ticket, since } => self.spin_ticket(p, ticket, since, exit_request),
            At::TicketHalted { ticket, since } => {
                // Acquire: sees what the holder before wrote under the lock (its
                // swap of SERVING publishes it).
                if word(&p.here.lock, lock::SERVING)?.load(Ordering::Acquire) != ticket {
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
                let state = word(&p.result, p.here.node + node::STATE)?;
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
                self.book(p, waited)
            }
            At::Compute => {
                work(COMPUTE_ROUNDS);
                bump(&p.result, result_more::BACKGROUND)?;
                Self::on(p, At::Compute)
            }
            At::Questions { answered, looks } => self.answer(p, answered, looks),
            At::Sleep => Self::sleep(p),
            At::Slept => self.slept(p),
            At::Calibrate => self.calibrate(p),
            At::Off => Ok((At::Off, Some(ProgramExit::Halt))),
        }
    }

    fn calibrate(&self, p: &Pages<'_>) -> Result<Step> {
        let serving = word(&p.here.lock, lock::SERVING)?;
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
