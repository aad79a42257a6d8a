//! Kicks of vCPUs that sleep, one thread each: the futex wake, and what the
//! default policy asks of the one who kicks. One pCPU each VM is told of, so that
//! more want to run than there are and the rules for that case apply.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pv_lock_host::{ApicId, HaltScheduler, KickOutcome, VcpuParker, WakeReason};

use super::Timed;

pub(crate) const SIZES: [u32; 3] = [2, 16, 256];

/// Of each of two vCPUs in one round.
const KICKS: u32 = 5;
/// From a vCPU that says that it is going to halt until it surely sleeps.
const FALLS_ASLEEP: Duration = Duration::from_micros(40);

struct Vm {
    sleepers: u32,
    by_guest: bool,
    /// The one that kicks.
    kicker: VcpuParker,
    scheduler: HaltScheduler,
    /// How often each has gone to sleep.
    naps: Arc<[AtomicU32]>,
    threads: Vec<thread::JoinHandle<()>>,
}

pub(crate) fn vms() -> Vec<Box<dyn Timed>> {
    let vm = |by_guest| move |sleepers| Box::new(Vm::new(sleepers, by_guest)) as Box<dyn Timed>;
    let by_host = SIZES.map(vm(false));
    by_host.into_iter().chain(SIZES.map(vm(true))).collect()
}

impl Vm {
    /// vCPU 0 kicks, the others sleep.
    fn new(sleepers: u32, by_guest: bool) -> Self {
        let ids: Vec<ApicId> = (0..=sleepers).map(ApicId).collect();
        let (scheduler, mut parkers) = HaltScheduler::builder().pcpus(1).build(&ids).unwrap();
        let mut kicker = parkers.remove(0);
        kicker.enter().unwrap();
        let naps: Arc<[AtomicU32]> = ids.iter().map(|_| AtomicU32::new(0)).collect();
        let sleeper = |mut parker: VcpuParker| {
            let naps = Arc::clone(&naps);
            thread::spawn(move || {
                let mine = naps.get(parker.apic_id().0 as usize).unwrap();
                loop {
                    // Relaxed: a hint, after which the kicker still waits.
                    mine.fetch_add(1, Ordering::Relaxed);
                    if parker.halt() == WakeReason::Stopped {
                        return;
                    }
                }
            })
        };
        let threads = parkers.into_iter().map(sleeper).collect();
        let vm = Self {
            sleepers,
            by_guest,
            kicker,
            scheduler,
            naps,
            threads,
        };
        for &id in ids.iter().skip(1) {
            vm.wait_asleep(id, 0);
        }
        vm
    }

    fn naps(&self, id: ApicId) -> u32 {
        let naps = self.naps.get(id.0 as usize);
        naps.map_or(0, |naps| naps.load(Ordering::Relaxed))
    }

    /// Until this vCPU has gone to sleep more than `before` times.
    fn wait_asleep(&self, id: ApicId, before: u32) {
        while self.naps(id) == before {
            thread::yield_now();
        }
        let begin = Instant::now();
        while begin.elapsed() < FALLS_ASLEEP {
            thread::yield_now();
        }
    }

    /// How long one kick takes that wakes this vCPU.
    fn kick(&mut self, id: ApicId) -> Duration {
        loop {
            let naps = self.naps(id);
            let begin = Instant::now();
            let outcome = match self.by_guest {
                true => self.kicker.kick_by_guest(id),
                false => self.scheduler.kicker().kick_by_host(id),
            };
            let spent = begin.elapsed();
            self.wait_asleep(id, naps);
            // One that was not asleep yet is not what is asked for.
            if outcome == KickOutcome::Woke {
                return spent;
            }
        }
    }
}

impl Timed for Vm {
    fn name(&self) -> String {
        let by = if self.by_guest { "a guest" } else { "the host" };
        format!("by {by}, {} asleep", self.sleepers)
    }

    fn round(&mut self) -> f64 {
        let ids = [ApicId(1), ApicId(self.sleepers)];
        let mut spent = Duration::ZERO;
        for _ in 0..KICKS {
            for id in ids {
                spent += self.kick(id);
            }
        }
        spent.as_secs_f64() * 1e9 / (f64::from(KICKS) * ids.len() as f64)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.scheduler.kicker().stop_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
