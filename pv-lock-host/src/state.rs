//! The whole protocol, as a pure function on one word.
//!
//! [`step`] is total: any bits, any event. [`Slot`](crate::slot::Slot) applies
//! it to the atomic; nothing else writes the word.
//!
//! ```text
//!            Park, a latch set: stays running
//!              /    \
//!   away --> running --Park--> HALTED|PARKED --Kick, Notify: wake--> +KICKED/EVENT
//!   Enter     ^  ^ \                |  Pause: wake                       |
//!             |  |  Hold            v                                    | Park
//!             |  |   \      HALTED|PAUSE --AwaitResume--> +QUIET|PARKED  |
//!             |  |    v                                                  |
//!             |  | HELD|PARKED --Release, Notify, Pause, Stop: wake       |
//!             |  |      |                                                |
//!             |  +------+ HoldLook          Kicked / Event: clears HALTED,
//!             +------------------------------ PARKED and its own bit <---+
//! ```

use crate::outcome::{Interruption, KickOutcome, Resumed, WakeReason};

/// The bits of a slot's word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct State(pub(crate) u32);

impl State {
    /// The guest executed HLT and has not been let run since. Outlives a pause.
    pub(crate) const HALTED: u32 = 1 << 0;
    /// The owner sleeps on the word, or is about to: whoever gives it a reason
    /// to leave owes it a wake.
    pub(crate) const PARKED: u32 = 1 << 1;
    /// KVM's `pv_unhalted`: one bit, sticky, cleared on every move to running.
    pub(crate) const KICKED: u32 = 1 << 2;
    /// An interrupt, NMI or INIT is to be looked at.
    pub(crate) const EVENT: u32 = 1 << 3;
    /// The VM is paused.
    pub(crate) const PAUSE: u32 = 1 << 4;
    /// The VM is stopped.
    pub(crate) const STOP: u32 = 1 << 5;
    /// The owner runs no guest and waits for none of this word's bits: it has
    /// not begun, blocks in device emulation, or is gone. Only an Enter, a halt or
    /// a wait for the end of a pause ends that; the first two do not get past PAUSE
    /// or STOP, and the third becomes QUIET in a pause and does not get past STOP.
    pub(crate) const AWAY: u32 = 1 << 6;
    /// The owner waits for the end of a pause, or has been told in one that the
    /// VM is stopped. Only the owner clears it, once PAUSE is gone or when it
    /// leaves.
    pub(crate) const QUIET: u32 = 1 << 7;
    /// The owner, which may run, is held back by the convoy rule.
    pub(crate) const HELD: u32 = 1 << 8;
    /// Somebody wants the owner to come out and say so, once.
    pub(crate) const INTERRUPT: u32 = 1 << 9;
    /// There is an owner.
    pub(crate) const ATTACHED: u32 = 1 << 10;
    /// All of the above.
    #[cfg(test)]
    pub(crate) const ALL: u32 = (1 << 11) - 1;

    /// A vCPU that nothing has happened to, with its owner but not yet run.
    pub(crate) const NEW: Self = Self(Self::AWAY | Self::ATTACHED);

