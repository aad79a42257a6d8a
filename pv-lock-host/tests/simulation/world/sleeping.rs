//! Sleeps and wake-ups, and what it costs to hold a vCPU while a pCPU idles.

use super::events::Event;
use super::thread::{Answer, At, Doing};
use super::{US, World};

impl World {
    pub(super) fn sleep(&mut self, pcpu: usize, thread: usize, deadline: Option<u64>) {
        let t = &mut self.threads[thread];
        t.at = At::Asleep;
        t.home = pcpu;
        t.sleeps += 1;
        let sleep = t.sleeps;
        if let Some(at) = deadline {
            self.after(at - self.now, Event::Timer { thread, sleep });
        }
        self.pcpus[pcpu].runs = None;
        self.dispatch(pcpu);
    }

    /// Whoever sleeps on this word is woken, in some microseconds.
    pub(crate) fn wake(&mut self, word: usize) {
        if let Some(thread) = self.sleepers.remove(&word) {
            self.awake(thread, Answer::Done);
            let latency = US + self.random.below(4 * US);
            self.after(latency, Event::Wake { thread });
        }
    }

    pub(super) fn wake_now(&mut self, thread: usize, answer: Answer) {
        if let Some(word) = self.threads[thread].word {
            self.sleepers.remove(&word);
        }
        self.awake(thread, answer);
        self.arrive(thread);
    }

    /// The thread sleeps no longer, though it may not run yet.
    pub(super) fn awake(&mut self, thread: usize, answer: Answer) {
        let t = &mut self.threads[thread];
        t.sleeps += 1;
        t.word = None;
        (t.doing, t.left) = (Doing::Ready(answer), 0);
        if let Some(since) = t.held_since.take() {
            t.held += self.now - since;
            self.held -= 1;
            if self.held == 0 {
                (0..self.pcpus.len()).for_each(|pcpu| self.wasted(pcpu));
            }
        }
    }

    pub(crate) fn enters(&mut self, thread: usize, enters: bool) {
        let t = &mut self.threads[thread];
        t.enters = enters;
        if !enters && t.held > 0 {
            self.holds += 1;
            self.longest_hold = self.longest_hold.max(t.held);
            t.held = 0;
        }
    }

    pub(super) fn hold(&mut self) {
        self.held += 1;
        let now = self.now;
        for pcpu in self
            .pcpus
            .iter_mut()
            .filter(|pcpu| pcpu.idle_since.is_some())
        {
            pcpu.wasted_since.get_or_insert(now);
        }
    }

    pub(super) fn wasted(&mut self, pcpu: usize) {
        if let Some(since) = self.pcpus[pcpu].wasted_since.take() {
            self.longest_waste = self.longest_waste.max(self.now - since);
            self.waste += self.now - since;
        }
    }
}
