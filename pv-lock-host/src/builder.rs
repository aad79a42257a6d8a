//! How a scheduler is made.

use core::fmt;
use core::num::NonZeroUsize;

use crate::apic_id::ApicId;
use crate::gate::Gate;
use crate::parker::VcpuParker;
use crate::polling::{Polling, Window};
use crate::scheduler::{HaltScheduler, Load, Shared};
use crate::sync::Arc;
use crate::table::ApicTable;
use crate::yielding::Yielding;

/// More vCPUs than any kernel or APIC knows; keeps slot numbers in 32 bits.
const MAX_VCPUS: usize = 1 << 24;

/// Chooses policies, then builds a [`HaltScheduler`].
#[derive(Clone, Debug)]
#[must_use]
pub struct SchedulerBuilder {
    polling: Polling,
    yielding: Yielding,
    host_cpus: Option<NonZeroUsize>,
    counting: bool,
}

impl Default for SchedulerBuilder {
    fn default() -> Self {
        Self {
            polling: Polling::Off,
            yielding: Yielding::default(),
            host_cpus: None,
            counting: true,
        }
    }
}

impl SchedulerBuilder {
    /// How long a halted vCPU looks for a kick before its thread sleeps.
    pub fn polling(mut self, polling: Polling) -> Self {
        self.polling = polling;
        self
    }

    /// What follows a kick that woke a vCPU.
    pub fn yielding(mut self, yielding: Yielding) -> Self {
        self.yielding = yielding;
        self
    }

    /// How many host CPUs the vCPUs share; without it, as many as the calling
    /// thread may use. Zero counts as one.
    pub fn host_cpus(mut self, n: usize) -> Self {
        self.host_cpus = NonZeroUsize::new(n.max(1));
        self
    }

    /// Whether to count kicks and halts and how long they took. On without it.
    pub fn counting(mut self, counting: bool) -> Self {
        self.counting = counting;
        self
    }

    /// Makes the scheduler and one parker per vCPU, in the order of `ids`.
    ///
    /// # Errors
    /// No id, more than 2^24 of them, or one that comes twice.
    pub fn build(self, ids: &[ApicId]) -> Result<(HaltScheduler, Vec<VcpuParker>), BuildError> {
        if ids.is_empty() {
            return Err(BuildError::NoVcpus);
        }
        if ids.len() > MAX_VCPUS {
            return Err(BuildError::TooManyVcpus(ids.len()));
        }
        let table = ApicTable::new(ids).map_err(BuildError::DuplicateApicId)?;
        let host_cpus = match self.host_cpus {
            Some(n) => n,
            None => std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        };
        let sched_yield = matches!(self.yielding, Yielding::SchedYield);
        let gate = match self.yielding {
            Yielding::Nothing | Yielding::SchedYield => None,
            Yielding::Cap(cap) => {
                let running = cap.running.unwrap_or(host_cpus);
                (ids.len() > running.get()).then(|| Gate::new(cap, running, ids.len()))
            }
        };
        let window = Window::new(self.polling);
        let tracked = sched_yield || gate.is_some() || self.polling != Polling::Off;
        let load = Load::new(ids.len(), host_cpus.get(), tracked);
        let shared = Shared::new(ids, table, self.counting, sched_yield, gate, load);
        let shared = Arc::new(shared);
        let parkers = (0..ids.len())
            .map(|index| VcpuParker::new(Arc::clone(&shared), index, window))
            .collect();
        Ok((HaltScheduler { shared }, parkers))
    }
}

/// Why no scheduler could be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
