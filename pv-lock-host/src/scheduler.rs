//! The slots of one VM, and the handle of the one who owns the VM.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Instant;

use crate::apic_id::ApicId;
use crate::builder::{BuildError, SchedulerBuilder};
use crate::counters::{Counters, VcpuCounters};
use crate::gate::Gate;
use crate::kicker::Kicker;
use crate::parker::VcpuParker;
use crate::polling::nanos;
use crate::slot::Slot;
use crate::state::State;
use crate::sync::Arc;
use crate::table::ApicTable;

/// What all handles of one VM share. Immutable but for the atomics.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) slots: Box<[Slot]>,
    pub(crate) table: ApicTable,
    /// Kicks and notifications for ids that no vCPU has.
    pub(crate) no_such_vcpu: AtomicU64,
    /// Whether kicks and halts are counted.
    pub(crate) counting: bool,
    /// Whether a kicker's thread yields after a kick, if it is crowded.
    pub(crate) sched_yield: bool,
    pub(crate) gate: Option<Gate>,
    pub(crate) load: Load,
    epoch: Instant,
}

/// How many vCPUs want to run: all but those that sleep and are not woken.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Load {
    wanting: AtomicUsize,
    vcpus: usize,
    host_cpus: usize,
    /// Whether any policy asks.
    tracked: bool,
}

impl Load {
    pub(crate) fn new(vcpus: usize, host_cpus: usize, tracked: bool) -> Self {
        Self {
            wanting: AtomicUsize::new(vcpus),
            vcpus,
            host_cpus,
            tracked,
        }
    }

    /// Takes notice of a change of one slot's word.
    #[inline]
    pub(crate) fn account(&self, before: State, after: State) {
        if self.tracked && before.idle() != after.idle() {
            // Relaxed: a count, exact since every change of every word is
            // accounted once; it may lag behind a word by an instruction.
            if after.idle() {
                self.wanting.fetch_sub(1, Relaxed);
            } else {
                self.wanting.fetch_add(1, Relaxed);
            }
        }
    }

    /// Whether more vCPUs want to run than there are host CPUs.
    #[inline]
    pub(crate) fn crowded(&self) -> bool {
        self.wanting.load(Relaxed) > self.host_cpus
    }

    /// Whether some vCPU sleeps and is not woken.
    #[inline]
    pub(crate) fn any_idle(&self) -> bool {
        self.wanting.load(Relaxed) < self.vcpus
    }
}

impl Shared {
    pub(crate) fn new(
        ids: &[ApicId],
        table: ApicTable,
        counting: bool,
        sched_yield: bool,
        gate: Option<Gate>,
        load: Load,
    ) -> Self {
        Self {
            slots: ids.iter().map(|&id| Slot::new(id)).collect(),
            table,
            no_such_vcpu: AtomicU64::new(0),
            counting,
            sched_yield,
            gate,
            load,
            epoch: Instant::now(),
        }
    }

    #[inline]
    #[expect(
        clippy::indexing_slicing,
        reason = "an index comes from the table or from build, and slots never change"
    )]
    pub(crate) fn slot(&self, index: usize) -> &Slot {
        &self.slots[index]
    }

    /// Nanoseconds since the scheduler was made.
    pub(crate) fn now(&self) -> u64 {
        nanos(self.epoch.elapsed())
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

    /// What has happened so far. All zero but for the unknown ids if counting
    /// was turned off.
    pub fn counters(&self) -> Counters {
        Counters {
            vcpus: self.shared.slots.iter().map(read_counters).collect(),
            // Relaxed, here and below: statistics.
            no_such_vcpu: self.shared.no_such_vcpu.load(Relaxed),
        }
    }

    /// One vCPU's counters.
    pub fn vcpu_counters(&self, id: ApicId) -> Option<VcpuCounters> {
        let index = self.shared.table.get(id)?;
        Some(read_counters(self.shared.slot(index)))
    }
}

fn read_counters(slot: &Slot) -> VcpuCounters {
    let mut counters = VcpuCounters::new(slot.apic_id());
    slot.kicks.read_into(&mut counters);
    if let Some(halts) = slot.halts.get() {
        halts.read_into(&mut counters);
    }
    counters
}