    /// What keeps a vCPU from running its guest, if it is not halted.
    pub(crate) const REFUSED: u32 = Self::PAUSE | Self::STOP | Self::INTERRUPT;

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
        self.has(Self::KICKED | Self::EVENT | Self::REFUSED)
    }

    /// Whether a hold would end at once. A kick is for a vCPU that halts, which
    /// one that is held does not: it stays latched.
    const fn leaves_hold(self) -> bool {
        !self.has(Self::HELD) || self.has(Self::EVENT | Self::REFUSED)
    }

    /// Whether the owner sleeps, or is about to, and nobody has given it a reason
    /// to wake up yet: whoever makes this false owes the wake.
    const fn sleeps(self) -> bool {
        if !self.has(Self::PARKED) || self.has(Self::STOP) {
            false
        } else if self.has(Self::QUIET) {
            self.has(Self::PAUSE)
        } else if self.has(Self::HELD) {
            !self.leaves_hold()
        } else {
            self.has(Self::HALTED) && !self.leaves_halt()
        }
    }

    /// What this vCPU wants of the pCPUs. Each change of the word changes the
    /// counts of [`Load`](crate::load::Load) by the difference of this, whoever
    /// makes the change.
    pub(crate) const fn demand(self) -> Demand {
        if self.has(Self::AWAY) {
            Demand::Nothing
        } else if !self.sleeps() {
            Demand::Run
        } else if self.has(Self::HELD) && !self.has(Self::QUIET) {
            Demand::Held
        } else {
            Demand::Nothing
        }
    }

    /// A vCPU at rest, with what a snapshot carries in place of what was.
    pub(crate) const fn restored(self, halted: bool, kicked: bool, event: bool) -> Self {
        let mut state = self.without(Self::HALTED | Self::KICKED | Self::EVENT);
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

    /// A vCPU at rest, as if it had never run.
    pub(crate) const fn reset(self) -> Self {
        Self(self.0 & (Self::AWAY | Self::ATTACHED | Self::QUIET | Self::PARKED))
    }

    /// Whether no guest code runs on this vCPU, and none will until the VM is
    /// resumed, or reset. An owner that is gone is away; but without a pause or a
    /// stop another one may be attached at any moment, and run.
    pub(crate) const fn at_rest(self) -> bool {
        self.has(Self::PAUSE | Self::STOP) && self.has(Self::AWAY | Self::QUIET)
    }
}

/// What a vCPU wants of the pCPUs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Demand {
    /// To run: it runs, or has been given a reason to.
    Run,
    /// It could run, and is held back.
    Held,
    /// Nothing: it is halted, paused, or away.
    Nothing,
}

/// What happens to a vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    /// Owner: the guest is about to run.
    Enter,
    /// Owner: the guest is halted and the thread looks, awake, for a reason to
    /// leave.
    Poll,
    /// Owner: the guest is halted and the thread is going to sleep.
    Park,
    /// Owner: the guest is halted and the deadline has passed.
    Expire,
    /// Owner: has just kicked the next of a convoy and is to be held.
    Hold,
    /// Owner: is held and looks whether it still is.
    HoldLook {
        /// The hold has lasted long enough.
        over: bool,
    },
    /// Owner: the thread sleeps while the VM is paused.
    AwaitResume,
    /// Owner: the interrupt controller is about to be read.
    Acknowledge,
    /// Owner: the thread is about to block in something that is not this crate.
    Leave,
    /// Owner: the parker is dropped.
    Detach,
    /// `KVM_HC_KICK_CPU` names this vCPU.
    Kick,
    /// An interrupt is pending for this vCPU.
    Notify,
    /// This vCPU is to come out.
    Interrupt,
    /// Its hold ends.
    Release,
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
    /// Owner: run the guest.
    Run,
    /// Owner: do not run the guest.
    Refuse(Interruption),
    /// Owner: leave the halt.
    Leave(WakeReason),
    /// Owner: leave the pause.
    Resume(Resumed),
    /// Owner: nothing more to do.
    Nothing,
    /// Other: the word is set; one wake if `wake`.
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
        Event::Enter => match refusal(state) {
            Some((next, why)) => (next, Action::Refuse(why)),
            None => {
                let bits = S::AWAY | S::HALTED | S::PARKED | S::HELD | S::QUIET;
                (state.without(bits), Action::Run)
            }
        },
        Event::Poll => match leave(state) {
            Some((next, reason)) => (next, Action::Leave(reason)),
            None => {
                let next = state.with(S::HALTED).without(S::PARKED | S::AWAY | S::HELD);
                (next, Action::Wait)
            }
        },
        Event::Park => match leave(state) {
            Some((next, reason)) => (next, Action::Leave(reason)),
            None => {
                let next = state.with(S::HALTED | S::PARKED).without(S::AWAY | S::HELD);
                (next, Action::Wait)
            }
        },
        Event::Expire => match leave(state) {
            Some((next, reason)) => (next, Action::Leave(reason)),
            None => (
                state.without(S::HALTED | S::PARKED | S::AWAY),
                Action::Leave(WakeReason::TimedOut),
            ),
        },
        Event::Hold => {
            let held = state.with(S::HELD | S::PARKED);
            if held.leaves_hold() {
                (state, Action::Run)
            } else {
                (held, Action::Wait)
            }
        }
        Event::HoldLook { over } => {
            if over || state.leaves_hold() || !state.has(S::PARKED) {
                (state.without(S::HELD | S::PARKED), Action::Run)
            } else {
                (state, Action::Wait)
            }
        }
        Event::AwaitResume => {
            let awake = state.without(S::PARKED | S::QUIET | S::AWAY);
            if state.has(S::STOP) {
                // It may not run: one that is at rest stays so.
                (state.without(S::PARKED), Action::Resume(Resumed::Stopped))
            } else if state.has(S::PAUSE) {
                let next = state.with(S::PARKED | S::QUIET).without(S::AWAY | S::HELD);
                (next, Action::Wait)
            } else if state.has(S::HALTED) {
                (awake, Action::Resume(Resumed::Halted))
            } else {
                (awake, Action::Resume(Resumed::Running))
            }
        }
        Event::Acknowledge => (state.without(S::EVENT), Action::Nothing),
        Event::Leave => (
            state.with(S::AWAY).without(S::PARKED | S::HELD | S::QUIET),
            Action::Nothing,
        ),
        Event::Detach => (
            state
                .with(S::AWAY)
                .without(S::PARKED | S::HELD | S::QUIET | S::ATTACHED),
            Action::Nothing,
        ),
        Event::Kick => signal(state, state.with(S::KICKED), S::KICKED),
        Event::Notify => signal(state, state.with(S::EVENT), S::EVENT),
        Event::Interrupt => signal(state, state.with(S::INTERRUPT), S::INTERRUPT),
        Event::Release => signal(state, state.without(S::HELD), 0),
        // A hold ends for good: a resume may come before its owner has looked, and
        // a pCPU may have become idle in between.
        Event::Pause => signal(state, state.with(S::PAUSE).without(S::HELD), 0),
        Event::Resume => signal(state, state.without(S::PAUSE), 0),
        Event::Stop => signal(state, state.with(S::STOP), 0),
    }
}

