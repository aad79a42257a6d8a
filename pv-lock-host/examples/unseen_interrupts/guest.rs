//! A vCPU's guest, which takes a lock over and over and has interrupts meanwhile,
//! and the loop of its VMM.

use std::sync::atomic::{AtomicU64, Ordering};

use pv_lock_host::{ApicId, HaltScheduler, VcpuParker};

use crate::machine::Machine;

/// Rounds of spinning before a waiter halts, some ten microseconds.
const THRESHOLD: u32 = 1 << 11;
/// Rounds inside the lock and outside it, and between two looks for an interrupt.
const ROUNDS: u32 = 100;
/// No ticket is waited for.
const NOTHING: u64 = u64::MAX;

/// In guest memory; SeqCst throughout, as in the example `mixed`.
pub(crate) struct TicketLock {
    next: AtomicU64,
    serving: AtomicU64,
    /// By vCPU: the ticket it has halted for.
    halted_for: Vec<AtomicU64>,
}

impl TicketLock {
    pub(crate) fn new(vcpus: usize) -> Self {
        Self {
            next: AtomicU64::new(0),
            serving: AtomicU64::new(0),
            halted_for: (0..vcpus).map(|_| AtomicU64::new(NOTHING)).collect(),
        }
    }
}

/// An interrupt: how late its handler ran, and whether its vCPU was held when it
/// came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Late {
    pub(crate) ns: u64,
    pub(crate) held: bool,
}

/// What one vCPU has seen, or several.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) rounds: u64,
    pub(crate) late: Vec<Late>,
}

impl Seen {
    pub(crate) fn add(&mut self, other: Self) {
        self.rounds += other.rounds;
        self.late.extend(other.late);
    }
}

/// The VM was stopped.
struct Stopped;

pub(crate) struct Vcpu<'a> {
    machine: &'a Machine,
    scheduler: &'a HaltScheduler,
    lock: &'a TicketLock,
    parker: VcpuParker,
    me: usize,
    /// Its last hold, from when to when.
    held: (u64, u64),
    holds: u64,
    seen: Seen,
}

impl<'a> Vcpu<'a> {
    pub(crate) fn new(
        machine: &'a Machine,
        scheduler: &'a HaltScheduler,
        lock: &'a TicketLock,
        parker: VcpuParker,
    ) -> Self {
        Self {
            machine,
            scheduler,
            lock,
            me: parker.apic_id().0 as usize,
            parker,
            held: (0, 0),
            holds: 0,
            seen: Seen::default(),
        }
    }

    /// Until the VM is stopped.
    pub(crate) fn run(mut self) -> Seen {
        let _stopped = self.guest();
        self.seen
    }

    fn guest(&mut self) -> Result<(), Stopped> {
        self.enter()?;
        // A stop makes a vCPU leave the guest: by a signal on KVM, here it looks.
        while !self.machine.is_stopped() {
            self.acquire()?;
            self.work();
            self.release()?;
            if self.machine.is_measuring() {
                self.seen.rounds += 1;
            }
            self.work();
        }
        Err(Stopped)
    }

    /// The VMM's part before each run of the guest.
    fn enter(&mut self) -> Result<(), Stopped> {
        /// Shorter than any hold.
        const SHORT: u64 = 20_000;
        let (machine, me) = (self.machine, self.me);
        let began = machine.now();
        let entered = self.parker.enter_unless(|| machine.is_interrupted(me));
        let ended = machine.now();
        if ended - began > SHORT {
            let counters = self.scheduler.vcpu_counters(self.parker.apic_id());
            let holds = counters.map_or(0, |counters| counters.holds);
            if std::mem::replace(&mut self.holds, holds) != holds {
                self.held = (began, ended);
            }
        }
        entered.map_err(|_| Stopped)
    }

    /// The guest's handler, if there is something for it to do.
    fn interrupts(&mut self) {
        if let Some(came) = self.machine.take_interrupt(self.me)
            && self.machine.is_measuring()
        {
            let (began, ended) = self.held;
            self.seen.late.push(Late {
                ns: self.machine.now().saturating_sub(came),
                held: (began..ended).contains(&came),
            });
        }
    }

    fn work(&mut self) {
        for _ in 0..ROUNDS {
            std::hint::spin_loop();
        }
        self.interrupts();
    }

    fn acquire(&mut self) -> Result<(), Stopped> {
        let lock = self.lock;
        let ticket = lock.next.fetch_add(1, Ordering::SeqCst);
        let mine = || lock.serving.load(Ordering::SeqCst) == ticket;
        let halted_for = lock.halted_for.get(self.me).unwrap();
        loop {
            for round in 1..=THRESHOLD {
                if mine() {
                    return Ok(());
                }
                if round.is_multiple_of(ROUNDS) {
                    self.interrupts();
                }
                std::hint::spin_loop();
            }
            if self.machine.is_stopped() {
                return Err(Stopped);
            }
            // kvm_wait: publish, check again, HLT, which is no exit.
            halted_for.store(ticket, Ordering::SeqCst);
            if !mine() {
                self.machine.halt(self.me);
            }
            halted_for.store(NOTHING, Ordering::SeqCst);
            self.interrupts();
        }
    }

    fn release(&mut self) -> Result<(), Stopped> {
        let next = self.lock.serving.fetch_add(1, Ordering::SeqCst) + 1;
        let waits = |ticket: &AtomicU64| ticket.load(Ordering::SeqCst) == next;
        if let Some(vcpu) = self.lock.halted_for.iter().position(waits) {
            // kvm_kick_cpu: an exit, a kick in KVM, and in again.
            let (machine, id) = (self.machine, ApicId(u32::try_from(vcpu).unwrap()));
            self.parker.kick_elsewhere(id, || {
                machine.kick(vcpu);
                true
            });
            return self.enter();
        }
        Ok(())
    }
}
