//! The lock that `KVM_HC_KICK_CPU` was made for: a ticket lock whose waiters halt
//! after a while and are kicked by the unlocker.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pv_lock_host::{ApicId, VcpuParker, WakeReason};

/// Rounds of spinning before a waiter halts, some ten microseconds.
const THRESHOLD: u32 = 1 << 11;
/// No ticket is waited for.
const NOTHING: u64 = u64::MAX;

/// In guest memory. SeqCst throughout: a waiter publishes its ticket and then
/// looks at `serving`, an unlocker writes `serving` and then looks for tickets,
/// and one of them must see the other.
pub(crate) struct TicketLock {
    next: AtomicU64,
    serving: AtomicU64,
    /// By vCPU: the ticket it has halted for.
    halted_for: Vec<AtomicU64>,
}

/// The VM was stopped.
pub(crate) struct Stopped;

impl TicketLock {
    pub(crate) fn new(vcpus: usize) -> Self {
        Self {
            next: AtomicU64::new(0),
            serving: AtomicU64::new(0),
            halted_for: (0..vcpus).map(|_| AtomicU64::new(NOTHING)).collect(),
        }
    }

    pub(crate) fn acquire(
        &self,
        parker: &mut VcpuParker,
        stop: &AtomicBool,
    ) -> Result<(), Stopped> {
        let ticket = self.next.fetch_add(1, Ordering::SeqCst);
        let mine = || self.serving.load(Ordering::SeqCst) == ticket;
        let me = self.halted_for.get(parker.apic_id().0 as usize).unwrap();
        loop {
            for _ in 0..THRESHOLD {
                if mine() {
                    return Ok(());
                }
                std::hint::spin_loop();
            }
            if stop.load(Ordering::Relaxed) {
                return Err(Stopped);
            }
            // kvm_wait: publish, check again, HLT.
            me.store(ticket, Ordering::SeqCst);
            if !mine() && (parker.halt() == WakeReason::Stopped || parker.enter().is_err()) {
                return Err(Stopped);
            }
            me.store(NOTHING, Ordering::SeqCst);
        }
    }

    pub(crate) fn release(&self, parker: &mut VcpuParker) -> Result<(), Stopped> {
        let next = self.serving.fetch_add(1, Ordering::SeqCst) + 1;
        let waits = |ticket: &AtomicU64| ticket.load(Ordering::SeqCst) == next;
        if let Some(vcpu) = self.halted_for.iter().position(waits) {
            // kvm_kick_cpu: an exit, and in again.
            parker.kick_by_guest(ApicId(u32::try_from(vcpu).unwrap()));
            return parker.enter().map_err(|_| Stopped);
        }
        Ok(())
    }
}
