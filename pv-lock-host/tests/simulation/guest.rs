//! What the simulated vCPUs do: their guests, and the loop of their VMM.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pv_lock_host::{ApicId, Resumed, VcpuParker, WakeReason};

use super::platform::{Simulated, ask, me};
use super::world::{Answer, Request, US, world};

/// An exit to the VMM and back.
const EXIT: u64 = US;
/// How long a waiter spins before it halts.
const THRESHOLD: u64 = 15 * US;

/// What a vCPU's guest does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    /// Takes locks.
    Locks(Locks),
    /// Works, and leaves the guest every `chunk` ns.
    Works { chunk: u64 },
    /// Works, then halts until a timer.
    Sleeps { works: u64, sleeps: u64 },
    /// Halts until a device that does something every `period` ns.
    Notified { works: u64, period: u64 },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Locks {
    pub(crate) lock: usize,
    /// Within which it takes the other.
    pub(crate) outer: Option<usize>,
    pub(crate) inside: u64,
    pub(crate) outside: u64,
    pub(crate) blocks: Option<Blocks>,
    /// Once in so many rounds it halts until a timer of so many ns.
    pub(crate) naps: Option<(u64, u64)>,
}

/// It blocks in device emulation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blocks {
    /// Once in so many rounds.
    pub(crate) every: u64,
    pub(crate) time: u64,
    /// Whether the VMM says so.
    pub(crate) leaves: bool,
    /// Whether the guest holds its lock meanwhile.
    pub(crate) holding: bool,
}

impl Role {
    /// The longest stay in the guest.
    pub(crate) fn longest_work(&self) -> u64 {
        let works = match *self {
            Self::Locks(locks) => locks.inside.max(locks.outside),
            Self::Works { chunk } => chunk,
            Self::Sleeps { works, .. } | Self::Notified { works, .. } => works,
        };
        (works * 3 / 2).max(THRESHOLD)
    }
}

/// What is noted of one vCPU.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    /// Rounds of whatever it does.
    pub(crate) rounds: u64,
    /// When it began with its present round.
    pub(crate) began: u64,
    pub(crate) longest_round: u64,
    /// From the moment at which a timer or a device is due until the guest runs.
    pub(crate) wakes: Vec<u64>,
}

/// What the vCPUs of one VM share.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) notes: RefCell<Vec<Notes>>,
    /// The VM is known to be at rest: no guest may run.
    pub(crate) quiet: Cell<bool>,
    /// By vCPU: when its device last did something that it has not seen.
    pub(crate) due: RefCell<Vec<Option<u64>>>,
}

pub(crate) struct Vcpu {
    pub(crate) parker: VcpuParker<Simulated>,
    pub(crate) vm: Rc<Vm>,
}

/// The VM was stopped.
struct Stopped;

type Goes = Result<(), Stopped>;

fn now() -> u64 {
    world(|world| world.now)
}

fn around(ns: u64) -> u64 {
    world(|world| world.random.around(ns))
}

impl Vcpu {
    /// Until the VM is stopped.
    pub(crate) fn run(mut self, role: Role) {
        self.vm.notes.borrow_mut()[me()].began = now();
        let _stopped = match role {
            Role::Locks(locks) => self.locks(locks),
            Role::Works { chunk } => self.works(chunk),
            Role::Sleeps { works, sleeps } => self.sleeps(works, sleeps),
            Role::Notified { works, .. } => self.notified(works),
        };
    }

    fn work(&self, ns: u64) {
        assert!(!self.vm.quiet.get(), "a guest runs in a VM at rest");
        ask(Request::Work(ns));
        assert!(!self.vm.quiet.get(), "a guest ran in a VM at rest");
    }

    fn round(&self) {
        let mut notes = self.vm.notes.borrow_mut();
        let (mine, now) = (&mut notes[me()], now());
        mine.rounds += 1;
        mine.longest_round = mine.longest_round.max(now - mine.began);
        mine.began = now;
    }

    /// From when the guest should have run.
    fn woke(&self, due: u64) {
        self.vm.notes.borrow_mut()[me()].wakes.push(now() - due);
    }

    fn enter(&mut self) -> Goes {
        loop {
            world(|world| world.enters(me(), true));
            let entered = self.parker.enter();
            world(|world| world.enters(me(), false));
            match entered {
                Ok(()) => return Ok(()),
                Err(why) if self.parker.go_on(why) => {}
                Err(_) => return Err(Stopped),
            }
        }
    }

