//! pCPUs: who runs, for how long, and who is next.

use super::events::{Event, Next};
use super::thread::{Answer, At, Doing};
use super::{US, World};

/// From one thread to another on a pCPU.
const SWITCH: u64 = 2 * US;

#[derive(Debug)]
pub(super) struct Pcpu {
    pub(super) runs: Option<usize>,
    /// Who ran last.
    pub(super) last: usize,
    /// Up to when its thread's time is accounted.
    pub(super) since: u64,
    pub(super) slice_end: u64,
    /// Events of earlier states are void.
    pub(super) changes: u64,
    pub(super) idle_since: Option<u64>,
    /// Since when it idles while somebody is held.
    pub(super) wasted_since: Option<u64>,
}

impl Pcpu {
    /// One that has idled from the beginning.
    pub(super) const fn new() -> Self {
        Self {
            runs: None,
            last: usize::MAX,
            since: 0,
            slice_end: 0,
            changes: 0,
            idle_since: Some(0),
            wasted_since: None,
        }
    }
}

impl World {
    /// A pCPU without a thread takes the next one, or idles.
    pub(super) fn dispatch(&mut self, pcpu: usize) {
        let queue = self.queue_of(pcpu);
        if self.queues[queue].is_empty() {
            let now = self.now;
            let idle = &mut self.pcpus[pcpu];
            idle.changes += 1;
            idle.idle_since = Some(now);
            if self.held > 0 {
                self.pcpus[pcpu].wasted_since = Some(now);
            }
            self.looks_later(pcpu);
        } else {
            let thread = self.least(queue);
            self.take(pcpu, thread);
        }
    }

    /// A waiting thread runs on this pCPU, which has none.
    pub(super) fn take(&mut self, pcpu: usize, thread: usize) {
        let At::Waits(queue) = self.threads[thread].at else {
            panic!("{thread} does not wait");
        };
        self.queues[queue].retain(|&other| other != thread);
        self.threads[thread].at = At::Runs(pcpu);
        self.migrate(thread, pcpu);
        let queue = self.queue_of(pcpu);
        self.least_runtime[queue] = self.least_runtime[queue].max(self.threads[thread].runtime);
        self.wasted(pcpu);
        let now = self.now;
        let p = &mut self.pcpus[pcpu];
        let switch = if p.last == thread { 0 } else { SWITCH };
        p.runs = Some(thread);
        p.last = thread;
        p.since = now + switch;
        p.slice_end = p.since + self.host.slice;
        p.idle_since = None;
        self.trace =
            (self.trace ^ now ^ ((thread as u64) << 48)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.look(thread);
    }

    /// The pCPU's thread goes back to the run queue.
    pub(super) fn requeue(&mut self, pcpu: usize) {
        self.account(pcpu);
        let queue = self.queue_of(pcpu);
        if let Some(thread) = self.pcpus[pcpu].runs.take() {
            self.threads[thread].at = At::Waits(queue);
            self.threads[thread].home = pcpu;
            self.queues[queue].push(thread);
        }
    }

    /// What the pCPU's thread has run since it was last accounted.
    pub(super) fn account(&mut self, pcpu: usize) {
        let p = &mut self.pcpus[pcpu];
        if let Some(thread) = p.runs
            && self.now > p.since
        {
            let ran = self.now - p.since;
            p.since = self.now;
            let t = &mut self.threads[thread];
            t.runtime += ran;
            t.ran += ran;
            t.left = t.left.saturating_sub(ran);
        }
    }

    /// Sets the pCPU's next event.
    pub(super) fn arm(&mut self, pcpu: usize) {
        let p = &mut self.pcpus[pcpu];
        let Some(thread) = p.runs else {
            return;
        };
        p.changes += 1;
        let change = p.changes;
        let through = p.since.max(self.now) + self.threads[thread].left;
        let at = through.min(p.slice_end.max(self.now));
        self.after(at - self.now, Event::Pcpu { pcpu, change });
    }

    pub(super) fn advance(&mut self, pcpu: usize) -> Option<Next> {
        self.account(pcpu);
        let now = self.now;
        let queue = self.queue_of(pcpu);
        let over = now >= self.pcpus[pcpu].slice_end;
        if over && !self.queues[queue].is_empty() {
            self.requeue(pcpu);
            self.dispatch(pcpu);
            self.arm(pcpu);
            return None;
        }
        let p = &mut self.pcpus[pcpu];
        if over {
            p.slice_end = now + self.host.slice;
        }
        let thread = p.runs.unwrap();
        let t = &mut self.threads[thread];
        if t.left > 0 || p.since > now {
            self.arm(pcpu);
            return None;
        }
        let answer = match t.doing {
            Doing::Work => Answer::Done,
            Doing::Spin { .. } => Answer::NotServed,
            Doing::Ready(answer) => answer,
        };
        Some(Next::Thread(thread, answer))
    }
}
