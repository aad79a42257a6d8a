//! What follows a kick that woke a vCPU.
//!
//! In the kernel a kick is followed by a directed yield: the kicker's pCPU is
//! given to the kicked vCPU. Userspace has no `yield_to`; these are the
//! substitutes.

use core::time::Duration;

/// What follows a kick by a guest that woke a vCPU.
///
/// ```
/// use pv_lock_host::{ApicId, HaltScheduler, Yielding};
///
/// let builder = HaltScheduler::builder().yielding(Yielding::SchedYield);
/// let (scheduler, parkers) = builder.build(&[ApicId(0), ApicId(1)])?;
/// # Ok::<(), pv_lock_host::BuildError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Yielding {
    /// Nothing: the host's scheduler knows best.
    Nothing,
    /// The kicker's thread yields its pCPU (`sched_yield`), if more vCPUs want
    /// to run than there are pCPUs.
    SchedYield,
    /// A vCPU that takes part in a lock convoy (it was kicked out of a halt, and
    /// kicks the next) is held back while more vCPUs want to run than there are
    /// pCPUs. No other vCPU ever waits. The default, with the values of
    /// [`HoldPolicy::default`].
    Hold(HoldPolicy),
}

impl Default for Yielding {
    fn default() -> Self {
        Self::Hold(HoldPolicy::default())
    }
}

/// How long members of a lock convoy are held back.
///
/// ```
/// use std::time::Duration;
/// use pv_lock_host::{HoldPolicy, Yielding};
///
/// let mut policy = HoldPolicy::default();
/// policy.slice = Duration::from_millis(1);
/// let yielding = Yielding::Hold(policy);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HoldPolicy {
    /// After each slice one of the held vCPUs is let go, in the order in which
    /// they were held; the next member of the convoy is held in its place. 100
    /// us at least.
    pub slice: Duration,
    /// The longest that one hold lasts; with so many held vCPUs that their turns
    /// would take longer, more of them are let go. At least `slice`.
    pub longest: Duration,
}

impl HoldPolicy {
    /// In ns: a held vCPU looks at the clock every slice.
    pub(crate) const SHORTEST_SLICE: u64 = 100_000;
}

impl Default for HoldPolicy {
    /// Slices of 3 ms, holds of at most 60 ms.
    fn default() -> Self {
        Self {
            slice: Duration::from_millis(3),
            longest: Duration::from_millis(60),
        }
    }
}
