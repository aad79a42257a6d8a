//! A vCPU that sleeps until the host wakes it, and computes for a moment.

use std::hint::spin_loop;
use std::sync::atomic::Ordering;

use super::{At, Pages, Result, Step, WaiterMachine, bump, param, word};
use crate::backend::hosted::ProgramExit;
use crate::payload::layout::result;
use crate::payload::waiters::layout::{NO_MORE, param_more, result_more};

impl WaiterMachine {
    /// Answers a question about its clock; halts if there is none for a while; begins
    /// to sleep behind the last one.
    pub(super) fn answer(&self, p: &Pages<'_>, answered: u64, looks: u64) -> Result<Step> {
        spin_loop();
        // Acquire: the time is read behind the question.
        let question = word(&p.result, result_more::QUESTION)?.load(Ordering::Acquire);
        if question == NO_MORE {
            // The kick that ended its halt may have been a wake-up already.
            return Self::on(p, At::Slept);
        }
        if question != answered {
            word(&p.result, result_more::ANSWER)?.store(self.now(), Ordering::Relaxed);
            // Release: publishes the answer to the host, which polls this number.
            word(&p.result, result_more::ANSWERED)?.store(question, Ordering::Release);
            let (answered, looks) = (question, param(p, param_more::BURST)?);
            return Self::on(p, At::Questions { answered, looks });
        }
        let (looks, leave) = match looks {
            0 | 1 => (1, Some(ProgramExit::Halt)),
            looks => (looks - 1, None),
        };
        let (next, ended) = Self::on(p, At::Questions { answered, looks })?;
        Ok((next, ended.or(leave)))
    }

    pub(super) fn sleep(p: &Pages<'_>) -> Result<Step> {
        let (next, leave) = Self::on(p, At::Slept)?;
        Ok((next, leave.or(Some(ProgramExit::Halt))))
    }

    pub(super) fn slept(&self, p: &Pages<'_>) -> Result<Step> {
        let now = self.now();
        // Acquire: pairs with the host's store, which its kick follows.
        let woken = word(&p.result, result_more::WOKEN)?.swap(0, Ordering::AcqRel);
        if woken == 0 {
            return Ok((At::Sleep, None));
        }
        bump(&p.result, result_more::WAKES)?;
        let took = now.saturating_sub(woken);
        let bucket = 8 * result::bucket(took) as u64;
        bump(&p.result, result::HISTOGRAM + bucket)?;
        for _ in 0..param(p, param_more::BURST)? {
            spin_loop();
        }
        Ok((At::Sleep, None))
    }
}
