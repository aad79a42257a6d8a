//! The state of a paused scheduler, out and in.
//!
//! KVM folds a pending kick of a halted vCPU into its MP state and has no room
//! for one that is pending on a running vCPU: `KVM_GET_MP_STATE` says RUNNABLE
//! either way. A guest whose kick is lost that way sleeps for ever in a lock it
//! was given. Here the latch is part of what is saved.

use core::fmt;

use crate::apic_id::ApicId;
use crate::scheduler::HaltScheduler;
use crate::state::State;

/// One vCPU's part of a [`SavedScheduler`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SavedVcpu {
    /// Whose state this is.
    pub apic_id: ApicId,
    /// It has executed HLT and not been woken.
    pub halted: bool,
    /// A kick is latched.
    pub kicked: bool,
    /// An event is latched.
    pub event: bool,
}

/// What [`HaltScheduler::save`] gives and [`HaltScheduler::restore`] takes.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SavedScheduler {
    /// In the order of the ids that the scheduler was built with.
    pub vcpus: Vec<SavedVcpu>,
}

/// Why a scheduler could not be saved or restored. It is unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SavedError {
    /// This vCPU's thread does not sleep in
    /// [`VcpuParker::wait_resumed`](crate::VcpuParker::wait_resumed) (for a
    /// save), or its VM is neither paused nor new (for a restore).
    NotPaused(ApicId),
    /// The saved state has this vCPU and the scheduler has not, or the other
    /// way round, or it comes twice.
    Mismatch(ApicId),
}

impl fmt::Display for SavedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPaused(id) => write!(f, "the vCPU with APIC ID {id} is not paused"),
            Self::Mismatch(id) => write!(f, "APIC ID {id} is not in both states once"),
        }
    }
}

impl core::error::Error for SavedError {}

impl HaltScheduler {
    /// Whether every vCPU's thread sleeps because of a pause (or is gone), so
    /// that nothing but kicks can change what [`HaltScheduler::save`] saves.
    pub fn is_quiescent(&self) -> bool {
        let mut slots = self.shared.slots.iter();
        slots.all(|slot| slot.peek().quiescent())
    }

    /// The state of a paused VM's scheduler.
    ///
    /// # Errors
    /// A vCPU's thread is not asleep yet; the VM goes on being paused.
    pub fn save(&self) -> Result<SavedScheduler, SavedError> {
        let save = |slot: &crate::slot::Slot| {
            let state = slot.peek();
            if !state.quiescent() {
                return Err(SavedError::NotPaused(slot.apic_id()));
            }
            Ok(SavedVcpu {
                apic_id: slot.apic_id(),
                halted: state.has(State::HALTED),
                kicked: state.has(State::KICKED),
                event: state.has(State::EVENT),
            })
        };
        let vcpus = self
            .shared
            .slots
            .iter()
            .map(save)
            .collect::<Result<_, _>>()?;
        Ok(SavedScheduler { vcpus })
    }

    /// Puts a saved state into a paused or a new scheduler with the same APIC
    /// ids, in any order. It is paused afterwards: start the threads, then
    /// [`Kicker::resume_all`](crate::Kicker::resume_all).
    ///
    /// # Errors
    /// The ids differ, or the VM runs.
    pub fn restore(&self, saved: &SavedScheduler) -> Result<(), SavedError> {
        let mut parts = vec![None; self.shared.slots.len()];
        for vcpu in &saved.vcpus {
            let index = self.shared.table.get(vcpu.apic_id);
            match index.and_then(|index| parts.get_mut(index)) {
                Some(part @ None) => *part = Some(vcpu),
                _ => return Err(SavedError::Mismatch(vcpu.apic_id)),
            }
        }
        for (slot, part) in self.shared.slots.iter().zip(&parts) {
            let state = slot.peek();
            if part.is_none() {
                return Err(SavedError::Mismatch(slot.apic_id()));
            }
            if !state.has(State::PAUSE) && state != State::RUNNING {
                return Err(SavedError::NotPaused(slot.apic_id()));
            }
        }
        for (slot, part) in self.shared.slots.iter().zip(parts) {
            if let Some(part) = part {
                let (before, after, ()) =
                    slot.update(|s| (s.restored(part.halted, part.kicked, part.event), ()));
                self.shared.load.account(before, after);
            }
        }
        Ok(())
    }
}
