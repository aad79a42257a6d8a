//! How a halted vCPU's thread polls, sleeps and wakes up.

use super::VcpuParker;
use crate::counters::OwnCounters;
use crate::outcome::WakeReason;
use crate::platform::{Platform, Waited};
use crate::shared::Shared;
use crate::slot::Slot;
use crate::state::{Action, Event, State};

impl<P: Platform> VcpuParker<P> {
    /// The rest of a halt that does not return at once.
    #[inline(never)]
    pub(super) fn wait(&mut self, state: State, deadline: Option<u64>, poll_ns: u64) -> WakeReason {
        let shared = &*self.shared;
        let slot = shared.slot(self.index);
        let counters = shared.counting.then(|| slot.own_counters());
        let timed = counters.filter(|counters| counters.times_this_one());
        let crowded = shared.load.crowded();
        let adapts = self.window.adapts() && !crowded;
        let managed = crowded || shared.load.counts().held > 0;
        let convoy = shared.convoy.as_ref().filter(|_| managed);
        let began = match poll_ns > 0 || adapts || timed.is_some() || convoy.is_some() {
            true => P::now(),
            false => 0,
        };
        if convoy.is_some() {
            slot.begins(began);
        }

        let mut state = state;
        let reason = 'halt: {
            if poll_ns > 0 {
                let end = began.saturating_add(poll_ns);
                let won = poll(shared, slot, end, deadline, convoy.is_none());
                if let Some(counters) = counters {
                    counters.count_poll(won);
                }
                let (before, after, action) = slot.apply(Event::Park);
                shared.load.account(before, after);
                if let Action::Leave(reason) = action {
                    break 'halt reason;
                }
                state = after;
            }
            if let Some(counters) = counters {
                counters.count_sleep();
                slot.kicks.time_next_wake(timed.is_some());
            }
            sleep(shared, self.index, state, deadline, counters)
        };

        let by_kick = reason == WakeReason::Kicked;
        let now = match timed.is_some() || adapts || shared.convoy.is_some() {
            true => P::now(),
            false => 0,
        };
        if let Some(timed) = timed {
            timed.halt_time.record(now.saturating_sub(began));
            if let Some(woken_at) = slot.kicks.woken_at(began) {
                timed.kick_to_run.record(now.saturating_sub(woken_at));
            }
        }
        if adapts {
            self.window.end(now.saturating_sub(began));
        }
        if let Some(rule) = &shared.convoy {
            self.link.woke(by_kick, now);
            if by_kick && poll_ns > 0 && convoy.is_some() {
                rule.learn(now.saturating_sub(began));
            }
            // It takes a system call: only where a thread may have to be moved.
            if shared.slots.len() > shared.load.pcpus() {
                slot.note_place();
            }
            if convoy.is_some() {
                slot.begins(0);
            }
        }
        reason
    }
}

/// Looks for a reason to leave until `end` or `deadline` (ns), or until the
/// pCPUs are wanted by others; says whether there is one.
fn poll<P: Platform>(
    shared: &Shared<P>,
    slot: &Slot<P>,
    end: u64,
    deadline: Option<u64>,
    yields: bool,
) -> bool {
    let end = deadline.map_or(end, |deadline| deadline.min(end));
    loop {
        for _ in 0..P::LOOKS {
            if slot.peek().leaves_halt() {
                return true;
            }
            P::relax();
        }
        if shared.load.crowded() || P::now() >= end {
            return false;
        }
        // KVM ends a poll when another task wants this pCPU. That cannot be
        // seen from here, and the other may be the very kicker: let it run. In a
        // convoy (two links, some ten microseconds) that costs more than it gives.
        if yields {
            P::yield_now();
        }
    }
}

/// Sleeps, in `state`, which has PARKED, until there is a reason to leave.
fn sleep<P: Platform>(
    shared: &Shared<P>,
    index: usize,
    state: State,
    deadline: Option<u64>,
    counters: Option<&OwnCounters>,
) -> WakeReason {
    let slot = shared.slot(index);
    let mut state = state;
    if let Some(convoy) = &shared.convoy {
        // [7] It has looked for a kick as long as one that a convoy owes it takes.
        if shared.load.idles(shared.load.counts()) {
            shared.release_one(convoy);
        }
        shared.pull(index);
    }
    loop {
        let event = match slot.sleep(state, deadline) {
            Waited::DeadlinePassed => Event::Expire,
            Waited::LookAgain => Event::Park,
        };
        let (before, after, action) = slot.apply_awake(event, state);
        shared.load.account(before, after);
        if let Action::Leave(reason) = action {
            return reason;
        }
        state = after;
        if let Some(counters) = counters {
            counters.count_spurious();
        }
    }
}
