//! The simulated host: virtual time, pCPUs with run queues, and threads that are
//! coroutines. One world a test thread; everything in it follows from its seed.
//!
//! The host's scheduler is a fair one: the thread with the least runtime is next,
//! a time slice ends if somebody waits, one that wakes up goes to the pCPU that
//! has idled for longest and else waits, unless it is due much more than one that
//! runs. A `sticky` host keeps threads where they were, as Linux does, and idle
//! pCPUs look for work only after milliseconds.

mod events;
mod locks;
mod pcpus;
mod queues;
mod sleeping;
mod thread;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::random::Random;

use events::Event;
use locks::Lock;
use pcpus::Pcpu;
use thread::{At, Doing, Thread};

pub(crate) use events::Next;
pub(crate) use thread::{Answer, Request};

pub(crate) const US: u64 = 1_000;
pub(crate) const MS: u64 = 1_000 * US;

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
            pcpus: (0..host.pcpus).map(|_| Pcpu::new()).collect(),
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
        for thread in 0..threads {
            world.threads.push(Thread::new(thread % host.pcpus));
            // Not all at once.
            let after = world.random.below(100 * US);
            world.after(after, Event::Wake { thread });
        }
        world
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

    pub(crate) fn cpu_time(&self, thread: usize) -> u64 {
        self.threads[thread].ran
    }

    pub(crate) fn place(&self, thread: usize) -> usize {
        match self.threads[thread].at {
            At::Runs(pcpu) => pcpu,
            at => panic!("{thread} asks where it is and is {at:?}"),
        }
    }
}
