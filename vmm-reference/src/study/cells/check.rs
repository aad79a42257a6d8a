//! Why a cell measured nothing, and whether what its guests left can be believed.

use std::time::Duration;

use crate::memory::{self, GuestMemory, MemoryError};
use crate::payload::image::result_page;
use crate::payload::layout::result;
use crate::payload::waiters::layout::WaiterProgram;
use crate::signals::ending::Interrupted;
use crate::study::waker::WakerError;
use crate::vcpu::Ended;
use crate::vm::VmError;

/// How long guests may take to leave once they were asked.
pub(super) const LEAVE_LIMIT: Duration = Duration::from_secs(10);

/// Why a cell measured nothing.
#[derive(Debug, thiserror::Error)]
pub enum CellError {
    /// Its VM can't be had.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// Its memory can't be had.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Its sleeping vCPUs can't be woken.
    #[error(transparent)]
    Waker(#[from] WakerError),
    /// A vCPU failed.
    #[error("vCPU {vm}.{vcpu}: {reason}")]
    Vcpu {
        /// Its VM.
        vm: usize,
        /// Its index there.
        vcpu: usize,
        /// What happened.
        reason: String,
    },
    /// Two vCPUs were in the critical section at once, or an update was lost.
    #[error("the lock did not hold: counter {counter}, sum {sum}, {violations} violations")]
    Violation {
        /// The counter under the lock.
        counter: u64,
        /// What the vCPUs counted.
        sum: u64,
        /// Owner words that were wrong.
        violations: u64,
    },
    /// The guest's kicks were refused.
    #[error("{0} kicks were not answered with 0")]
    KickRefused(u64),
    /// A vCPU did not leave the guest.
    #[error("it did not leave its guests within {} s", LEAVE_LIMIT.as_secs())]
    Hung,
    /// A signal ended it.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// It did not run.
    #[error("the guest did not run: calibration measured nothing")]
    Calibration,
}

/// A vCPU failed that ended otherwise than by the program, or by the VMM.
pub(super) fn ends(vm: usize, ends: &[Ended]) -> Result<(), CellError> {
    for (vcpu, ended) in ends.iter().enumerate() {
        if !matches!(ended, Ended::ExitPort(0) | Ended::Stopped) {
            let reason = ended.to_string();
            return Err(CellError::Vcpu { vm, vcpu, reason });
        }
    }
    Ok(())
}

/// The lock held, and all kicks were answered.
pub(super) fn lock(
    memory: &GuestMemory,
    program: &WaiterProgram,
    vcpus: u32,
) -> Result<(), CellError> {
    let sum = |offset| {
        (0..vcpus).try_fold(0u64, |sum, index| {
            let own = memory::read_word(memory, result_page(index) + offset)?;
            Ok::<_, MemoryError>(sum.saturating_add(own))
        })
    };
    let (counter, taken) = (program.counters(memory, vcpus)?, sum(result::ACQUISITIONS)?);
    let violations = sum(result::VIOLATIONS)?;
    // One that had to be stopped may stand between its two counts.
    let complete = sum(result::DONE)? == u64::from(vcpus);
    if violations != 0 || (complete && counter != taken) {
        return Err(CellError::Violation {
            counter,
            sum: taken,
            violations,
        });
    }
    match sum(result::KICK_ERRORS)? {
        0 => Ok(()),
        refused => Err(CellError::KickRefused(refused)),
    }
}
