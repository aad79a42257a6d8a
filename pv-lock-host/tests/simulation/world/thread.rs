//! A thread of the host: what it asks for, what it is at, and what it has used.

/// What a thread asks of its host.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Request {
    /// This much time on a pCPU.
    Work(u64),
    /// To look at a lock until it serves this ticket, for so long on a pCPU.
    Spin { lock: usize, ticket: u64, time: u64 },
    /// To sleep on the word at this address.
    Sleep { word: usize, deadline: Option<u64> },
    /// To sleep for so long where no wake-up reaches it.
    Block(u64),
    /// Others may run.
    Yield,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    Done,
    /// It slept until its deadline.
    DeadlinePassed,
    /// It spun for as long as it wanted, and was not served.
    NotServed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum At {
    /// On this pCPU.
    Runs(usize),
    /// In this run queue.
    Waits(usize),
    Asleep,
    Ended,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Doing {
    Work,
    Spin {
        lock: usize,
        ticket: u64,
    },
    /// It goes on with this answer once it is on a pCPU.
    Ready(Answer),
}

#[derive(Debug)]
pub(super) struct Thread {
    pub(super) at: At,
    pub(super) doing: Doing,
    /// Of what it does, so much time on a pCPU is left.
    pub(super) left: u64,
    /// Time on a pCPU, as its run queue counts it.
    pub(super) runtime: u64,
    /// Time on a pCPU.
    pub(super) ran: u64,
    pub(super) home: usize,
    /// The word that it sleeps on, if a wake-up reaches it.
    pub(super) word: Option<usize>,
    /// Timers of earlier sleeps are void.
    pub(super) sleeps: u64,
    /// It is in `enter`: a sleep there is a hold.
    pub(super) enters: bool,
    pub(super) held_since: Option<u64>,
    pub(super) held: u64,
}

impl Thread {
    /// One that has not begun, and will on this pCPU.
    pub(super) const fn new(home: usize) -> Self {
        Self {
            at: At::Asleep,
            doing: Doing::Ready(Answer::Done),
            left: 0,
            runtime: 0,
            ran: 0,
            home,
            word: None,
            sleeps: 0,
            enters: false,
            held_since: None,
            held: 0,
        }
    }
}
