//! The whole protocol, as a pure function on one word.
//!
//! [`step`] is total: any bits, any event. [`Slot`](crate::slot::Slot) applies
//! it to the atomic; nothing else writes the word.
//!
//! ```text
//!             Park                       Kick / Notify: futex wake
//!  running ---------> HALTED|PARKED ----------------------------> +KICKED/EVENT
//!     ^  \ latched: stays running           |  Pause: futex wake     |
//!     |                                     v                        | Park
//!     |                 HALTED|PAUSE (thread returns Paused)         |
//!     +------ Kicked / Event: clears HALTED, PARKED, its own bit <---+
//! ```

use crate::outcome::{KickOutcome, Resumed, WakeReason};

/// The bits of a slot's word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct State(pub(crate) u32);

impl State {
    /// A new vCPU: running, nothing latched.
    pub(crate) const RUNNING: Self = Self(0);
    /// The guest executed HLT and has not been let run since. Outlives a pause.
    pub(crate) const HALTED: u32 = 1 << 0;
    /// The owner sleeps on the futex, or is about to: whoever gives it a reason
    /// to leave owes it a futex wake.
    pub(crate) const PARKED: u32 = 1 << 1;
    /// KVM's `pv_unhalted`: one bit, sticky, cleared on every move to running.
    pub(crate) const KICKED: u32 = 1 << 2;
    /// An interrupt, NMI or INIT is to be looked at.
    pub(crate) const EVENT: u32 = 1 << 3;
    /// The VM is paused.
    pub(crate) const PAUSE: u32 = 1 << 4;
    /// The VM is stopped. Never cleared.
    pub(crate) const STOP: u32 = 1 << 5;
    /// The owner is gone: nobody will ever sleep here again.
    pub(crate) const DETACHED: u32 = 1 << 6;
    /// All of the above.
    #[cfg(test)]
    pub(crate) const ALL: u32 = (1 << 7) - 1;

    pub(crate) const fn has(self, bits: u32) -> bool {
        self.0 & bits != 0
    }

    const fn with(self, bits: u32) -> Self {
        Self(self.0 | bits)
    }

    const fn without(self, bits: u32) -> Self {
        Self(self.0 & !bits)
    }

    /// Whether a halt would end, or be interrupted, at once.
    pub(crate) const fn leaves_halt(self) -> bool {
        self.has(Self::KICKED | Self::EVENT | Self::PAUSE | Self::STOP)
    }

    /// Whether this vCPU leaves its host CPU to others: it sleeps and nobody
    /// has woken it. Each change of the word changes the count of vCPUs that
    /// want to run by the difference of this, whoever makes the change.
    pub(crate) const fn idle(self) -> bool {
        self.has(Self::DETACHED)
            || (self.has(Self::PARKED)
                && !self.has(Self::STOP)
                && (self.has(Self::PAUSE) || !self.has(Self::KICKED | Self::EVENT)))
    }

    /// Paused, with what a snapshot carries in place of what was.
    pub(crate) const fn restored(self, halted: bool, kicked: bool, event: bool) -> Self {
        let mut state = self
            .without(Self::HALTED | Self::KICKED | Self::EVENT)
            .with(Self::PAUSE);
        if halted {
            state = state.with(Self::HALTED);
        }
        if kicked {
            state = state.with(Self::KICKED);
        }
        if event {
            state = state.with(Self::EVENT);
        }
        state
    }

    /// Whether the owner surely runs no guest code and will not until resumed.
    pub(crate) const fn quiescent(self) -> bool {
        self.has(Self::DETACHED) || (self.has(Self::PAUSE) && self.has(Self::PARKED))
    }
}

/// What happens to a vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// Owner: the guest is halted and the thread looks, awake, for a reason to
    /// leave.
    Poll,
    /// Owner: the guest is halted and the thread is going to sleep.
    Park,
    /// Owner: the guest is halted and the deadline has passed.
    Expire,
    /// Owner: the thread sleeps while the VM is paused.
    AwaitResume,
    /// Owner: the interrupt controller is about to be read.
    Acknowledge,
    /// Owner: the parker is dropped.
    Detach,
    /// `KVM_HC_KICK_CPU` names this vCPU.
    Kick,
    /// An interrupt is pending for this vCPU.
    Notify,
    /// The VM is being paused.
    Pause,
    /// The VM goes on.
    Resume,
    /// The VM ends.
    Stop,
}

