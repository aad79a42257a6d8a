//! What the two halves report: enums of outcomes, no errors.

/// Why [`VcpuParker::halt`](crate::VcpuParker::halt) returned.
///
/// Where several reasons hold at once the order is `Stopped`, `Paused`,
/// `Interrupted`, `Kicked`, `Event`, `TimedOut`, and only the one reported is
/// consumed: a pause leaves the kick latched, and a kick leaves the event
/// latched.
///
/// ```
/// use pv_lock_host::{ApicId, HaltScheduler, WakeReason};
///
/// let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
/// scheduler.kicker().kick_by_host(ApicId(0));
/// scheduler.kicker().pause_all();
/// assert_eq!(parkers[0].halt(), WakeReason::Paused); // the kick is still there
/// # Ok::<(), pv_lock_host::BuildError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum WakeReason {
    /// A kick: run the guest. The latch is clear again.
    Kicked,
    /// An interrupt or the like was announced by
    /// [`Kicker::notify`](crate::Kicker::notify): look at the interrupt
    /// controller, then run the guest, or halt again if nothing is deliverable.
    Event,
    /// The deadline of [`VcpuParker::halt_until`](crate::VcpuParker::halt_until)
    /// passed and nothing else had happened.
    TimedOut,
    /// The VM is paused. The vCPU is still halted: after
    /// [`VcpuParker::wait_resumed`](crate::VcpuParker::wait_resumed), halt again.
    Paused,
    /// This one vCPU was asked to leave its halt
    /// ([`Kicker::interrupt`](crate::Kicker::interrupt)). It is still halted.
    Interrupted,
    /// The VM has been stopped.
    Stopped,
}

/// Why a vCPU must not run its guest now. Exhaustive on purpose: whoever runs
/// vCPUs has to decide about each of them.
///
/// ```
/// use pv_lock_host::{ApicId, HaltScheduler, Interruption};
///
/// let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
/// assert_eq!(parkers[0].enter(), Ok(()));
/// scheduler.kicker().stop_all();
/// assert_eq!(parkers[0].enter(), Err(Interruption::Stopped));
/// # Ok::<(), pv_lock_host::BuildError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Interruption {
    /// The VM is paused: call
    /// [`VcpuParker::wait_resumed`](crate::VcpuParker::wait_resumed).
    Paused,
    /// The VM has been stopped.
    Stopped,
    /// This one vCPU was asked to leave its guest
    /// ([`Kicker::interrupt`](crate::Kicker::interrupt)); this is reported
    /// once.
    Interrupted,
}

impl From<Interruption> for WakeReason {
    fn from(why: Interruption) -> Self {
        match why {
            Interruption::Paused => Self::Paused,
            Interruption::Stopped => Self::Stopped,
            Interruption::Interrupted => Self::Interrupted,
        }
    }
}

/// Where a vCPU goes on after a pause. Exhaustive on purpose: whoever runs vCPUs
/// has to decide about each of them.
///
/// ```
/// use pv_lock_host::{ApicId, HaltScheduler, Resumed, WakeReason};
///
/// let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
/// scheduler.kicker().pause_all();
/// assert_eq!(parkers[0].halt(), WakeReason::Paused);
/// scheduler.kicker().resume_all();
/// assert_eq!(parkers[0].wait_resumed(), Resumed::Halted); // so it halts again
/// # Ok::<(), pv_lock_host::BuildError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use = "a vCPU that was halted when it was paused must halt again, not run"]
pub enum Resumed {
    /// It was running: run the guest.
    Running,
    /// It was halted: call [`VcpuParker::halt`](crate::VcpuParker::halt) again.
    /// A kick that came during the pause ends that halt at once.
    Halted,
    /// The VM was stopped: the thread is to end, or to leave.
    Stopped,
}

/// What a kick, or a notification, did.
///
/// None of them is an error, and a guest must not be told which it was: KVM
/// answers 0 to `KVM_HC_KICK_CPU` even if no such vCPU exists.
///
/// ```
/// use pv_lock_host::{ApicId, HaltScheduler, KickOutcome};
///
/// let (scheduler, _parkers) = HaltScheduler::new(&[ApicId(0)])?;
/// let kicker = scheduler.kicker();
/// assert_eq!(kicker.kick_by_host(ApicId(0)), KickOutcome::Latched);
/// assert_eq!(kicker.kick_by_host(ApicId(0)), KickOutcome::AlreadyLatched);
/// assert_eq!(kicker.kick_by_host(ApicId(9)), KickOutcome::NoSuchVcpu);
/// # Ok::<(), pv_lock_host::BuildError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum KickOutcome {
    /// The vCPU was halted, nothing else was waking it, and now it is woken.
    Woke,
    /// The vCPU was running, paused, or already being woken: the kick is
    /// remembered, and its next halt (or the present one) ends at once.
    Latched,
    /// An earlier kick was still latched: the two are one.
    AlreadyLatched,
    /// No vCPU has this APIC ID. Counted, nothing else.
    NoSuchVcpu,
}
