//! The handle of the one who owns the VM.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;
use core::sync::atomic::Ordering::Relaxed;

use crate::apic_id::ApicId;
#[cfg(feature = "std")]
use crate::builder::{BuildError, SchedulerBuilder};
use crate::counters::{Counters, VcpuCounters};
use crate::kicker::Kicker;
use crate::parker::VcpuParker;
use crate::platform::{DefaultPlatform, Platform};
use crate::polling::Window;
use crate::shared::Shared;
use crate::slot::Slot;
use crate::state::{Event, State};

/// Those who can end a vCPU's sleep: the scheduler and its kickers. When the last
/// of them goes, the VM is stopped.
#[derive(Debug)]
pub(crate) struct Owner<P: Platform> {
    pub(crate) shared: Arc<Shared<P>>,
}

impl<P: Platform> Drop for Owner<P> {
    fn drop(&mut self) {
        for slot in &self.shared.slots {
            self.shared.signal(slot, Event::Stop);
        }
    }
}

impl<P: Platform> Deref for Owner<P> {
    type Target = Shared<P>;

    fn deref(&self) -> &Shared<P> {
        &self.shared
    }
}

/// The halt/kick scheduler of one VM: a slot per vCPU.
///
/// ```
/// use pv_lock_host::{ApicId, HaltScheduler};
///
/// let (scheduler, parkers) = HaltScheduler::new(&[ApicId(0), ApicId(0x101)])?;
/// assert_eq!(parkers.len(), 2); // one for each vCPU's thread
/// assert_eq!(scheduler.counters().total().halts, 0);
/// # Ok::<(), pv_lock_host::BuildError>(())
/// ```
#[derive(Debug)]
pub struct HaltScheduler<P: Platform = DefaultPlatform> {
    owner: Arc<Owner<P>>,
    pub(crate) shared: Arc<Shared<P>>,
    window: Window,
}

#[cfg(feature = "std")]
impl HaltScheduler {
    /// A scheduler with the default policies. The parkers come in the order of
    /// `ids`, one for each vCPU thread.
    ///
    /// # Errors
    /// No id, more than 2^14 of them, or one that comes twice.
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, BuildError, HaltScheduler};
    /// assert!(HaltScheduler::new(&[ApicId(0)]).is_ok());
    /// let twice = [ApicId(7), ApicId(7)];
    /// assert_eq!(HaltScheduler::new(&twice).unwrap_err(), BuildError::DuplicateApicId(ApicId(7)));
    /// ```
    pub fn new(ids: &[ApicId]) -> Result<(Self, Vec<VcpuParker>), BuildError> {
        Self::builder().build(ids)
    }

    /// A builder, for policies other than the default ones.
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler, Yielding};
    /// let builder = HaltScheduler::builder().yielding(Yielding::Nothing).pcpus(4);
    /// let (scheduler, parkers) = builder.build(&[ApicId(0)])?;
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    pub fn builder() -> SchedulerBuilder {
        SchedulerBuilder::default()
    }
}

impl<P: Platform> HaltScheduler<P> {
    pub(crate) fn from_parts(shared: Shared<P>, window: Window) -> (Self, Vec<VcpuParker<P>>) {
        let shared = Arc::new(shared);
        let parkers = (0..shared.slots.len())
            .map(|index| VcpuParker::new(Arc::clone(&shared), index, window))
            .collect();
        let owner = Arc::new(Owner {
            shared: Arc::clone(&shared),
        });
        let scheduler = Self {
            owner,
            shared,
            window,
        };
        (scheduler, parkers)
    }

