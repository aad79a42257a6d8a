//! The half that everyone but a vCPU's own thread holds.

use alloc::sync::Arc;

use crate::apic_id::ApicId;
use crate::outcome::KickOutcome;
use crate::platform::{DefaultPlatform, Platform};
use crate::scheduler::Owner;
use crate::state::Event;

/// Wakes, pauses and stops vCPUs, from any thread.
///
/// No method takes a lock or allocates: atomic operations, and a futex wake for
/// each vCPU that sleeps. So all but `clone` and `drop` may be called from a
/// signal handler.
///
/// When the scheduler and all of its kickers are gone nobody could wake a vCPU
/// any more: the VM is stopped then.
///
/// ```
/// use pv_lock_host::{ApicId, HaltScheduler, Interruption};
///
/// let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
/// let kicker = scheduler.kicker();
/// let other = kicker.clone(); // Clone + Send + Sync
/// drop((scheduler, kicker, other));
/// assert_eq!(parkers[0].enter(), Err(Interruption::Stopped));
/// # Ok::<(), pv_lock_host::BuildError>(())
/// ```
#[derive(Debug)]
pub struct Kicker<P: Platform = DefaultPlatform> {
    owner: Arc<Owner<P>>,
}

impl<P: Platform> Clone for Kicker<P> {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.owner))
    }
}

impl<P: Platform> Kicker<P> {
    pub(crate) const fn new(owner: Arc<Owner<P>>) -> Self {
        Self { owner }
    }

    /// A kick from the host: ends the halt of the vCPU with this APIC ID, or its
    /// next one. What this thread wrote before is seen by the vCPU after it.
    ///
    /// For a `KVM_HC_KICK_CPU` by a guest's vCPU:
    /// [`VcpuParker::kick_by_guest`](crate::VcpuParker::kick_by_guest), by which
    /// the policy knows who kicked.
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler, KickOutcome};
    /// let (scheduler, _parkers) = HaltScheduler::new(&[ApicId(3)])?;
    /// assert_eq!(scheduler.kicker().kick_by_host(ApicId(3)), KickOutcome::Latched);
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    #[inline]
    pub fn kick_by_host(&self, id: ApicId) -> KickOutcome {
        self.owner.shared.kick(id)
    }

    /// Announces an interrupt, NMI or INIT: as a kick, but told apart, and it
    /// ends a hold too.
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler, WakeReason};
    /// let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// scheduler.kicker().notify(ApicId(0));
    /// assert_eq!(parkers[0].halt(), WakeReason::Event);
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    #[inline]
    pub fn notify(&self, id: ApicId) -> KickOutcome {
        let shared = &self.owner.shared;
        match shared.table.get(id) {
            Some(index) => {
                let slot = shared.slot(index);
                let signalled = slot.notify();
                shared.follow(slot, signalled);
                signalled.outcome
            }
            None => shared.no_such_vcpu(),
        }
    }

    /// Has one vCPU come out of its halt or hold, or of the next
    /// [`VcpuParker::enter`](crate::VcpuParker::enter), and say so
    /// ([`WakeReason::Interrupted`](crate::WakeReason::Interrupted),
    /// [`Interruption::Interrupted`](crate::Interruption::Interrupted)): to take
    /// one vCPU out of a running VM, or to ask its thread for something.
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler, Interruption};
    /// let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// scheduler.kicker().interrupt(ApicId(0));
    /// assert_eq!(parkers[0].enter(), Err(Interruption::Interrupted));
    /// assert_eq!(parkers[0].enter(), Ok(())); // it is said once
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    pub fn interrupt(&self, id: ApicId) -> KickOutcome {
        let shared = &self.owner.shared;
        match shared.table.get(id) {
            Some(index) => shared.signal(shared.slot(index), Event::Interrupt).outcome,
            None => shared.no_such_vcpu(),
        }
    }

    /// Kicks every vCPU, as a kick with a broadcast destination does (on KVM,
    /// APIC ID 0xff unless userspace turned that quirk off); gives the number
    /// of those it woke.
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler};
    /// let (scheduler, _parkers) = HaltScheduler::new(&[ApicId(0), ApicId(1)])?;
    /// assert_eq!(scheduler.kicker().kick_all(), 0); // both run: latched
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    pub fn kick_all(&self) -> usize {
        let shared = &self.owner.shared;
        (shared.slots.iter())
            .filter(|slot| shared.kick_slot(slot) == KickOutcome::Woke)
            .count()
    }

    /// Makes every halt return [`WakeReason::Paused`](crate::WakeReason::Paused),
    /// and every [`enter`](crate::VcpuParker::enter)
    /// [`Interruption::Paused`](crate::Interruption::Paused), until
    /// [`Kicker::resume_all`]. Kicks go on being latched.
    ///
    /// A vCPU that runs guest code does not notice: make it leave the guest (by
    /// `immediate_exit` and a signal, see the crate's README).
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler, WakeReason};
    /// let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// scheduler.kicker().pause_all();
    /// assert_eq!(parkers[0].halt(), WakeReason::Paused);
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    pub fn pause_all(&self) {
        self.all(Event::Pause);
    }

    /// Ends a pause.
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler};
    /// let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// scheduler.kicker().pause_all();
    /// scheduler.kicker().resume_all();
    /// assert_eq!(parkers[0].enter(), Ok(()));
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    pub fn resume_all(&self) {
        self.all(Event::Resume);
    }

    /// Makes every halt return [`WakeReason::Stopped`](crate::WakeReason::Stopped)
    /// and every [`enter`](crate::VcpuParker::enter)
    /// [`Interruption::Stopped`](crate::Interruption::Stopped), until
    /// [`HaltScheduler::reset`](crate::HaltScheduler::reset).
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler, WakeReason};
    /// let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// scheduler.kicker().stop_all();
    /// assert_eq!(parkers[0].halt(), WakeReason::Stopped);
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    pub fn stop_all(&self) {
        self.all(Event::Stop);
    }

    fn all(&self, event: Event) {
        let shared = &self.owner.shared;
        for slot in &shared.slots {
            shared.signal(slot, event);
        }
    }
}
