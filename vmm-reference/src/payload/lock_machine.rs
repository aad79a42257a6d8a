//! The lock program as a state machine: the hosted backend's guest.
//!
//! It is the program of [`super::lock_code`], step by step, on the same pages of
//! guest memory, at the host's native speed. Where the machine code leaves the
//! guest (HLT, a hypercall, the exit port), its `run` returns, and the
//! next call goes on behind that instruction.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use vm_memory::VolatileSlice;

use super::image::PARAM_PAGE;
use super::layout::{lock, mode, param, result, waiter};
use super::machine::{bump, kick, word, work};
use crate::backend::hosted::{Program, ProgramExit};
use crate::memory::{self, GuestMemory, MemoryError};

/// Where the program stands between two calls of `run`.
#[derive(Clone, Copy, Debug)]
enum At {
    Round,
    Spin { ticket: u64, since: u64 },
    Halted { ticket: u64, since: u64 },
    Kicked { waited: u64 },
    Calibrate,
    Off,
}

/// One vCPU's run of the lock program.
#[derive(Debug)]
pub struct LockMachine {
    memory: Arc<GuestMemory>,
    result_page: u64,
    epoch: Instant,
    at: At,
    rax: u64,
}

/// The pages of one call, resolved once.
struct Pages<'a> {
    param: VolatileSlice<'a, ()>,
    lock: VolatileSlice<'a, ()>,
    waiters: VolatileSlice<'a, ()>,
    result: VolatileSlice<'a, ()>,
}

type Result<T> = std::result::Result<T, MemoryError>;