/// Why a vCPU that would run must not, if so.
const fn refusal(state: State) -> Option<(State, Interruption)> {
    if state.has(State::STOP) {
        Some((state, Interruption::Stopped))
    } else if state.has(State::PAUSE) {
        Some((state, Interruption::Paused))
    } else if state.has(State::INTERRUPT) {
        let next = state.without(State::INTERRUPT);
        Some((next, Interruption::Interrupted))
    } else {
        None
    }
}

/// How a halted vCPU leaves its halt, if it may. Only what is reported is
/// consumed, so whatever else came is still there for the next halt.
const fn leave(state: State) -> Option<(State, WakeReason)> {
    use State as S;
    // Still halted, and the latch untouched: none of these is a wake-up.
    let halted = state.with(S::HALTED).without(S::PARKED);
    let running = state.without(S::HALTED | S::PARKED | S::AWAY);
    if state.has(S::STOP) {
        Some((halted, WakeReason::Stopped))
    } else if state.has(S::PAUSE) {
        Some((halted, WakeReason::Paused))
    } else if state.has(S::INTERRUPT) {
        Some((halted.without(S::INTERRUPT), WakeReason::Interrupted))
    } else if state.has(S::KICKED) {
        Some((running.without(S::KICKED), WakeReason::Kicked))
    } else if state.has(S::EVENT) {
        Some((running.without(S::EVENT), WakeReason::Event))
    } else {
        None
    }
}

/// What somebody else has changed, `latch` being the bit that it latches, if it
/// does. Whoever gave the owner the first reason to wake up owes the wake.
const fn signal(before: State, after: State, latch: u32) -> (State, Action) {
    use State as S;
    let halted = before.has(S::HALTED) && !before.has(S::AWAY | S::QUIET);
    let outcome = if before.has(latch) {
        KickOutcome::AlreadyLatched
    } else if halted && !before.leaves_halt() {
        KickOutcome::Woke
    } else {
        KickOutcome::Latched
    };
    let wake = before.sleeps() && !after.sleeps();
    (after, Action::Signal { outcome, wake })
}

#[cfg(test)]
mod tests;
