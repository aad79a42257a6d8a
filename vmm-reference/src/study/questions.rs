//! By how much a vCPU's clock is ahead of the host's.
//!
//! A guest's TSC is the host's plus some constant (or it is the host's: not every
//! KVM can offset it, whatever its ioctls say). So the host asks each vCPU
//! for its time before the first sleep: a question is a number in a word of
//! the vCPU's page, the answer its time in another. The answer was read between the
//! question and the moment at which the host saw it, which bounds the constant on
//! both sides; questions come until the bounds are near each other.
//!
//! They come in bursts, each of which begins with a kick, and both sides sleep between
//! two. On a host with more vCPUs than pCPUs one that waited for questions by spinning
//! would spend its time slices like all others, and seldom run at the same time as the
//! host's thread, which spins for answers. Who has slept is put on a pCPU at once, for
//! as long as a burst takes. Each burst is asked from the next pCPU: a vCPU that the
//! kernel puts on the asker's own answers while that one does not run.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use vm_memory::{Bytes as _, GuestAddress};

use crate::memory::{GuestMemory, MemoryError};
use crate::payload::waiters::clock::HostClock;
use crate::payload::waiters::layout::{NO_MORE, result_more};
use crate::signals::ending;

/// A constant known this well is good enough; wake-ups take tens of
/// microseconds.
const ENOUGH: Duration = Duration::from_micros(2);
/// One known worse is not used.
pub(super) const USELESS: Duration = Duration::from_micros(20);
/// Bursts of questions until one that is known well enough to be used is good enough.
const BURSTS: u32 = 4;
/// Questions of a burst: it is over before the vCPU's time slice is.
const QUESTIONS: u32 = 16;
/// How long each of them is asked: no wake-up of the repetition has a latency without
/// every clock.
const ASKING: Duration = Duration::from_secs(1);
/// How long an answer is waited for: a vCPU that is not on a pCPU gives
/// none.
const ANSWER: Duration = Duration::from_millis(1);
/// How long this thread sleeps between two bursts.
const BETWEEN: Duration = Duration::from_millis(1);

/// A vCPU's words, written and read while it runs.
pub(super) struct Words {
    pub(super) memory: Arc<GuestMemory>,
    pub(super) page: u64,
}

impl Words {
    pub(super) fn get(&self, offset: u64) -> Result<u64, MemoryError> {
        let at = GuestAddress(self.page + offset);
        // Acquire: ANSWERED publishes ANSWER.
        let word: u64 = self.memory.load(at, Ordering::Acquire)?;
        Ok(u64::from_le(word))
    }

    pub(super) fn set(&self, offset: u64, value: u64) -> Result<(), MemoryError> {
        let at = GuestAddress(self.page + offset);
        // Release: WOKEN is written before the kick that makes the vCPU look at
        // it, whose own word orders the two.
        Ok(self.memory.store(value.to_le(), at, Ordering::Release)?)
    }

    /// By how many ticks the vCPU's clock is ahead of `clock`, which has `hz` of them a
    /// second. Asks until the error is small; after some bursts, until it is of use or
    /// the time is over. `kick` kicks the vCPU, which begins to sleep then.
    pub(super) fn ask(
        &self,
        clock: HostClock,
        hz: f64,
        kick: impl Fn(),
    ) -> Result<Ahead, MemoryError> {
        let begin = Instant::now();
        let mut known = Ahead::default();
        let mut question = 0;
        let mut turns = Turns::begin();
        for burst in 1u32.. {
            turns.next();
            std::thread::sleep(BETWEEN);
            for nth in 0..QUESTIONS {
                question += 1;
                let limit = Instant::now() + ANSWER;
                let asked = clock.now();
                self.set(result_more::QUESTION, question)?;
                if nth == 0 {
                    kick();
                }
                let mut answered = false;
                while !answered && Instant::now() < limit {
                    answered = self.get(result_more::ANSWERED)? == question;
                }
                if !answered {
                    break;
                }
                known.learn(asked, self.get(result_more::ANSWER)?, clock.now());
            }
            let wanted = if burst < BURSTS { ENOUGH } else { USELESS };
            if known.error() <= wanted.as_secs_f64() * hz
                || begin.elapsed() >= ASKING
                || ending::is_asked()
            {
                break;
            }
        }
        self.set(result_more::QUESTION, NO_MORE)?;
        kick();
        Ok(known)
    }
}

