//! Every way to park a thread that is compared.
#![expect(unsafe_code, reason = "a raw futex is one of the contenders")]

use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::Thread;

use pv_lock_host::{ApicId, HaltScheduler, Kicker, Polling, SchedulerBuilder, VcpuParker};
use vmm_sys_util::eventfd::EventFd;

use super::Contender;

/// One thread's half of a pair.
pub(crate) trait Side: Send {
    /// Wakes the other side, or has its next wait return at once.
    fn wake(&mut self);
    /// Sleeps until the other side wakes this one.
    fn wait(&mut self);
}

/// Both halves.
pub(crate) type Pair = (Box<dyn Side>, Box<dyn Side>);

/// The raw futex comes first: it is what the others are compared with.
pub(crate) fn all() -> Vec<Contender> {
    fn one(name: &'static str, pair: fn() -> Pair) -> Contender {
        Contender { name, pair }
    }
    vec![
        one("futex", crossed::<RawFutex>),
        one("pv-lock-host", || ours(HaltScheduler::builder())),
        one("pv-lock-host, not counting", || {
            ours(HaltScheduler::builder().counting(false))
        }),
        one("pv-lock-host, polling", || {
            let window = Polling::Adaptive(pv_lock_host::AdaptivePolling::default());
            ours(HaltScheduler::builder().polling(window))
        }),
        one("eventfd", crossed::<Eventfd>),
        one("std park", crossed::<StdPark>),
        one("parking_lot", crossed::<ParkingLot>),
        one("crossbeam Parker", crossed::<Crossbeam>),
        one("Mutex+Condvar", crossed::<StdCondvar>),
    ]
}

fn ours(builder: SchedulerBuilder) -> Pair {
    struct Ours(Kicker, ApicId, VcpuParker);
    impl Side for Ours {
        fn wake(&mut self) {
            self.0.kick_by_host(self.1);
        }
        fn wait(&mut self) {
            self.2.halt();
        }
    }
    let ids = [ApicId(0), ApicId(1)];
    let (scheduler, mut parkers) = builder.build(&ids).unwrap();
    let mut side = |other| {
        let parker = parkers.pop().unwrap();
        Box::new(Ours(scheduler.kicker(), other, parker)) as Box<dyn Side>
    };
    (side(ApicId(0)), side(ApicId(1)))
}

/// A parking spot for one thread, which others can see.
trait Spot: Default + Send + Sync + 'static {
    fn wake(&self);
    fn wait(&self);
}

fn crossed<S: Spot>() -> Pair {
    struct Crossed<S>(Arc<S>, Arc<S>);
    impl<S: Spot> Side for Crossed<S> {
        fn wake(&mut self) {
            self.1.wake();
        }
        fn wait(&mut self) {
            self.0.wait();
        }
    }
    let (a, b) = (Arc::new(S::default()), Arc::new(S::default()));
    (
        Box::new(Crossed(Arc::clone(&a), Arc::clone(&b))),
        Box::new(Crossed(b, a)),
    )
}

/// The least that works: a flag and two system calls.
#[derive(Default)]
struct RawFutex(AtomicU32);

impl Spot for RawFutex {
    fn wake(&self) {
        self.0.store(1, Ordering::Release);
        let op = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: the address is only a key to FUTEX_WAKE, and is live.
        unsafe { libc::syscall(libc::SYS_futex, self.0.as_ptr(), op, 1) };
    }

    fn wait(&self) {
        let op = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        while self.0.swap(0, Ordering::Acquire) == 0 {
            let forever: *const libc::timespec = ptr::null();
            // SAFETY: the word is a live u32, and a null timeout is none.
            unsafe { libc::syscall(libc::SYS_futex, self.0.as_ptr(), op, 0, forever) };
        }
    }
}

struct Eventfd(EventFd);

impl Default for Eventfd {
    fn default() -> Self {
        Self(EventFd::new(0).unwrap())
    }
}

impl Spot for Eventfd {
    fn wake(&self) {
        self.0.write(1).unwrap();
    }
    fn wait(&self) {
        self.0.read().unwrap();
    }
}

/// `std::thread::park`, whose token is the flag.
#[derive(Default)]
struct StdPark {
    flag: AtomicU32,
    thread: OnceLock<Thread>,
}

impl Spot for StdPark {
    fn wake(&self) {
        self.flag.store(1, Ordering::Release);
        // Nobody to unpark yet: it will see the flag before it parks.
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn wait(&self) {
        self.thread.get_or_init(std::thread::current);
        while self.flag.swap(0, Ordering::AcqRel) == 0 {
            std::thread::park();
        }
    }
}

#[derive(Default)]
struct ParkingLot(parking_lot::Mutex<bool>, parking_lot::Condvar);

impl Spot for ParkingLot {
    fn wake(&self) {
        *self.0.lock() = true;
        self.1.notify_one();
    }

    fn wait(&self) {
        let mut flag = self.0.lock();
        while !std::mem::take(&mut *flag) {
            self.1.wait(&mut flag);
        }
    }
}

struct Crossbeam {
    /// Locked by its owner only, so never contended.
    parker: Mutex<crossbeam_utils::sync::Parker>,
    unparker: crossbeam_utils::sync::Unparker,
}

impl Default for Crossbeam {
    fn default() -> Self {
        let parker = crossbeam_utils::sync::Parker::new();
        Self {
            unparker: parker.unparker().clone(),
            parker: Mutex::new(parker),
        }
    }
}

impl Spot for Crossbeam {
    fn wake(&self) {
        self.unparker.unpark();
    }
    fn wait(&self) {
        let parker = self.parker.lock();
        parker.unwrap_or_else(PoisonError::into_inner).park();
    }
}

#[derive(Default)]
struct StdCondvar(Mutex<bool>, Condvar);

impl Spot for StdCondvar {
    fn wake(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_one();
    }

    fn wait(&self) {
        let mut flag = self.0.lock().unwrap();
        while !std::mem::take(&mut *flag) {
            flag = self.1.wait(flag).unwrap();
        }
    }
}
