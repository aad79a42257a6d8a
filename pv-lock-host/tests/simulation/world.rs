//! The simulated host: virtual time, pCPUs with run queues, and threads that are
//! coroutines. One world a test thread; everything in it follows from its seed.
//!
//! The host's scheduler is a fair one: the thread with the least runtime is next,
//! a time slice ends if somebody waits, one that wakes up goes to the pCPU that
//! has idled for longest and else waits, unless it is due much more than one that
//! runs. A `sticky` host keeps threads where they were, as Linux does, and idle
//! pCPUs look for work only after milliseconds.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::random::Random;

pub(crate) const US: u64 = 1_000;
pub(crate) const MS: u64 = 1_000 * US;

/// From one thread to another on a pCPU.
const SWITCH: u64 = 2 * US;
/// A cache line from one pCPU to another.
const TRANSFER: u64 = 100;
/// How much less runtime one that wakes up must have than one that runs, to take
/// its pCPU.
const PREEMPTS: u64 = MS;

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
enum At {
    /// On this pCPU.
    Runs(usize),
    /// In this run queue.
    Waits(usize),
    Asleep,
    Ended,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Doing {
    Work,
    Spin {
        lock: usize,
        ticket: u64,
    },
    /// It goes on with this answer once it is on a pCPU.
    Ready(Answer),
}

#[derive(Debug)]
struct Thread {
    at: At,
    doing: Doing,
    /// Of what it does, so much time on a pCPU is left.
    left: u64,
    /// Time on a pCPU, as its run queue counts it.
    runtime: u64,
    /// Time on a pCPU.
    ran: u64,
    home: usize,
    /// The word that it sleeps on, if a wake-up reaches it.
    word: Option<usize>,
    /// Timers of earlier sleeps are void.
    sleeps: u64,
    /// It is in `enter`: a sleep there is a hold.
    enters: bool,
    held_since: Option<u64>,
    held: u64,
}

#[derive(Debug)]
struct Pcpu {
    runs: Option<usize>,
    /// Who ran last.
    last: usize,
    /// Up to when its thread's time is accounted.
    since: u64,
    slice_end: u64,
    /// Events of earlier states are void.
    changes: u64,
    idle_since: Option<u64>,
    /// Since when it idles while somebody is held.
    wasted_since: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Event {
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

#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    pub(crate) pcpus: usize,
    pub(crate) slice: u64,
    pub(crate) sticky: bool,
    /// Every so many changes of a word are followed by a delay; zero: none.
    pub(crate) jitter: u64,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) random: Random,
    pub(crate) host: Host,
    pub(crate) locks: Vec<Lock>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    count: u64,
    pcpus: Vec<Pcpu>,
    threads: Vec<Thread>,
    queues: Vec<Vec<usize>>,
    sleepers: HashMap<usize, usize>,
    /// By run queue: the runtime that one which comes to it begins from.
    least_runtime: Vec<u64>,
    held: usize,
    /// The longest that a pCPU idled while somebody was held.
    pub(crate) longest_waste: u64,
    pub(crate) waste: u64,
    pub(crate) longest_hold: u64,
    pub(crate) holds: u64,
    /// Who ran when: for comparing two runs.
    pub(crate) trace: u64,
}

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

/// The world of this test thread.
pub(crate) fn world<R>(f: impl FnOnce(&mut World) -> R) -> R {
    WORLD.with_borrow_mut(|world| f(world.as_mut().unwrap()))
}

pub(crate) fn begin(world: World) {
    WORLD.set(Some(world));
}

pub(crate) fn end() -> World {
    WORLD.take().unwrap()
}

impl World {
    pub(crate) fn new(host: Host, seed: u64, threads: usize, locks: usize) -> Self {
        let mut world = Self {
            now: 1_000 * MS,
            random: Random::new(seed),
            host,
            locks: (0..locks).map(|_| Lock::default()).collect(),
            events: BinaryHeap::new(),
            count: 0,
            pcpus: Vec::new(),
            threads: Vec::new(),
            queues: vec![Vec::new(); if host.sticky { host.pcpus } else { 1 }],
            sleepers: HashMap::new(),
            least_runtime: vec![0; if host.sticky { host.pcpus } else { 1 }],
            held: 0,
            longest_waste: 0,
            waste: 0,
            longest_hold: 0,
            holds: 0,
            trace: 0,
        };
        world.pcpus.extend((0..host.pcpus).map(|_| Pcpu {
            runs: None,
            last: usize::MAX,
            since: 0,
            slice_end: 0,
            changes: 0,
            idle_since: Some(0),
            wasted_since: None,
        }));
        for thread in 0..threads {
            world.threads.push(Thread {
                at: At::Asleep,
                doing: Doing::Ready(Answer::Done),
                left: 0,
                runtime: 0,
                ran: 0,
                home: thread % host.pcpus,
                word: None,
                sleeps: 0,
                enters: false,
                held_since: None,
                held: 0,
            });
            // Not all at once.
            let after = world.random.below(100 * US);
            world.after(after, Event::Wake { thread });
        }
        world
    }

