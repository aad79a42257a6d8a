//! Why a VM could not be built, started, watched or stopped.

use std::io;
use std::time::Duration;

use pv_lock_host::{BuildError, KvmKickError, SavedError};

use super::handle::NotPaused;
use crate::backend::BackendError;
use crate::cpuid::CpuidError;
use crate::host::HostError;
use crate::signals::ending::Interrupted;
use crate::snapshot::SnapshotError;

/// How long an ordered stop may take before a vCPU is given up.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(5);

/// Why a VM could not be built, started, watched or stopped.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// No CPUID can be made for its guest.
    #[error(transparent)]
    Cpuid(#[from] CpuidError),
    /// KVM refused something, or a vCPU of it failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Kicks of vCPUs with APIC IDs beyond 254.
    #[error(transparent)]
    Kick(#[from] KvmKickError),
    /// Its scheduler can't be made.
    #[error("halt/kick scheduler: {0}")]
    Scheduler(BuildError),
    /// Its interrupt controllers.
    #[error(transparent)]
    ApicIds(crate::irqchip::userspace::DuplicateId),
    /// The host does not say what it has.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A snapshot that is none for this host.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A VM whose state is not at rest, or a state of other vCPUs.
    #[error("halt/kick scheduler: {0}")]
    Saved(#[from] SavedError),
    /// A vCPU that has ended has no state that goes on.
    #[error("vCPU {index} has ended: there is nothing to save")]
    HasEnded {
        /// The vCPU's index.
        index: usize,
    },
    /// A device of test suites, which knows no snapshots.
    #[error("a VM with a test device can't be saved")]
    TestDevice,
    /// It could not be paused.
    #[error(transparent)]
    NotPaused(#[from] NotPaused),
    /// The hosted transport was asked for on KVM, or another one without KVM.
    #[error("the hosted transport and the hosted backend go together")]
    HostedTransport,
    /// The system refused a thread, an event or a signal handler.
    #[error("can't {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The error that the system returned.
        source: io::Error,
    },
    /// A signal asked for the end of the process.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The event loop failed.
    #[error("event loop: {0}")]
    Events(#[from] event_manager::Error),
    /// A vCPU's thread does not come back.
    #[error("vCPU {index} did not stop within {} s", STOP_LIMIT.as_secs())]
    Stuck {
        /// The vCPU's index.
        index: usize,
    },
}

/// For `map_err`: what the system refused.
pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> VmError {
    move |source| VmError::System { what, source }
}
