//! The state of a paused scheduler, out and in.
//!
//! KVM folds a pending kick of a halted vCPU into its MP state and has no room
//! for one that is pending on a running vCPU: `KVM_GET_MP_STATE` says RUNNABLE
//! either way. A guest whose kick is lost that way sleeps for ever in a lock it
//! was given. Here the latch is part of what is saved.

use core::fmt;

use alloc::vec;
use alloc::vec::Vec;

use crate::apic_id::ApicId;
use crate::platform::Platform;
use crate::scheduler::HaltScheduler;
use crate::slot::Slot;
use crate::state::{Event, State};

/// One vCPU's part of a [`SavedScheduler`], which has an example.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SavedVcpu {
    /// The vCPU's APIC ID.
    pub apic_id: ApicId,
    /// It has executed HLT and not been woken.
    pub halted: bool,
    /// A kick is latched: its next halt, or the present one, ends at once.
    pub kicked: bool,
    /// An event is latched, which does the same.
    pub event: bool,
}

/// What [`HaltScheduler::save`] gives and [`HaltScheduler::restore`] takes: all
/// that has to be kept of a VM's scheduler. With the feature `serde` it serialises.
///
/// ```
/// use pv_lock_host::{ApicId, HaltScheduler, SavedScheduler, SavedVcpu, WakeReason};
///
/// // As another VMM's snapshot has it: halted, and kicked meanwhile.
/// let vcpu = SavedVcpu { apic_id: ApicId(0), halted: true, kicked: true, event: false };
/// let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
/// scheduler.restore(&SavedScheduler { vcpus: vec![vcpu] }).unwrap();
/// scheduler.kicker().resume_all();
/// assert!(parkers[0].is_halted());
/// assert_eq!(parkers[0].halt(), WakeReason::Kicked);
/// # Ok::<(), pv_lock_host::BuildError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SavedScheduler {
    /// In the order of the ids that the scheduler was built with.
    pub vcpus: Vec<SavedVcpu>,
}

/// Why a scheduler could not be saved or restored. It is unchanged.
///
/// ```
/// use pv_lock_host::{ApicId, HaltScheduler, SavedError};
///
/// let (scheduler, _parkers) = HaltScheduler::new(&[ApicId(0)])?;
/// let error = scheduler.save().unwrap_err(); // not paused
/// assert_eq!(error, SavedError::NotPaused(ApicId(0)));
/// assert_eq!(error.to_string(), "the vCPU with APIC ID 0 is not at rest");
/// # Ok::<(), pv_lock_host::BuildError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SavedError {
    /// This vCPU is not at rest: the VM is neither paused nor stopped, or the
    /// vCPU's thread neither waits in
    /// [`VcpuParker::wait_resumed`](crate::VcpuParker::wait_resumed) nor has
    /// left.
    NotPaused(ApicId),
    /// The saved state has this vCPU and the scheduler has not, or the other
    /// way round, or it comes twice.
    Mismatch(ApicId),
}

impl fmt::Display for SavedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPaused(id) => write!(f, "the vCPU with APIC ID {id} is not at rest"),
            Self::Mismatch(id) => write!(f, "APIC ID {id} is not in both states once"),
        }
    }
}

impl core::error::Error for SavedError {}