/// What is known of the ticks by which a vCPU's clock is ahead of the host's, modulo
/// 2^64: that they lie between these two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ahead(Option<(u64, u64)>);

impl Ahead {
    /// The vCPU read `answer` between these two times of the host.
    const fn learn(&mut self, before: u64, answer: u64, after: u64) {
        let (low, high) = (answer.wrapping_sub(after), answer.wrapping_sub(before));
        self.0 = Some(match self.0 {
            None => (low, high),
            Some((lowest, highest)) => (
                if is_above(low, lowest) { low } else { lowest },
                if is_above(highest, high) {
                    high
                } else {
                    highest
                },
            ),
        });
    }

    /// Half of what is between the bounds; infinite if nothing is known, or if the
    /// answers contradict each other, as those of TSCs that are not synchronous.
    pub(super) fn error(self) -> f64 {
        match self.0 {
            Some((low, high)) if !is_above(low, high) => high.wrapping_sub(low) as f64 / 2.0,
            _ => f64::INFINITY,
        }
    }

    /// The middle of it; 0 if nothing is known.
    pub(super) fn middle(self) -> u64 {
        self.0.map_or(0, |(low, high)| {
            low.wrapping_add(high.wrapping_sub(low) / 2)
        })
    }
}

/// Whether `a` is above `b`, modulo 2^64.
const fn is_above(a: u64, b: u64) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

/// This thread on one pCPU after the other, and where it was allowed to be when this is
/// dropped. Where that is refused it stays where it is.
struct Turns {
    before: Option<CpuSet>,
    pcpus: std::iter::Cycle<std::vec::IntoIter<usize>>,
}

impl Turns {
    fn begin() -> Self {
        let before = sched_getaffinity(None).ok();
        let is_in = |&pcpu: &usize| before.is_some_and(|all| all.is_set(pcpu));
        let pcpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(is_in).collect();
        Self {
            before,
            pcpus: pcpus.into_iter().cycle(),
        }
    }

    fn next(&mut self) {
        if let Some(pcpu) = self.pcpus.next() {
            let mut one = CpuSet::new();
            one.set(pcpu);
            let _ = sched_setaffinity(None, &one);
        }
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            let _ = sched_setaffinity(None, &before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of clocks with known constants, answered at known moments.
    #[test]
    fn answers_bound_the_constant_from_both_sides() {
        for ahead in [0, 1 << 40, 5_u64.wrapping_neg(), 1 << 63] {
            let mut known = Ahead::default();
            assert_eq!((known.error(), known.middle()), (f64::INFINITY, 0));
            // (asked, read, seen): late to be read, late to be seen, both.
            for (asked, read, seen) in [(100, 180, 182), (300, 303, 390), (500, 570, 590)] {
                known.learn(asked, ahead.wrapping_add(read), seen);
            }
            // At most 2 after the reading, at most 3 before it.
            assert_eq!(known.error(), 2.5, "{ahead}");
            let off = known.middle().wrapping_sub(ahead).cast_signed();
            assert!((-2..=3).contains(&off), "{ahead}: {off}");
        }
    }

    #[test]
    fn answers_that_contradict_each_other_tell_nothing() {
        let mut known = Ahead::default();
        known.learn(100, 1_000, 110);
        known.learn(200, 2_000, 210);
        assert_eq!(known.error(), f64::INFINITY);
    }
}
