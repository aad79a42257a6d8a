//! How a scheduler is made.

use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::AtomicU64;

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::apic_id::ApicId;
use crate::convoy::Convoy;
use crate::load::{HaltedElsewhere, Load, MAX_VCPUS};
use crate::parker::VcpuParker;
use crate::platform::{DefaultPlatform, Platform};
use crate::polling::{Polling, Window};
use crate::scheduler::HaltScheduler;
use crate::shared::Shared;
use crate::slot::Slot;
use crate::table::ApicTable;
use crate::yielding::Yielding;

/// Chooses policies, then builds a [`HaltScheduler`].
///
/// ```
/// use std::time::Duration;
/// use pv_lock_host::{ApicId, HaltScheduler, Polling, Yielding};
///
/// let (scheduler, parkers) = HaltScheduler::builder()
///     .yielding(Yielding::SchedYield)
///     .polling(Polling::Fixed(Duration::from_micros(20)))
///     .pcpus(2)
///     .counting(false)
///     .build(&[ApicId(0), ApicId(1)])?;
/// # Ok::<(), pv_lock_host::BuildError>(())
/// ```
/// With a platform of one's own: `SchedulerBuilder::<Mine>::default()`.
#[derive(Debug)]
#[must_use]
pub struct SchedulerBuilder<P: Platform = DefaultPlatform> {
    polling: Polling,
    yielding: Yielding,
    pcpus: Option<usize>,
    counting: bool,
    elsewhere: Option<HaltedElsewhere>,
    platform: PhantomData<fn() -> P>,
}

impl<P: Platform> Clone for SchedulerBuilder<P> {
    fn clone(&self) -> Self {
        Self {
            elsewhere: self.elsewhere.clone(),
            ..*self
        }
    }
}

impl<P: Platform> Default for SchedulerBuilder<P> {
    fn default() -> Self {
        Self {
            polling: Polling::Off,
            yielding: Yielding::default(),
            pcpus: None,
            counting: true,
            elsewhere: None,
            platform: PhantomData,
        }
    }
}

impl<P: Platform> SchedulerBuilder<P> {
    /// How long a halted vCPU looks for a kick before its thread sleeps; see
    /// [`Polling`]. Off without it.
    pub fn polling(mut self, polling: Polling) -> Self {
        self.polling = polling;
        self
    }

    /// What follows a kick that woke a vCPU; see [`Yielding`]. Convoys are held
    /// without it.
    pub fn yielding(mut self, yielding: Yielding) -> Self {
        self.yielding = yielding;
        self
    }

    /// How many pCPUs the vCPUs share; without it, as many as the platform says
    /// ([`Platform::pcpus`]), asked again whenever a vCPU is to be held. Zero
    /// counts as one.
    pub fn pcpus(mut self, n: usize) -> Self {
        self.pcpus = Some(n);
        self
    }

    /// Whether to count kicks, halts and holds and how long they took; see
    /// [`Counters`](crate::Counters). On without it.
    pub fn counting(mut self, counting: bool) -> Self {
        self.counting = counting;
        self
    }

    /// The vCPUs halt where this crate does not see it, in KVM for one, and are
    /// kicked there, by `KvmKick` for one; but their guests'
    /// kicks come through
    /// [`VcpuParker::kick_elsewhere`](crate::VcpuParker::kick_elsewhere). `halted`
    /// says how many of them sleep in a halt now: on KVM by the statistic
    /// `blocking` of `KVM_GET_STATS_FD`. It is asked when a vCPU is to be held,
    /// and five times a millisecond while one is.
    ///
    /// An interrupt for a held vCPU is then not seen either, so holds should be
    /// short ([`HoldPolicy::longest`](crate::HoldPolicy::longest)).
    ///
    /// ```
    /// use std::sync::Arc;
    /// use pv_lock_host::{ApicId, HaltScheduler};
    ///
    /// let builder = HaltScheduler::builder().halts_elsewhere(Arc::new(|| 0));
    /// let (scheduler, parkers) = builder.build(&[ApicId(0), ApicId(1)])?;
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    pub fn halts_elsewhere(mut self, halted: Arc<dyn Fn() -> usize + Send + Sync>) -> Self {
        self.elsewhere = Some(HaltedElsewhere(halted));
        self
    }

    /// Makes the scheduler and one parker per vCPU, in the order of `ids`.
    ///
    /// # Errors
    /// No id, more than 2^14 of them, or one that comes twice.
    pub fn build(
        self,
        ids: &[ApicId],
    ) -> Result<(HaltScheduler<P>, Vec<VcpuParker<P>>), BuildError> {
        if ids.is_empty() {
            return Err(BuildError::NoVcpus);
        }
        if ids.len() > MAX_VCPUS {
            return Err(BuildError::TooManyVcpus(ids.len()));
        }
        let table = ApicTable::new(ids).map_err(BuildError::DuplicateApicId)?;
        let sched_yield = self.yielding == Yielding::SchedYield;
        let convoy = match &self.yielding {
            // One vCPU alone is no convoy.
            Yielding::Hold(policy) if ids.len() > 1 => Some(Convoy::new(policy)),
            _ => None,
        };
        let tracked = sched_yield || convoy.is_some() || self.polling != Polling::Off;
        let shared = Shared {
            slots: ids.iter().map(|&id| Slot::new(id)).collect(),
            table,
            no_such_vcpu: AtomicU64::new(0),
            counting: self.counting,
            sched_yield,
            convoy,
            load: Load::new(self.pcpus, tracked, self.elsewhere),
        };
        Ok(HaltScheduler::from_parts(shared, Window::new(self.polling)))
    }
}

/// Why no scheduler could be made.
///
/// ```
/// use pv_lock_host::{BuildError, HaltScheduler};
///
/// let none = HaltScheduler::new(&[]).unwrap_err();
/// assert_eq!(none, BuildError::NoVcpus);
/// assert_eq!(none.to_string(), "a scheduler needs at least one vCPU");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum BuildError {
    /// A VM has at least one vCPU.
    NoVcpus,
    /// This many vCPUs were asked for.
    TooManyVcpus(usize),
    /// Two vCPUs were given this id.
    DuplicateApicId(ApicId),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoVcpus => write!(f, "a scheduler needs at least one vCPU"),
            Self::TooManyVcpus(n) => write!(f, "{n} vCPUs are more than {MAX_VCPUS}"),
            Self::DuplicateApicId(id) => write!(f, "two vCPUs have the APIC ID {id}"),
        }
    }
}

impl core::error::Error for BuildError {}
