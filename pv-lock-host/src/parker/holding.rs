//! A link of a convoy is held back.

use super::VcpuParker;
use crate::convoy::{Convoy, Hold, Turn};
use crate::counters::HoldEnd;
use crate::platform::Platform;
use crate::shared::Shared;
use crate::state::{Action, Event, State};

impl<P: Platform> VcpuParker<P> {
    /// [4] Holds this vCPU back, if the rule still says so; whether it did.
    pub(super) fn hold(
        &mut self,
        due: &mut dyn FnMut() -> Option<u64>,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> bool {
        let shared = &*self.shared;
        let (load, slot) = (&shared.load, shared.slot(self.index));
        let Some(convoy) = &shared.convoy else {
            return false;
        };
        let began = P::now();
        load.follow_pcpus();
        // A kick is accounted a moment before the halt that it ends may be, so the
        // count may be one too high; never where there is a pCPU for each.
        if shared.slots.len() <= load.pcpus() {
            return false;
        }
        let mut counts = load.true_counts();
        // The one that was just kicked may still be counted as halted elsewhere.
        counts.running += usize::from(load.halts_elsewhere());
        if !convoy.holds(&self.link, counts, load.pcpus(), began) {
            return false;
        }
        // Before the word says HELD: what comes later is announced to it, or looked
        // for.
        let due = due().unwrap_or(u64::MAX);
        if due <= began || interrupted() || !load.try_hold() {
            return false;
        }
        slot.begins(began);
        let (_, state, action) = slot.apply(Event::Hold);
        if action == Action::Run {
            load.unhold();
            slot.begins(0);
            return true;
        }
        if !load.halts_elsewhere() && load.idles(load.settle()) {
            shared.release_one(convoy);
        }
        match self.kicked.take() {
            // Where it ran last says nothing, for its halt was not seen.
            Some(index) if load.halts_elsewhere() => {
                if let Some(place) = shared.slot(index).place() {
                    P::pull(place.thread);
                }
            }
            _ => shared.pull(self.index),
        }
        let hold = convoy.hold(&self.link, began);
        let wait = Wait {
            hold,
            due,
            interrupted,
        };
        let (end, now) = sit_out(shared, convoy, self.index, state, wait);
        slot.begins(0);
        slot.note_place();
        self.link.was_held(convoy, began, now);
        if shared.counting {
            slot.own_counters()
                .count_hold(end, now.saturating_sub(began));
        }
        true
    }
}

/// A hold that has begun, and what ends it beside the rule and the vCPU's word.
struct Wait<'a> {
    hold: Hold,
    /// When the guest's next interrupt is due.
    due: u64,
    /// Whether one waits, where nobody says so.
    interrupted: &'a mut dyn FnMut() -> bool,
}

/// The wait of one that is held; how it ended, and when.
fn sit_out<P: Platform>(
    shared: &Shared<P>,
    convoy: &Convoy,
    index: usize,
    state: State,
    wait: Wait<'_>,
) -> (HoldEnd, u64) {
    let slot = shared.slot(index);
    let hold = wait.hold;
    let (mut now, mut state) = (hold.since, state);
    loop {
        let ahead = shared.ahead_of(index, hold.since);
        let mut over = match convoy.turn(hold, ahead, now) {
            _ if now >= wait.due => Some(HoldEnd::Event),
            Turn::Go => Some(HoldEnd::Turn),
            Turn::Wait(until) => {
                // [9] Nobody says when a vCPU halts elsewhere: look.
                let until = match shared.load.halts_elsewhere() {
                    true => until.min(now.saturating_add(convoy.look(ahead))),
                    false => until,
                };
                slot.sleep(state, Some(until.min(wait.due)));
                None
            }
        };
        if shared.load.halts_elsewhere() && over.is_none() {
            if (wait.interrupted)() {
                over = Some(HoldEnd::Event);
            } else if ahead == 0 && shared.load.idles(shared.load.true_counts()) {
                over = Some(HoldEnd::Idle);
            }
        }
        let look = Event::HoldLook {
            over: over.is_some(),
        };
        let (before, after, action) = slot.apply(look);
        shared.load.account(before, after);
        now = P::now();
        if action == Action::Wait {
            // A kick may have been latched meanwhile: the word is another.
            state = after;
            continue;
        }
        let end = match over {
            _ if before.has(State::EVENT | State::REFUSED) => HoldEnd::Event,
            _ if !before.has(State::HELD) => HoldEnd::Idle,
            end => end.unwrap_or(HoldEnd::Event),
        };
        if end != HoldEnd::Event {
            convoy.let_go(now);
        }
        return (end, now);
    }
}
