//! Virtual time: what is to happen, in its order.

use std::cmp::Reverse;

use super::World;
use super::thread::Answer;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Event {
    /// A pCPU's thread is through with what it does, or with its slice.
    Pcpu { pcpu: usize, change: u64 },
    /// A thread's deadline.
    Timer { thread: usize, sleep: u64 },
    /// A wake-up arrives.
    Wake { thread: usize },
    /// An idle pCPU looks for work elsewhere.
    Steal { pcpu: usize, change: u64 },
    /// Something outside of the host.
    Outside(usize),
}

/// What happens next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Next {
    /// This thread goes on.
    Thread(usize, Answer),
    /// This event from outside is due.
    Outside(usize),
    /// Nothing ever happens again.
    Nothing,
}

impl World {
    pub(super) fn after(&mut self, ns: u64, event: Event) {
        self.count += 1;
        self.events
            .push(Reverse((self.now + ns, self.count, event)));
    }

    pub(crate) fn outside_after(&mut self, ns: u64, n: usize) {
        self.after(ns, Event::Outside(n));
    }

    /// Lets time pass until a thread or the outside has something to do.
    pub(crate) fn next(&mut self) -> Next {
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            self.now = at;
            match event {
                Event::Pcpu { pcpu, change } if self.pcpus[pcpu].changes == change => {
                    if let Some(next) = self.advance(pcpu) {
                        return next;
                    }
                }
                Event::Timer { thread, sleep } if self.threads[thread].sleeps == sleep => {
                    self.wake_now(thread, Answer::DeadlinePassed);
                }
                Event::Wake { thread } => self.arrive(thread),
                Event::Steal { pcpu, change } if self.pcpus[pcpu].changes == change => {
                    self.steal(pcpu);
                }
                Event::Outside(n) => return Next::Outside(n),
                Event::Pcpu { .. } | Event::Timer { .. } | Event::Steal { .. } => {}
            }
        }
        Next::Nothing
    }
}