/// What the one who caused the event must do now that the word has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// Owner: wait (poll or sleep), then look again.
    Wait,
    /// Owner: leave the halt.
    Leave(WakeReason),
    /// Owner: leave the pause.
    Resume(Resumed),
    /// Anyone: nothing (more) to do.
    Nothing,
    /// Other: the word is set; one futex wake if `wake`.
    Signal {
        /// What to report.
        outcome: KickOutcome,
        /// Whether the owner sleeps and this is what ends its sleep.
        wake: bool,
    },
}

/// The next state, and what its cause must do.
pub(crate) const fn step(state: State, event: Event) -> (State, Action) {
    use State as S;
    match event {
        Event::Poll => match leave(state) {
            Some((next, reason)) => (next, Action::Leave(reason)),
            None => (state.with(S::HALTED).without(S::PARKED), Action::Wait),
        },
        Event::Park => match leave(state) {
            Some((next, reason)) => (next, Action::Leave(reason)),
            None => (state.with(S::HALTED | S::PARKED), Action::Wait),
        },
        Event::Expire => match leave(state) {
            Some((next, reason)) => (next, Action::Leave(reason)),
            None => (
                state.without(S::HALTED | S::PARKED),
                Action::Leave(WakeReason::TimedOut),
            ),
        },
        Event::AwaitResume => {
            if state.has(S::STOP) {
                (state.without(S::PARKED), Action::Resume(Resumed::Stopped))
            } else if state.has(S::PAUSE) {
                (state.with(S::PARKED), Action::Wait)
            } else if state.has(S::HALTED) {
                (state.without(S::PARKED), Action::Resume(Resumed::Halted))
            } else {
                (state.without(S::PARKED), Action::Resume(Resumed::Running))
            }
        }
        Event::Acknowledge => (state.without(S::EVENT), Action::Nothing),
        Event::Detach => (state.with(S::DETACHED).without(S::PARKED), Action::Nothing),
        Event::Kick => (state.with(S::KICKED), signal(state, S::KICKED)),
        Event::Notify => (state.with(S::EVENT), signal(state, S::EVENT)),
        Event::Pause => (state.with(S::PAUSE), wake_if(state, !state.leaves_halt())),
        // Those who came during the pause left the waking to the resumer.
        Event::Resume => (state.without(S::PAUSE), wake_if(state, state.has(S::PAUSE))),
        // A stop ends both kinds of sleep, whatever else is pending.
        Event::Stop => (state.with(S::STOP), wake_if(state, !state.has(S::STOP))),
    }
}

/// How a halted vCPU leaves its halt, if it may. Only what is reported is
/// consumed, so whatever else came is still there for the next halt.
const fn leave(state: State) -> Option<(State, WakeReason)> {
    use State as S;
    if state.has(S::STOP) {
        Some((
            state.with(S::HALTED).without(S::PARKED),
            WakeReason::Stopped,
        ))
    } else if state.has(S::PAUSE) {
        // Still halted, and the latch untouched: a pause is not a wake-up.
        Some((state.with(S::HALTED).without(S::PARKED), WakeReason::Paused))
    } else if state.has(S::KICKED) {
        let bits = S::KICKED | S::HALTED | S::PARKED;
        Some((state.without(bits), WakeReason::Kicked))
    } else if state.has(S::EVENT) {
        let bits = S::EVENT | S::HALTED | S::PARKED;
        Some((state.without(bits), WakeReason::Event))
    } else {
        None
    }
}

/// A bit that ends a halt is set. Whoever set another one first owes the wake,
/// or, if that one is a pause, leaves it to the resumer.
const fn signal(before: State, bit: u32) -> Action {
    if before.has(bit) {
        Action::Signal {
            outcome: KickOutcome::AlreadyLatched,
            wake: false,
        }
    } else if before.has(State::HALTED) && !before.leaves_halt() {
        Action::Signal {
            outcome: KickOutcome::Woke,
            wake: before.has(State::PARKED),
        }
    } else {
        Action::Signal {
            outcome: KickOutcome::Latched,
            wake: false,
        }
    }
}

const fn wake_if(before: State, needed: bool) -> Action {
    let wake = needed && before.has(State::PARKED);
    Action::Signal {
        outcome: if wake {
            KickOutcome::Woke
        } else {
            KickOutcome::Latched
        },
        wake,
    }
}

#[cfg(test)]
mod tests;
