//! Wakes a VM's sleeping vCPUs, as a timer or a device would, and tells when by
//! their own clocks.
//!
//! A guest's TSC is the host's plus some constant (or it is the host's: not every
//! KVM can offset it, whatever its ioctls say). So the host asks each vCPU
//! for its time before the first sleep: a question is a number in a word of
//! the vCPU's page, the answer its time in another. The question with the
//! shortest way to and fro tells the constant to half of that way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pv_lock_host::ApicId;
use vm_memory::{Bytes as _, GuestAddress};

use crate::kicks::Kicks;
use crate::memory::{GuestMemory, MemoryError};
use crate::payload::image::result_page;
use crate::payload::waiters::clock::HostClock;
use crate::payload::waiters::layout::{NO_MORE, result_more};
use crate::vm::VmParts;

/// How often each of them is woken.
const PERIOD: Duration = Duration::from_millis(2);
/// A constant known this well is good enough; wake-ups take tens of
/// microseconds.
const ENOUGH: Duration = Duration::from_micros(2);
/// One known worse is not used.
const USELESS: Duration = Duration::from_micros(20);
/// How long a good answer is waited for, for each of them.
const ASKING: Duration = Duration::from_millis(100);
/// How long an answer of any use is waited for, for each of them: a vCPU that shares
/// its pCPU with others may be between two time slices most of the time, and no wake-up
/// of the repetition has a latency without its clock.
const ASKING_LONGER: Duration = Duration::from_secs(1);
/// How long an answer is waited for: a vCPU that is not on a pCPU gives
/// none.
const ANSWER: Duration = Duration::from_millis(1);

/// Why sleeping vCPUs can't be woken.
#[derive(Debug, thiserror::Error)]
pub enum WakerError {
    /// Their words are not in guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Their thread can't be had.
    #[error("the thread that wakes sleeping vCPUs: {0}")]
    Thread(#[from] std::io::Error),
}

/// Wakes vCPUs until it is dropped.
#[derive(Debug)]
pub(super) struct Waker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    error_ns: Option<u64>,
}

impl Waker {
    /// From now on, those with these indexes; nothing if there are none.
    pub(super) fn begin(
        parts: &VmParts,
        indexes: Vec<u32>,
        clock: HostClock,
    ) -> Result<Option<Self>, WakerError> {
        if indexes.is_empty() {
            return Ok(None);
        }
        let mut sleepers = Vec::new();
        let mut worst = 0.0;
        let second = parts.clock_hz as f64;
        for index in indexes {
            let words = Words {
                memory: Arc::clone(&parts.memory),
                page: result_page(index),
            };
            let ticks = |time: Duration| time.as_secs_f64() * second;
            let (ahead, error) = words.ask(clock, ticks(ENOUGH), ticks(USELESS))?;
            words.set(result_more::QUESTION, NO_MORE)?;
            worst = f64::max(worst, error / second);
            let id = usize::try_from(index).ok();
            let id = id.and_then(|index| parts.apic_ids.get(index)).copied();
            sleepers.extend(id.map(|id| Sleeper { words, id, ahead }));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (kicks, stopped) = (parts.kicks.clone(), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("waker".to_string())
            .spawn(move || wake(&sleepers, &kicks, clock, &stopped))?;
        Ok(Some(Self {
            stop,
            thread: Some(thread),
            error_ns: Duration::try_from_secs_f64(worst)
                .ok()
                .filter(|error| *error <= USELESS)
                .and_then(|error| u64::try_from(error.as_nanos()).ok()),
        }))
    }

    /// How well it knows the vCPUs' clocks, if it knows them.
    pub(super) const fn error_ns(&self) -> Option<u64> {
        self.error_ns
    }
}

impl Drop for Waker {
    fn drop(&mut self) {
        // Relaxed: the thread has nothing to see but the flag.
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported already.
            let _ = thread.join();
        }
    }
}

struct Sleeper {
    words: Words,
    id: ApicId,
    /// Ticks by which its clock is ahead of the host's, modulo 2^64.
    ahead: u64,
}

/// One after the other, so that the wake-ups are spread over the period.
fn wake(sleepers: &[Sleeper], kicks: &Kicks, clock: HostClock, stop: &AtomicBool) {
    let step = PERIOD / u32::try_from(sleepers.len()).unwrap_or(1).max(1);
    let mut due = Instant::now();
    for sleeper in sleepers.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        due += step;
        let now = Instant::now();
        // What was missed stays missed: a burst is no period.
        due = due.max(now.checked_sub(PERIOD).unwrap_or(now));
        std::thread::sleep(due.saturating_duration_since(now));
        // It has not seen the last one yet: that one's time goes on.
        let Ok(0) = sleeper.words.get(result_more::WOKEN) else {
            continue;
        };
        // 0 is no time.
        let at = clock.now().wrapping_add(sleeper.ahead).max(1);
        if sleeper.words.set(result_more::WOKEN, at).is_ok() {
            kicks.kick(sleeper.id);
        }
    }
}

/// A vCPU's words, written and read while it runs.
struct Words {
    memory: Arc<GuestMemory>,
    page: u64,
}

impl Words {
    fn get(&self, offset: u64) -> Result<u64, MemoryError> {
        let at = GuestAddress(self.page + offset);
        // Acquire: ANSWERED publishes ANSWER.
        let word: u64 = self.memory.load(at, Ordering::Acquire)?;
        Ok(u64::from_le(word))
    }

    fn set(&self, offset: u64, value: u64) -> Result<(), MemoryError> {
        let at = GuestAddress(self.page + offset);
        // Release: WOKEN is written before the kick that makes the vCPU look at
        // it, whose own word orders the two.
        Ok(self.memory.store(value.to_le(), at, Ordering::Release)?)
    }

    /// By how many ticks the vCPU's clock is ahead of `clock`, and the error of
    /// that. Asks until the error is `enough`; when that takes long, until it is below
    /// `useless` or the time is over.
    fn ask(&self, clock: HostClock, enough: f64, useless: f64) -> Result<(u64, f64), MemoryError> {
        let begin = Instant::now();
        let mut best = (0, f64::INFINITY);
        for question in 1..NO_MORE {
            let limit = Instant::now() + ANSWER;
            let asked = clock.now();
            self.set(result_more::QUESTION, question)?;
            let mut answered = false;
            while !answered && Instant::now() < limit {
                answered = self.get(result_more::ANSWERED)? == question;
            }
            let way = clock.now().saturating_sub(asked);
            let error = way as f64 / 2.0;
            if answered && error < best.1 {
                let middle = asked.wrapping_add(way / 2);
                best = (self.get(result_more::ANSWER)?.wrapping_sub(middle), error);
            }
            // Some more than one, as the first is a cold one.
            let took = begin.elapsed();
            let wanted = if took < ASKING { enough } else { useless };
            if took >= ASKING_LONGER || (question > 20 && best.1 <= wanted) {
                break;
            }
        }
        Ok(best)
    }
}
