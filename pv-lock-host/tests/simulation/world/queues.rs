//! Run queues: where a thread waits that may run, and which pCPU takes it.

use super::events::Event;
use super::thread::At;
use super::{MS, World};

/// How much less runtime one that wakes up must have than one that runs, to take
/// its pCPU.
const PREEMPTS: u64 = MS;

impl World {
    pub(super) fn queue_of(&self, pcpu: usize) -> usize {
        if self.host.sticky { pcpu } else { 0 }
    }

    /// One that has woken up comes to a pCPU or a run queue.
    pub(super) fn arrive(&mut self, thread: usize) {
        // It keeps less runtime than the others, though not by much.
        let home = self.threads[thread].home;
        let queue = self.queue_of(home);
        let floor = self.least_runtime[queue].saturating_sub(self.host.slice);
        let t = &mut self.threads[thread];
        t.runtime = t.runtime.max(floor);
        let runtime = t.runtime;
        let longest = (self.pcpus.iter().zip(0..))
            .filter_map(|(pcpu, n)| Some((pcpu.idle_since?, n)))
            .min();
        let sticks = self.host.sticky && self.random.below(4) == 0;
        let idle = match longest {
            _ if self.host.sticky && self.pcpus[home].idle_since.is_some() => Some(home),
            Some(_) if sticks => None,
            longest => longest.map(|(_, n)| n),
        };
        self.threads[thread].at = At::Waits(queue);
        self.queues[queue].push(thread);
        if let Some(pcpu) = idle {
            self.take(pcpu, thread);
            self.arm(pcpu);
            return;
        }
        // It may take the place of the one that has had most.
        let victims = if self.host.sticky {
            home..home + 1
        } else {
            0..self.pcpus.len()
        };
        victims.clone().for_each(|pcpu| self.account(pcpu));
        let most = victims
            .filter_map(|pcpu| Some((self.threads[self.pcpus[pcpu].runs?].runtime, pcpu)))
            .max();
        match most {
            Some((most, pcpu)) if most > runtime + PREEMPTS => {
                self.requeue(pcpu);
                self.take(pcpu, thread);
                self.arm(pcpu);
            }
            // A slice that nobody waited for ends at its next end.
            _ => {}
        }
    }

    pub(super) fn least(&self, queue: usize) -> usize {
        let least = self.queues[queue].iter().copied();
        least.min_by_key(|&n| (self.threads[n].runtime, n)).unwrap()
    }

    pub(super) fn looks_later(&mut self, pcpu: usize) {
        if self.host.sticky {
            let change = self.pcpus[pcpu].changes;
            let after = MS + self.random.below(3 * MS);
            self.after(after, Event::Steal { pcpu, change });
        }
    }

    pub(super) fn steal(&mut self, pcpu: usize) {
        let longest = (0..self.queues.len()).max_by_key(|&n| self.queues[n].len());
        if let Some(queue) = longest.filter(|&n| !self.queues[n].is_empty()) {
            let thread = self.least(queue);
            self.take(pcpu, thread);
        } else {
            self.looks_later(pcpu);
        }
        self.arm(pcpu);
    }

    /// The thread is taken out of its run queue to that of `here`.
    pub(crate) fn pull(&mut self, thread: usize, here: usize) {
        if let (true, At::Waits(queue)) = (self.host.sticky, self.threads[thread].at) {
            self.queues[queue].retain(|&other| other != thread);
            self.queues[here].push(thread);
            self.threads[thread].at = At::Waits(here);
            self.migrate(thread, here);
        }
    }

    /// Run queues count from where they are: what it is ahead or behind in one it
    /// is in the other.
    pub(super) fn migrate(&mut self, thread: usize, to: usize) {
        let home = std::mem::replace(&mut self.threads[thread].home, to);
        let (from, to) = (self.queue_of(home), self.queue_of(to));
        let t = &mut self.threads[thread];
        t.runtime = (t.runtime + self.least_runtime[to]).saturating_sub(self.least_runtime[from]);
    }
}
