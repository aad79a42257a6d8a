//! Where the time of a VM's vCPU threads goes, as the kernel counts it: the
//! thread's `schedstat` (run time and run delay; proc(5)), and what the
//! scheduler held.

use std::fs::File;
use std::ops::AddAssign;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use rustix::thread::Pid;

/// Reads the threads of one VM.
#[derive(Debug)]
pub struct Meter {
    files: Vec<File>,
    threads: u32,
}

/// Time of some threads so far, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    threads: u32,
    running: u64,
    run_delay: u64,
    held: u64,
}

/// Where their time went between two readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent {
    /// On a pCPU.
    pub running: Duration,
    /// Ready, without one.
    pub run_delay: Duration,
    /// Held back by the scheduler of this process.
    pub held: Duration,
    /// Asleep for any other reason: a halt.
    pub halted: Duration,
}

impl Meter {
    /// Of these threads of this process. A kernel without the file is a thread
    /// without figures.
    pub fn new(threads: &[Pid]) -> Self {
        let path = |thread: &Pid| {
            let id = thread.as_raw_nonzero();
            File::open(format!("/proc/self/task/{id}/schedstat"))
        };
        Self {
            files: threads.iter().filter_map(|t| path(t).ok()).collect(),
            threads: u32::try_from(threads.len()).unwrap_or(u32::MAX),
        }
    }

    /// So far; `held` is what the scheduler counted.
    pub fn read(&self, held: u64) -> Total {
        let mut total = Total {
            threads: self.threads,
            held,
            ..Total::default()
        };
        for file in &self.files {
            let mut text = [0; 64];
            // A thread that has ended has no figures any more.
            let read = file.read_at(&mut text, 0).unwrap_or(0);
            let text = text.get(..read).unwrap_or_default();
            if let Some((running, delay)) = parse(&String::from_utf8_lossy(text)) {
                total.running += running;
                total.run_delay += delay;
            }
        }
        total
    }
}

/// Run time, run delay and number of slices, in nanoseconds.
fn parse(schedstat: &str) -> Option<(u64, u64)> {
    let mut words = schedstat.split_whitespace();
    let mut number = || words.next()?.parse().ok();
    Some((number()?, number()?))
}

impl AddAssign for Total {
    fn add_assign(&mut self, other: Self) {
        self.threads += other.threads;
        self.running += other.running;
        self.run_delay += other.run_delay;
        self.held += other.held;
    }
}

impl Total {
    /// Of so many threads.
    pub const fn threads(&self) -> u32 {
        self.threads
    }

    /// Where the time went in the `time` since `before`: what is neither running
    /// nor waiting nor held is a halt.
    pub fn since(&self, before: &Self, time: Duration) -> Spent {
        let grown = |now: u64, then: u64| Duration::from_nanos(now.saturating_sub(then));
        let running = grown(self.running, before.running);
        let run_delay = grown(self.run_delay, before.run_delay);
        let held = grown(self.held, before.held);
        let all = time.saturating_mul(self.threads);
        Spent {
            running,
            run_delay,
            held,
            halted: all.saturating_sub(running + run_delay + held),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_as_the_kernel_writes_it() {
        assert_eq!(parse("123456 789 12\n"), Some((123_456, 789)));
        assert_eq!(parse("123456"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn what_is_left_is_a_halt() {
        let total = |running, run_delay, held| Total {
            threads: 2,
            running,
            run_delay,
            held,
        };
        let spent = total(700, 250, 40).since(&total(100, 50, 0), Duration::from_nanos(1000));
        let ns = Duration::from_nanos;
        assert_eq!((spent.running, spent.run_delay), (ns(600), ns(200)));
        assert_eq!((spent.held, spent.halted), (ns(40), ns(1160)));
    }
}
