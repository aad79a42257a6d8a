//! What the two halves report: enums of outcomes, no errors.

/// Why [`VcpuParker::halt`](crate::VcpuParker::halt) returned.
///
/// Where several reasons hold at once the order is `Stopped`, `Paused`,
/// `Kicked`, `Event`, `TimedOut`, and only the one reported is consumed: a
/// pause leaves the kick latched, and a kick leaves the event latched.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
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
    /// The VM has been stopped, for good.
    Stopped,
}

/// Where a vCPU goes on after a pause.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use = "a vCPU that was halted when it was paused must halt again, not run"]
pub enum Resumed {
    /// It was running: run the guest.
    Running,
    /// It was halted: call [`VcpuParker::halt`](crate::VcpuParker::halt) again.
    /// A kick that came during the pause ends that halt at once.
    Halted,
    /// The VM was stopped.
    Stopped,
}

/// What a kick, or a notification, did.
///
/// None of them is an error, and a guest must not be told which it was: KVM
/// answers 0 to `KVM_HC_KICK_CPU` even if no such vCPU exists.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
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
