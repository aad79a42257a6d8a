//! The slots of one VM, and the handle of the one who owns the VM.

use crate::apic_id::ApicId;
use crate::builder::{BuildError, SchedulerBuilder};
use crate::kicker::Kicker;
use crate::parker::VcpuParker;
use crate::slot::Slot;
use crate::sync::Arc;
use crate::table::ApicTable;

use std::sync::atomic::AtomicU64;

/// What all handles of one VM share. Immutable but for the atomics.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) slots: Box<[Slot]>,
    pub(crate) table: ApicTable,
    /// Kicks and notifications for ids that no vCPU has.
    pub(crate) no_such_vcpu: AtomicU64,
}

impl Shared {
    #[inline]
    #[expect(
        clippy::indexing_slicing,
        reason = "an index comes from the table or from build, and slots never change"
    )]
    pub(crate) fn slot(&self, index: usize) -> &Slot {
        &self.slots[index]
    }
}

/// The halt/kick scheduler of one VM: a slot per vCPU.
#[derive(Debug)]
pub struct HaltScheduler {
    pub(crate) shared: Arc<Shared>,
}

impl HaltScheduler {
    /// A scheduler with the default policies. The parkers come in the order of
    /// `ids`, one for each vCPU thread.
    ///
    /// # Errors
    /// No id, more than 2^24 of them, or one that comes twice.
    pub fn new(ids: &[ApicId]) -> Result<(Self, Vec<VcpuParker>), BuildError> {
        Self::builder().build(ids)
    }

    /// For other policies than the default ones.
    pub fn builder() -> SchedulerBuilder {
        SchedulerBuilder::default()
    }

    /// The half that everyone else holds.
    pub fn kicker(&self) -> Kicker {
        Kicker::new(Arc::clone(&self.shared))
    }
}