    fn halt(&mut self) -> Goes {
        let reason = self.parker.halt();
        match self.parker.go_on(reason) {
            true => Ok(()),
            false => Err(Stopped),
        }
    }

    fn halt_until(&mut self, deadline: u64) -> Goes {
        loop {
            match self.parker.halt_until_ns(deadline) {
                WakeReason::Stopped => return Err(Stopped),
                WakeReason::Paused if self.parker.wait_resumed() == Resumed::Stopped => {
                    return Err(Stopped);
                }
                WakeReason::Paused | WakeReason::Interrupted => {}
                _ => return Ok(()),
            }
        }
    }

    fn works(&mut self, chunk: u64) -> Goes {
        loop {
            self.enter()?;
            self.work(around(chunk));
            self.round();
        }
    }

    fn sleeps(&mut self, works: u64, sleeps: u64) -> Goes {
        loop {
            self.enter()?;
            self.work(around(works));
            let due = now() + around(sleeps);
            self.halt_until(due)?;
            self.enter()?;
            self.woke(due);
            self.round();
        }
    }

    fn notified(&mut self, works: u64) -> Goes {
        loop {
            self.halt()?;
            self.enter()?;
            let due = self.vm.due.borrow_mut()[me()].take();
            if let Some(due) = due {
                self.woke(due);
                self.round();
            }
            self.work(around(works));
        }
    }

    fn locks(&mut self, role: Locks) -> Goes {
        let due = |every| world(|world| world.random.one_in(every));
        loop {
            self.enter()?;
            self.work(around(role.outside));
            let blocks = role.blocks.filter(|blocks| due(blocks.every));
            if let Some((_, time)) = role.naps.filter(|naps| due(naps.0)) {
                self.halt_until(now() + around(time))?;
                self.enter()?;
            }
            if let Some(blocks) = blocks.filter(|blocks| !blocks.holding) {
                self.block(blocks)?;
            }
            if let Some(outer) = role.outer {
                self.acquire(outer)?;
                self.work(around(role.inside));
            }
            self.acquire(role.lock)?;
            self.work(around(role.inside));
            if let Some(blocks) = blocks.filter(|blocks| blocks.holding) {
                self.block(blocks)?;
            }
            self.release(role.lock)?;
            if let Some(outer) = role.outer {
                self.work(around(role.inside));
                self.release(outer)?;
            }
            self.round();
        }
    }

    fn block(&mut self, blocks: Blocks) -> Goes {
        ask(Request::Work(EXIT));
        if blocks.leaves {
            self.parker.leave();
        }
        ask(Request::Block(around(blocks.time)));
        self.enter()
    }

    /// A ticket lock whose waiters spin, publish, look again and halt.
    fn acquire(&mut self, lock: usize) -> Goes {
        let (ticket, served) = world(|world| {
            let lock = &mut world.locks[lock];
            lock.next += 1;
            (lock.next - 1, lock.serving == lock.next - 1)
        });
        let mine = || world(|world| world.locks[lock].serving == ticket);
        loop {
            let time = THRESHOLD;
            if mine() || ask(Request::Spin { lock, ticket, time }) != Answer::NotServed {
                break;
            }
            world(|world| world.locks[lock].halted_for.insert(ticket, me()));
            self.work(around(100));
            if !mine() {
                self.work(EXIT);
                self.halt()?;
                self.enter()?;
            }
            world(|world| world.locks[lock].halted_for.remove(&ticket));
        }
        world(|world| {
            let now = world.now;
            let lock = &mut world.locks[lock];
            assert_eq!(lock.serving, ticket);
            assert_eq!(lock.holder.replace(me()), None, "the lock has two holders");
            if !served {
                lock.longest_pass = lock.longest_pass.max(now - lock.released);
            }
            lock.taken += 1;
        });
        Ok(())
    }

    fn release(&mut self, lock: usize) -> Goes {
        let next = world(|world| {
            assert_eq!(world.locks[lock].holder.take(), Some(me()));
            world.serve(lock)
        });
        self.work(around(100));
        let halted = world(|world| world.locks[lock].halted_for.get(&next).copied());
        if let Some(vcpu) = halted {
            self.work(EXIT);
            self.parker
                .kick_by_guest(ApicId(u32::try_from(vcpu).unwrap()));
            self.enter()?;
        }
        Ok(())
    }
}
