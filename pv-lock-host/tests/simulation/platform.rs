//! The platform that the scheduler under test lives on: words, clock and sleeps
//! of the simulated host.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use corosensei::Yielder;
use pv_lock_host::{Place, Platform, Waited, Word};

use super::world::{Answer, Request, US, world};

/// How a thread's coroutine reaches the simulator.
pub(crate) type Way = Yielder<Answer, Request>;

thread_local! {
    /// The thread that runs, and its way out; none while the simulator or the
    /// outside does.
    static RUNS: Cell<Option<(usize, *const Way)>> = const { Cell::new(None) };
}

/// From now on this thread's coroutine runs, or none.
pub(crate) fn runs(thread: Option<(usize, *const Way)>) {
    RUNS.set(thread);
}

/// The thread that runs.
pub(crate) fn me() -> usize {
    RUNS.get().unwrap().0
}

/// Asks the simulated host for something, and comes back with its answer.
pub(crate) fn ask(request: Request) -> Answer {
    let (_, way) = RUNS.get().unwrap();
    assert!(!ptr::eq(way, ptr::null()));
    #[expect(
        unsafe_code,
        reason = "a yielder is lent to its coroutine, which a thread-local can't be told"
    )]
    // SAFETY: `way` is the yielder of the coroutine that runs this very code: the
    // simulator sets it before each resume, and the yielder lives on that
    // coroutine's stack for as long as its body, which has not returned.
    let way = unsafe { &*way };
    way.suspend(request)
}

#[derive(Debug)]
pub(crate) enum Simulated {}

#[derive(Debug)]
pub(crate) struct SimWord(AtomicU32);

/// Time passes between two changes of words, sometimes a slice ends there: other
/// pCPUs see the states in between.
fn jitter() {
    if RUNS.get().is_none() || std::thread::panicking() {
        return;
    }
    let delay = world(|world| {
        let every = world.host.jitter;
        let late = every > 0 && world.random.one_in(every);
        late.then(|| match world.random.below(8) {
            0 => world.random.below(20 * US),
            _ => world.random.below(US),
        })
    });
    if let Some(delay) = delay {
        ask(Request::Work(delay));
    }
}

impl Word for SimWord {
    fn new(value: u32) -> Self {
        Self(AtomicU32::new(value))
    }

    fn load(&self, order: Ordering) -> u32 {
        self.0.load(order)
    }

    fn compare_exchange_weak(
        &self,
        current: u32,
        new: u32,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32> {
        jitter();
        let result = self.0.compare_exchange(current, new, success, failure);
        jitter();
        result
    }

    fn fetch_or(&self, bits: u32, order: Ordering) -> u32 {
        let before = self.0.fetch_or(bits, order);
        jitter();
        before
    }

    fn fetch_add(&self, n: u32, order: Ordering) -> u32 {
        let before = self.0.fetch_add(n, order);
        jitter();
        before
    }
}

impl Platform for Simulated {
    type Word = SimWord;

    fn now() -> u64 {
        world(|world| world.now)
    }

    fn wait(word: &SimWord, expected: u32, deadline: Option<u64>) -> Waited {
        if word.0.load(Ordering::Relaxed) != expected {
            // A system call for nothing.
            ask(Request::Work(US / 2));
            return Waited::LookAgain;
        }
        let word = ptr::from_ref(word).addr();
        match ask(Request::Sleep { word, deadline }) {
            Answer::DeadlinePassed => Waited::DeadlinePassed,
            _ => Waited::LookAgain,
        }
    }

    fn wake(word: &SimWord) {
        world(|world| world.wake(ptr::from_ref(word).addr()));
    }

    const LOOKS: u32 = 4;

    fn relax() {
        ask(Request::Work(US / 4));
    }

    fn yield_now() {
        ask(Request::Yield);
    }

    fn pcpus() -> usize {
        world(|world| world.host.pcpus)
    }

    fn here() -> Option<Place> {
        let me = me();
        let pcpu = world(|world| world.place(me));
        Some(Place {
            pcpu: u32::try_from(pcpu).unwrap(),
            thread: u32::try_from(me).unwrap(),
        })
    }

    fn pull(thread: u32) {
        let me = me();
        world(|world| world.pull(thread as usize, world.place(me)));
    }
}
