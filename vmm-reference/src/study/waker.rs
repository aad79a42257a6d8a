//! Wakes a VM's sleeping vCPUs, as a timer or a device would, and tells when by
//! their own clocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pv_lock_host::ApicId;

use super::questions::{USELESS, Words};
use crate::kicks::Kicks;
use crate::memory::MemoryError;
use crate::payload::image::result_page;
use crate::payload::waiters::clock::HostClock;
use crate::payload::waiters::layout::result_more;
use crate::vm::VmParts;

/// How often each of them is woken.
const PERIOD: Duration = Duration::from_millis(2);

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
            let id = usize::try_from(index).ok();
            let Some(&id) = id.and_then(|index| parts.apic_ids.get(index)) else {
                continue;
            };
            let known = words.ask(clock, second, || {
                parts.kicks.kick(id);
            })?;
            worst = f64::max(worst, known.error() / second);
            let ahead = known.middle();
            sleepers.push(Sleeper { words, id, ahead });
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