    fn after(&mut self, ns: u64, event: Event) {
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

    /// A thread that runs asks for this.
    pub(crate) fn request(&mut self, thread: usize, request: Request) {
        let now = self.now;
        let At::Runs(pcpu) = self.threads[thread].at else {
            panic!("{thread} asks and does not run");
        };
        let t = &mut self.threads[thread];
        match request {
            Request::Work(ns) => (t.doing, t.left) = (Doing::Work, ns),
            Request::Spin { lock, ticket, time } => {
                (t.doing, t.left) = (Doing::Spin { lock, ticket }, time);
                self.look(thread);
            }
            Request::Sleep { deadline, .. } if deadline.is_some_and(|at| at <= now) => {
                t.doing = Doing::Ready(Answer::DeadlinePassed);
                t.left = US;
            }
            Request::Sleep { word, deadline } => {
                t.word = Some(word);
                assert!(
                    self.sleepers.insert(word, thread).is_none(),
                    "two threads sleep on one word"
                );
                if t.enters {
                    t.held_since = Some(now);
                    self.hold();
                }
                self.sleep(pcpu, thread, deadline);
            }
            Request::Block(ns) => self.sleep(pcpu, thread, Some(now + ns)),
            Request::Yield => {
                (t.doing, t.left) = (Doing::Ready(Answer::Done), 0);
                self.requeue(pcpu);
                self.dispatch(pcpu);
            }
        }
        self.arm(pcpu);
    }

    pub(crate) fn ended(&mut self, thread: usize) {
        let At::Runs(pcpu) = self.threads[thread].at else {
            panic!("{thread} ends and does not run");
        };
        self.threads[thread].at = At::Ended;
        self.pcpus[pcpu].runs = None;
        self.dispatch(pcpu);
        self.arm(pcpu);
    }

    pub(crate) fn all_ended(&self) -> bool {
        self.threads.iter().all(|thread| thread.at == At::Ended)
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

    pub(crate) fn cpu_time(&self, thread: usize) -> u64 {
        self.threads[thread].ran
    }

    /// Whoever sleeps on this word is woken, in some microseconds.
    pub(crate) fn wake(&mut self, word: usize) {
        if let Some(thread) = self.sleepers.remove(&word) {
            self.awake(thread, Answer::Done);
            let latency = US + self.random.below(4 * US);
            self.after(latency, Event::Wake { thread });
        }
    }

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

    pub(crate) fn place(&self, thread: usize) -> usize {
        match self.threads[thread].at {
            At::Runs(pcpu) => pcpu,
            at => panic!("{thread} asks where it is and is {at:?}"),
        }
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

    /// A thread that spins and finds itself served is through.
    fn look(&mut self, thread: usize) {
        let t = &mut self.threads[thread];
        if let Doing::Spin { lock, ticket } = t.doing
            && self.locks[lock].serving == ticket
        {
            (t.doing, t.left) = (Doing::Ready(Answer::Done), TRANSFER);
        }
    }

    fn sleep(&mut self, pcpu: usize, thread: usize, deadline: Option<u64>) {
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

    fn hold(&mut self) {
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

    fn wasted(&mut self, pcpu: usize) {
        if let Some(since) = self.pcpus[pcpu].wasted_since.take() {
            self.longest_waste = self.longest_waste.max(self.now - since);
            self.waste += self.now - since;
        }
    }

    /// The thread sleeps no longer, though it may not run yet.
    fn awake(&mut self, thread: usize, answer: Answer) {
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

    fn wake_now(&mut self, thread: usize, answer: Answer) {
        if let Some(word) = self.threads[thread].word {
            self.sleepers.remove(&word);
        }
        self.awake(thread, answer);
        self.arrive(thread);
    }

    fn queue_of(&self, pcpu: usize) -> usize {
        if self.host.sticky { pcpu } else { 0 }
    }

    /// One that has woken up comes to a pCPU or a run queue.
    fn arrive(&mut self, thread: usize) {
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

    fn steal(&mut self, pcpu: usize) {
        let longest = (0..self.queues.len()).max_by_key(|&n| self.queues[n].len());
        if let Some(queue) = longest.filter(|&n| !self.queues[n].is_empty()) {
            let thread = self.least(queue);
            self.take(pcpu, thread);
        } else {
            self.looks_later(pcpu);
        }
        self.arm(pcpu);
    }

    fn looks_later(&mut self, pcpu: usize) {
        if self.host.sticky {
            let change = self.pcpus[pcpu].changes;
            let after = MS + self.random.below(3 * MS);
            self.after(after, Event::Steal { pcpu, change });
        }
    }

    fn least(&self, queue: usize) -> usize {
        let least = self.queues[queue].iter().copied();
        least.min_by_key(|&n| (self.threads[n].runtime, n)).unwrap()
    }

    /// The pCPU's thread goes back to the run queue.
    fn requeue(&mut self, pcpu: usize) {
        self.account(pcpu);
        let queue = self.queue_of(pcpu);
        if let Some(thread) = self.pcpus[pcpu].runs.take() {
            self.threads[thread].at = At::Waits(queue);
            self.threads[thread].home = pcpu;
            self.queues[queue].push(thread);
        }
    }

    /// A pCPU without a thread takes the next one, or idles.
    fn dispatch(&mut self, pcpu: usize) {
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
    fn take(&mut self, pcpu: usize, thread: usize) {
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

    /// Run queues count from where they are: what it is ahead or behind in one it
    /// is in the other.
    fn migrate(&mut self, thread: usize, to: usize) {
        let home = std::mem::replace(&mut self.threads[thread].home, to);
        let (from, to) = (self.queue_of(home), self.queue_of(to));
        let t = &mut self.threads[thread];
        t.runtime = (t.runtime + self.least_runtime[to]).saturating_sub(self.least_runtime[from]);
    }

    /// What the pCPU's thread has run since it was last accounted.
    fn account(&mut self, pcpu: usize) {
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
    fn arm(&mut self, pcpu: usize) {
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

    fn advance(&mut self, pcpu: usize) -> Option<Next> {
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
