//! The programs of the guests, each in a vCPU's thread.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pv_lock_host::{VcpuParker, WakeReason};

use crate::loads::Role;
use crate::lock::{Stopped, TicketLock};
use crate::meter::{Meter, Phase, cpu_time};

/// Rounds of work inside a lock and outside it.
const INSIDE: u32 = 100;
const OUTSIDE: u32 = 100;

/// What the vCPUs of one VM share.
pub(crate) struct Vm {
    pub(crate) locks: Vec<TicketLock>,
    pub(crate) phase: Phase,
    pub(crate) stop: AtomicBool,
    /// When it all began.
    pub(crate) epoch: Instant,
    /// By vCPU: when its device did something that the guest has not seen yet,
    /// in ns since the epoch; zero: nothing.
    pub(crate) due: Vec<AtomicU64>,
}

pub(crate) struct Vcpu<'a> {
    pub(crate) vm: &'a Vm,
    pub(crate) parker: VcpuParker,
    pub(crate) meter: Meter,
}

impl Vm {
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

fn spin(rounds: u32) {
    for _ in 0..rounds {
        std::hint::spin_loop();
    }
}

/// Works for so much CPU time.
fn work(time: Duration) {
    let end = cpu_time() + time;
    while cpu_time() < end {
        spin(20);
    }
}

impl Vcpu<'_> {
    /// Until the VM is stopped.
    pub(crate) fn run(mut self, role: Role) -> Meter {
        let _stopped = match role {
            Role::Works => self.works(),
            Role::Sleeps { works, sleeps } => self.sleeps(works, sleeps),
            Role::Notified { works, .. } => self.notified(works),
            Role::Locks { lock, outer } => self.locks(lock, outer),
        };
        self.meter.end();
        self.meter
    }

    fn enter(&mut self) -> Result<(), Stopped> {
        self.parker.enter().map_err(|_| Stopped)
    }

    fn works(&mut self) -> Result<(), Stopped> {
        loop {
            self.enter()?;
            work(Duration::from_micros(100));
            self.meter.round(&self.vm.phase);
        }
    }

    fn sleeps(&mut self, works: Duration, sleeps: Duration) -> Result<(), Stopped> {
        loop {
            self.enter()?;
            work(works);
            let timer = Instant::now() + sleeps;
            if self.parker.halt_until(timer) == WakeReason::Stopped {
                return Err(Stopped);
            }
            self.enter()?;
            let late = timer.elapsed();
            if self.meter.round(&self.vm.phase) {
                let late = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
                self.meter.wakes.push(late);
            }
        }
    }

    fn notified(&mut self, works: Duration) -> Result<(), Stopped> {
        let id = self.parker.apic_id().0 as usize;
        let due = self.vm.due.get(id).unwrap();
        loop {
            if self.parker.halt() == WakeReason::Stopped {
                return Err(Stopped);
            }
            self.enter()?;
            let now = self.vm.now();
            // Relaxed: the notification publishes it.
            let due = due.swap(0, Ordering::Relaxed);
            if due != 0 && self.meter.round(&self.vm.phase) {
                self.meter.wakes.push(now.saturating_sub(due));
            }
            work(works);
        }
    }

    fn locks(&mut self, lock: usize, outer: Option<usize>) -> Result<(), Stopped> {
        let vm = self.vm;
        let lock = vm.locks.get(lock).unwrap();
        let outer = outer.map(|outer| vm.locks.get(outer).unwrap());
        loop {
            self.enter()?;
            if let Some(outer) = outer {
                outer.acquire(&mut self.parker, &vm.stop)?;
                spin(INSIDE);
            }
            lock.acquire(&mut self.parker, &vm.stop)?;
            spin(INSIDE);
            lock.release(&mut self.parker)?;
            if let Some(outer) = outer {
                spin(INSIDE);
                outer.release(&mut self.parker)?;
            }
            self.meter.round(&vm.phase);
            spin(OUTSIDE);
        }
    }
}
