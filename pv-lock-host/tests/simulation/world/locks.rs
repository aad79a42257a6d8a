//! The guests' locks, as far as the host has to know them: who spins until its
//! ticket is served stops spinning then.

use std::collections::HashMap;

use super::World;
use super::thread::{Answer, At, Doing};

/// A cache line from one pCPU to another.
const TRANSFER: u64 = 100;

/// A ticket lock in guest memory.
#[derive(Debug, Default)]
pub(crate) struct Lock {
    pub(crate) next: u64,
    pub(crate) serving: u64,
    /// By vCPU: the ticket it has halted for.
    pub(crate) halted_for: HashMap<u64, usize>,
    pub(crate) holder: Option<usize>,
    /// When it was last released.
    pub(crate) released: u64,
    /// The longest from a release until the next of the queue had it.
    pub(crate) longest_pass: u64,
    pub(crate) taken: u64,
}

impl World {
    /// The lock serves the next ticket.
    pub(crate) fn serve(&mut self, lock: usize) -> u64 {
        self.locks[lock].serving += 1;
        self.locks[lock].released = self.now;
        let serving = self.locks[lock].serving;
        let waits = Doing::Spin {
            lock,
            ticket: serving,
        };
        if let Some(thread) = self.threads.iter().position(|t| t.doing == waits)
            && let At::Runs(pcpu) = self.threads[thread].at
        {
            self.account(pcpu);
            self.look(thread);
            self.arm(pcpu);
        }
        serving
    }

    /// A thread that spins and finds itself served is through.
    pub(super) fn look(&mut self, thread: usize) {
        let t = &mut self.threads[thread];
        if let Doing::Spin { lock, ticket } = t.doing
            && self.locks[lock].serving == ticket
        {
            (t.doing, t.left) = (Doing::Ready(Answer::Done), TRANSFER);
        }
    }
}