impl<P: Platform> HaltScheduler<P> {
    /// Whether every vCPU is at rest: the VM is paused or stopped, and each thread
    /// waits for the end of the pause, or is [away](crate::VcpuParker::leave), or
    /// gone. It stays so until the VM is resumed or reset, whoever
    /// [attaches](HaltScheduler::attach) meanwhile. What [`HaltScheduler::save`]
    /// saves is changed by kicks, by notifications, and by a thread that comes back
    /// from being away and halts: it is told of the pause, and its vCPU is halted
    /// from then on. What the vCPUs' threads wrote before is seen by who sees this.
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler};
    /// let (scheduler, parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// assert!(!scheduler.is_quiescent()); // it has not begun, but may at any moment
    /// scheduler.kicker().pause_all();
    /// assert!(scheduler.is_quiescent()); // now it may not
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    pub fn is_quiescent(&self) -> bool {
        self.shared.slots.iter().all(|slot| slot.look().at_rest())
    }

    /// Saves the state of the scheduler of a VM that is paused, or stopped.
    ///
    /// # Errors
    /// A vCPU is not at rest (yet); nothing has changed.
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler, WakeReason};
    /// let (scheduler, _parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// scheduler.kicker().kick_by_host(ApicId(0)); // of a running vCPU
    /// scheduler.kicker().pause_all();
    /// let saved = scheduler.save().unwrap();
    ///
    /// let (restored, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// restored.restore(&saved).unwrap();
    /// restored.kicker().resume_all();
    /// assert_eq!(parkers[0].halt(), WakeReason::Kicked);
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    pub fn save(&self) -> Result<SavedScheduler, SavedError> {
        let save = |slot: &Slot<P>| {
            let state = slot.look();
            if !state.at_rest() {
                return Err(SavedError::NotPaused(slot.apic_id()));
            }
            Ok(SavedVcpu {
                apic_id: slot.apic_id(),
                halted: state.has(State::HALTED),
                kicked: state.has(State::KICKED),
                event: state.has(State::EVENT),
            })
        };
        let vcpus = self.shared.slots.iter().map(save);
        Ok(SavedScheduler {
            vcpus: vcpus.collect::<Result<_, _>>()?,
        })
    }

    /// Puts a saved state into a scheduler with the same APIC ids, in any order,
    /// all of whose vCPUs are at rest or have not begun. It is paused afterwards:
    /// start the threads, which begin with
    /// [`VcpuParker::wait_resumed`](crate::VcpuParker::wait_resumed) (it says who
    /// was halted), then [`Kicker::resume_all`](crate::Kicker::resume_all). Kicks
    /// that come meanwhile may be lost. One that was stopped stays stopped:
    /// [`HaltScheduler::reset`] it first.
    ///
    /// # Errors
    /// The ids differ, or a vCPU runs; nothing has changed then, but that a pause
    /// by somebody else in that moment may have ended.
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler, SavedError};
    /// let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// scheduler.kicker().pause_all();
    /// let saved = scheduler.save().unwrap();
    /// scheduler.kicker().resume_all();
    /// parkers[0].enter().unwrap();
    /// assert_eq!(scheduler.restore(&saved), Err(SavedError::NotPaused(ApicId(0))));
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    pub fn restore(&self, saved: &SavedScheduler) -> Result<(), SavedError> {
        let slots = &self.shared.slots;
        let mut parts = vec![None; slots.len()];
        for vcpu in &saved.vcpus {
            let index = self.shared.table.get(vcpu.apic_id);
            match index.and_then(|index| parts.get_mut(index)) {
                Some(part @ None) => *part = Some(vcpu),
                _ => return Err(SavedError::Mismatch(vcpu.apic_id)),
            }
        }
        if let Some((slot, _)) = slots.iter().zip(&parts).find(|(_, part)| part.is_none()) {
            return Err(SavedError::Mismatch(slot.apic_id()));
        }
        // First the pause: what is at rest then stays so, however long it takes
        // to look at the others.
        let paused: Vec<bool> = (slots.iter())
            .map(|slot| {
                !self
                    .shared
                    .signal(slot, Event::Pause)
                    .before
                    .has(State::PAUSE)
            })
            .collect();
        if let Some(running) = slots.iter().find(|slot| !slot.look().at_rest()) {
            for (slot, _) in slots.iter().zip(&paused).filter(|(_, paused)| **paused) {
                self.shared.signal(slot, Event::Resume);
            }
            return Err(SavedError::NotPaused(running.apic_id()));
        }
        for (slot, part) in slots.iter().zip(parts) {
            if let Some(part) = part {
                let restored = |s: State| (s.restored(part.halted, part.kicked, part.event), ());
                let (before, after, ()) = slot.update(restored);
                self.shared.load.account(before, after);
            }
        }
        Ok(())
    }

    /// Puts the scheduler into the state in which it was built, for a VM that
    /// starts again in the same threads: nothing latched, not paused, not
    /// stopped. Each vCPU's thread must have called
    /// [`VcpuParker::leave`](crate::VcpuParker::leave) since it was stopped, or
    /// be gone.
    ///
    /// # Errors
    /// A vCPU has not left; nothing has changed then.
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler, WakeReason};
    /// let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// scheduler.kicker().stop_all();
    /// assert_eq!(parkers[0].halt(), WakeReason::Stopped);
    /// parkers[0].leave();
    /// scheduler.reset().unwrap();
    /// assert_eq!(parkers[0].enter(), Ok(()));
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    pub fn reset(&self) -> Result<(), SavedError> {
        let slots = &self.shared.slots;
        let ready = |slot: &&Slot<P>| {
            let state = slot.look();
            state.has(State::AWAY) && state.has(State::STOP)
        };
        if let Some(slot) = slots.iter().find(|slot| !ready(slot)) {
            return Err(SavedError::NotPaused(slot.apic_id()));
        }
        for slot in slots {
            // Nothing to account: it is away before and after.
            slot.update(|state| (state.reset(), ()));
        }
        Ok(())
    }
}
