//! How a scheduler is made.

use core::fmt;
use std::sync::atomic::AtomicU64;

use crate::apic_id::ApicId;
use crate::parker::VcpuParker;
use crate::scheduler::{HaltScheduler, Shared};
use crate::slot::Slot;
use crate::sync::Arc;
use crate::table::ApicTable;

/// More vCPUs than any kernel or APIC knows; keeps slot numbers in 32 bits.
const MAX_VCPUS: usize = 1 << 24;

/// Chooses policies, then builds a [`HaltScheduler`].
#[derive(Clone, Debug, Default)]
pub struct SchedulerBuilder {}

impl SchedulerBuilder {
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
        let shared = Arc::new(Shared {
            slots: ids.iter().map(|&id| Slot::new(id)).collect(),
            table,
            no_such_vcpu: AtomicU64::new(0),
        });
        let parkers = (0..ids.len())
            .map(|index| VcpuParker::new(Arc::clone(&shared), index))
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
