//! What a thread used and what it waited for, while it is measured.

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Whether what the threads do is measured; set by the main thread.
#[derive(Default)]
pub(crate) struct Phase(AtomicU8);

const MEASURES: u8 = 1;
const OVER: u8 = 2;

impl Phase {
    pub(crate) fn measure(&self) {
        // Relaxed, here and below: some rounds more or less.
        self.0.store(MEASURES, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.0.store(OVER, Ordering::Relaxed);
    }
}

/// One thread's own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter {
    phase: u8,
    /// CPU time and run delay when the measurement began.
    began: (Duration, Duration),
    pub(crate) cpu: Duration,
    /// How long it was runnable and did not run.
    pub(crate) delay: Duration,
    pub(crate) rounds: u64,
    /// From when the guest should have run until it did, in ns.
    pub(crate) wakes: Vec<u64>,
}

impl Meter {
    /// Once a round; says whether this one counts.
    pub(crate) fn round(&mut self, phase: &Phase) -> bool {
        let now = phase.0.load(Ordering::Relaxed);
        if now != self.phase {
            match now {
                MEASURES => self.began = used(),
                _ => self.end(),
            }
            self.phase = now;
        }
        let counts = now == MEASURES;
        self.rounds += u64::from(counts);
        counts
    }

    /// The thread is through, wherever the end of the measurement found it.
    pub(crate) fn end(&mut self) {
        if self.phase == MEASURES {
            let (cpu, delay) = used();
            self.cpu = cpu.saturating_sub(self.began.0);
            self.delay = delay.saturating_sub(self.began.1);
            self.phase = OVER;
        }
    }
}

/// CPU time of the calling thread.
pub(crate) fn cpu_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

/// CPU time and run delay (second field of `schedstat`; zero where the kernel
/// does not count it) of the calling thread.
fn used() -> (Duration, Duration) {
    let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let delay = schedstat.split_whitespace().nth(1);
    let delay = delay.and_then(|ns| ns.parse().ok()).unwrap_or(0);
    (cpu_time(), Duration::from_nanos(delay))
}