impl Program for LockMachine {
    /// The flag is looked at wherever the program could stay for long.
    fn run(&mut self, exit_request: &AtomicU8) -> Result<ProgramExit> {
        let memory = Arc::clone(&self.memory);
        let param = memory::slice(&memory, PARAM_PAGE, 0x1000)?;
        // Relaxed, here and below, for words the host wrote before the start.
        let gpa = |offset| Ok::<_, MemoryError>(word(&param, offset)?.load(Ordering::Relaxed));
        let entries = gpa(param::WAITER_MASK)? + 1;
        let table = usize::try_from(entries * waiter::SIZE).unwrap_or(usize::MAX);
        let pages = Pages {
            lock: memory::slice(&memory, gpa(param::LOCK)?, 0x1000)?,
            waiters: memory::slice(&memory, gpa(param::WAITERS)?, table)?,
            result: memory::slice(&memory, self.result_page, 0x1000)?,
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

impl LockMachine {
    /// The program at its entry. `epoch` is what TSC 0 is to a real guest: the
    /// same for all vCPUs.
    pub fn new(memory: Arc<GuestMemory>, result_page: u64, epoch: Instant) -> Result<Self> {
        let page = memory::slice(&memory, PARAM_PAGE, 0x1000)?;
        // Relaxed: the host wrote it before this vCPU's thread began.
        let at = match word(&page, param::MODE)?.load(Ordering::Relaxed) {
            mode::CALIBRATE => At::Calibrate,
            _ => At::Round,
        };
        Ok(Self {
            memory,
            result_page,
            epoch,
            at,
            rax: 0,
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn step(&self, p: &Pages<'_>, exit_request: &AtomicU8) -> Result<(At, Option<ProgramExit>)> {
        // Relaxed: parameters do not change but for STOP, which orders nothing.
        let read = |offset| Ok::<_, MemoryError>(word(&p.param, offset)?.load(Ordering::Relaxed));
        let serving = word(&p.lock, lock::SERVING)?;
        match self.at {
            At::Round => {
                if read(param::STOP)? != 0 {
                    return self.off(p);
                }
                let since = self.now();
                // AcqRel: a ticket is drawn once; what the lock protects is
                // published by SERVING, below.
                let ticket = word(&p.lock, lock::NEXT)?.fetch_add(1, Ordering::AcqRel);
                if serving.load(Ordering::Acquire) == ticket {
                    return self.critical(p, ticket, since);
                }
                Ok((At::Spin { ticket, since }, None))
            }
            At::Spin { ticket, since } => {
                let mut rounds = read(param::THRESHOLD)?;
                loop {
                    spin_loop();
                    // Acquire: sees what the holder before wrote under the lock
                    // (its swap of SERVING publishes it).
                    if serving.load(Ordering::Acquire) == ticket {
                        return self.critical(p, ticket, since);
                    }
                    if exit_request.load(Ordering::Relaxed) != 0 {
                        return Ok((At::Spin { ticket, since }, None));
                    }
                    rounds = rounds.saturating_sub(1);
                    if rounds == 0 {
                        break;
                    }
                }
                if read(param::MODE)? == mode::PV {
                    return self.slow_path(p, ticket, since);
                }
                self.spin_on(p, ticket, since)
            }
            At::Halted { ticket, since } => {
                // Acquire: as in Spin.
                if serving.load(Ordering::Acquire) != ticket {
                    return self.spin_on(p, ticket, since);
                }
                self.unpublish(p, ticket)?;
                self.critical(p, ticket, since)
            }
            At::Kicked { waited } => {
                bump(&p.result, result::KICKS)?;
                if self.rax != 0 {
                    bump(&p.result, result::KICK_ERRORS)?;
                }
                self.book(p, waited)
            }
            At::Calibrate => self.calibrate(p),
            At::Off => Ok((At::Off, Some(ProgramExit::Halt))),
        }
    }

    fn entry(&self, p: &Pages<'_>, ticket: u64) -> Result<u64> {
        let mask = word(&p.param, param::WAITER_MASK)?.load(Ordering::Relaxed);
        Ok((ticket & mask) * waiter::SIZE)
    }

    fn slow_path(
        &self,
        p: &Pages<'_>,
        ticket: u64,
        since: u64,
    ) -> Result<(At, Option<ProgramExit>)> {
        let entry = self.entry(p, ticket)?;
        let own = word(&p.result, result::APIC_ID)?.load(Ordering::Relaxed);
        // Relaxed: published by the swap below, read by the unlocker after it
        // has seen the ticket.
        word(&p.waiters, entry + waiter::APIC_ID)?.store(own, Ordering::Relaxed);
        // SeqCst pair with the unlocker's swap of SERVING: either it sees this
        // ticket, or the load below sees its SERVING.
        word(&p.waiters, entry + waiter::TICKET)?.swap(ticket + 1, Ordering::SeqCst);
        if word(&p.lock, lock::SERVING)?.load(Ordering::SeqCst) == ticket {
            self.unpublish(p, ticket)?;
            return self.critical(p, ticket, since);
        }
        bump(&p.result, result::HALTS)?;
        Ok((At::Halted { ticket, since }, Some(ProgramExit::Halt)))
    }

    fn spin_on(&self, p: &Pages<'_>, ticket: u64, since: u64) -> Result<(At, Option<ProgramExit>)> {
        if word(&p.param, param::STOP)?.load(Ordering::Relaxed) != 0 {
            return self.off(p);
        }
        Ok((At::Spin { ticket, since }, None))
    }

    fn unpublish(&self, p: &Pages<'_>, ticket: u64) -> Result<()> {
        let entry = self.entry(p, ticket)?;
        // Relaxed: a late reader kicks a vCPU that runs, which is allowed.
        word(&p.waiters, entry + waiter::TICKET)?.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// The critical section and the unlock.
    fn critical(
        &self,
        p: &Pages<'_>,
        ticket: u64,
        since: u64,
    ) -> Result<(At, Option<ProgramExit>)> {
        let waited = self.now().saturating_sub(since);
        let own = word(&p.result, result::APIC_ID)?.load(Ordering::Relaxed) + 1;
        // Relaxed: under the lock; SERVING publishes all of it.
        let owner = word(&p.lock, lock::OWNER)?;
        if owner.load(Ordering::Relaxed) != 0 {
            bump(&p.result, result::VIOLATIONS)?;
        }
        owner.store(own, Ordering::Relaxed);
        let counter = word(&p.lock, lock::COUNTER)?;
        let value = counter.load(Ordering::Relaxed);
        work(word(&p.param, param::HOLD)?.load(Ordering::Relaxed));
        counter.store(value + 1, Ordering::Relaxed);
        if owner.load(Ordering::Relaxed) != own {
            bump(&p.result, result::VIOLATIONS)?;
        }
        owner.store(0, Ordering::Relaxed);

        // SeqCst: publishes the section to the next holder, and pairs with the
        // waiter's swap in `slow_path`.
        word(&p.lock, lock::SERVING)?.swap(ticket + 1, Ordering::SeqCst);
        let entry = self.entry(p, ticket + 1)?;
        let sleeper = word(&p.waiters, entry + waiter::TICKET)?.load(Ordering::SeqCst);
        let pv = word(&p.param, param::MODE)?.load(Ordering::Relaxed) == mode::PV;
        if pv && sleeper == ticket + 2 {
            // Relaxed: written before the ticket just seen.
            let apic_id = word(&p.waiters, entry + waiter::APIC_ID)?.load(Ordering::Relaxed);
            return Ok((At::Kicked { waited }, Some(kick(apic_id))));
        }
        self.book(p, waited)
    }

    fn book(&self, p: &Pages<'_>, waited: u64) -> Result<(At, Option<ProgramExit>)> {
        bump(&p.result, result::ACQUISITIONS)?;
        bump(
            &p.result,
            result::HISTOGRAM + 8 * result::bucket(waited) as u64,
        )?;
        work(word(&p.param, param::THINK)?.load(Ordering::Relaxed));
        Ok((At::Round, None))
    }

    fn calibrate(&self, p: &Pages<'_>) -> Result<(At, Option<ProgramExit>)> {
        let serving = word(&p.lock, lock::SERVING)?;
        let since = self.now();
        for _ in 0..word(&p.param, param::THRESHOLD)?.load(Ordering::Relaxed) {
            spin_loop();
            if serving.load(Ordering::Acquire) == u64::MAX {
                break;
            }
        }
        let ticks = self.now() - since;
        word(&p.result, result::CALIBRATION)?.store(ticks, Ordering::Relaxed);
        self.off(p)
    }

    fn off(&self, p: &Pages<'_>) -> Result<(At, Option<ProgramExit>)> {
        word(&p.result, result::DONE)?.store(1, Ordering::Relaxed);
        Ok((At::Off, Some(ProgramExit::ExitPort(0))))
    }
}
