//! What KVM does: halts, kicks, and interrupts from one local APIC to another, of
//! all of which the scheduler sees the kicks only.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Instant;

/// A vCPU's local APIC, and where it halts.
struct LocalApic {
    /// KVM's `pv_unhalted`.
    kicked: Mutex<bool>,
    wakes: Condvar,
    /// The IRR: when an interrupt came that the guest has not taken, in ns since
    /// the epoch; zero: none.
    irr: AtomicU64,
}

pub(crate) struct Machine {
    vcpus: Vec<LocalApic>,
    /// vCPUs that sleep in a halt: KVM's statistic `blocking`.
    blocking: AtomicUsize,
    measures: AtomicBool,
    stopped: AtomicBool,
    epoch: Instant,
}

impl Machine {
    pub(crate) fn new(vcpus: usize) -> Self {
        let apic = || LocalApic {
            kicked: Mutex::new(false),
            wakes: Condvar::new(),
            irr: AtomicU64::new(0),
        };
        Self {
            vcpus: (0..vcpus).map(|_| apic()).collect(),
            blocking: AtomicUsize::new(0),
            measures: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            epoch: Instant::now(),
        }
    }

    fn apic(&self, vcpu: usize) -> &LocalApic {
        self.vcpus.get(vcpu).unwrap()
    }

    /// Never zero.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    /// HLT: until a kick or an interrupt.
    pub(crate) fn halt(&self, vcpu: usize) {
        let apic = self.apic(vcpu);
        let mut kicked = apic.kicked.lock().unwrap_or_else(PoisonError::into_inner);
        while !*kicked && !self.is_interrupted(vcpu) && !self.is_stopped() {
            // Relaxed: a count.
            self.blocking.fetch_add(1, Ordering::Relaxed);
            let woken = apic.wakes.wait(kicked);
            kicked = woken.unwrap_or_else(PoisonError::into_inner);
            self.blocking.fetch_sub(1, Ordering::Relaxed);
        }
        *kicked = false;
    }

    pub(crate) fn kick(&self, vcpu: usize) {
        let apic = self.apic(vcpu);
        *apic.kicked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        apic.wakes.notify_one();
    }

    /// An interrupt for this vCPU, unless the last one has not been taken yet.
    pub(crate) fn interrupt(&self, vcpu: usize) {
        let apic = self.apic(vcpu);
        // Relaxed, here and below: the mutex orders it against a halt, and a guest
        // that runs looks again and again.
        let irr = &apic.irr;
        let _ = irr.compare_exchange(0, self.now(), Ordering::Relaxed, Ordering::Relaxed);
        drop(apic.kicked.lock());
        apic.wakes.notify_one();
    }

    pub(crate) fn is_interrupted(&self, vcpu: usize) -> bool {
        self.apic(vcpu).irr.load(Ordering::Relaxed) != 0
    }

    /// The guest takes its interrupt; gives when that came.
    pub(crate) fn take_interrupt(&self, vcpu: usize) -> Option<u64> {
        let came = self.is_interrupted(vcpu);
        came.then(|| self.apic(vcpu).irr.swap(0, Ordering::Relaxed))
    }

    pub(crate) fn blocking(&self) -> usize {
        self.blocking.load(Ordering::Relaxed)
    }

    /// From now on what is seen counts, or no longer.
    pub(crate) fn measures(&self, measures: bool) {
        self.measures.store(measures, Ordering::Relaxed);
    }

    pub(crate) fn is_measuring(&self) -> bool {
        self.measures.load(Ordering::Relaxed)
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        (0..self.vcpus.len()).for_each(|vcpu| self.kick(vcpu));
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }
}