    /// A handle that kicks, pauses and stops vCPUs, for all other threads.
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler};
    /// let (scheduler, _parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// scheduler.kicker().pause_all();
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    pub fn kicker(&self) -> Kicker<P> {
        Kicker::new(Arc::clone(&self.owner))
    }

    /// A new parker for a vCPU whose last one was dropped: its thread was started
    /// anew, or it was unplugged and is plugged in again. What was latched
    /// meanwhile is there; if it [is halted](VcpuParker::is_halted), halt again.
    ///
    /// # Errors
    /// There is no such vCPU, or it has a parker.
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, AttachError, HaltScheduler, WakeReason};
    /// let (scheduler, parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// assert_eq!(scheduler.attach(ApicId(0)).unwrap_err(), AttachError::Attached(ApicId(0)));
    /// drop(parkers);
    /// scheduler.kicker().kick_by_host(ApicId(0));
    /// let mut again = scheduler.attach(ApicId(0)).unwrap();
    /// assert_eq!(again.halt(), WakeReason::Kicked);
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    pub fn attach(&self, id: ApicId) -> Result<VcpuParker<P>, AttachError> {
        let index = self
            .shared
            .table
            .get(id)
            .ok_or(AttachError::NoSuchVcpu(id))?;
        // Away before and after: there is nothing to account.
        let attach = |state: State| (State(state.0 | State::ATTACHED), ());
        let (before, _, ()) = self.shared.slot(index).update(attach);
        if before.has(State::ATTACHED) {
            return Err(AttachError::Attached(id));
        }
        Ok(VcpuParker::new(
            Arc::clone(&self.shared),
            index,
            self.window,
        ))
    }

    /// From now on the vCPUs share this many pCPUs, whatever the platform says;
    /// zero counts as one. Without this and without
    /// [`SchedulerBuilder::pcpus`](crate::SchedulerBuilder::pcpus) the platform is
    /// asked ([`Platform::pcpus`]) whenever a vCPU is to be held.
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler};
    /// let (scheduler, _parkers) = HaltScheduler::builder().pcpus(8).build(&[ApicId(0)])?;
    /// scheduler.set_pcpus(4); // four of them were taken away
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    pub fn set_pcpus(&self, n: usize) {
        self.shared.load.set_pcpus(n);
    }

    /// The counters of all vCPUs so far. If counting was turned off, only
    /// `no_such_vcpu` counts.
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler, WakeReason};
    /// let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// scheduler.kicker().kick_by_host(ApicId(0));
    /// assert_eq!(parkers[0].halt(), WakeReason::Kicked);
    /// let sum = scheduler.counters().total();
    /// assert_eq!((sum.halts, sum.kicks(), sum.holds), (1, 1, 0));
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    pub fn counters(&self) -> Counters {
        Counters {
            vcpus: self.shared.slots.iter().map(read_counters).collect(),
            // Relaxed, here and below: statistics.
            no_such_vcpu: self.shared.no_such_vcpu.load(Relaxed),
        }
    }

    /// One vCPU's counters.
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler};
    /// let (scheduler, _parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// assert_eq!(scheduler.vcpu_counters(ApicId(0)).map(|c| c.halts), Some(0));
    /// assert_eq!(scheduler.vcpu_counters(ApicId(1)), None);
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    pub fn vcpu_counters(&self, id: ApicId) -> Option<VcpuCounters> {
        let index = self.shared.table.get(id)?;
        Some(read_counters(self.shared.slot(index)))
    }
}

fn read_counters<P: Platform>(slot: &Slot<P>) -> VcpuCounters {
    let mut counters = VcpuCounters::new(slot.apic_id());
    slot.kicks.read_into(&mut counters);
    if let Some(own) = slot.counted() {
        own.read_into(&mut counters);
    }
    counters
}

/// Why a vCPU was given no new parker; [`HaltScheduler::attach`] has an example.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AttachError {
    /// No vCPU has this APIC ID.
    NoSuchVcpu(ApicId),
    /// The vCPU has a parker that has not been dropped.
    Attached(ApicId),
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchVcpu(id) => write!(f, "no vCPU has the APIC ID {id}"),
            Self::Attached(id) => write!(f, "the vCPU with APIC ID {id} has a parker already"),
        }
    }
}

impl core::error::Error for AttachError {}
