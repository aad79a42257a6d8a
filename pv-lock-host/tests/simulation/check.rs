//! What must hold in every case, whatever the load and the host.

use super::run::{Case, Policy, Seen, run};
use super::world::{MS, US};

/// What an idle pCPU may waste while somebody is held: two links of the longest
/// kind (the rule's own limit), and the delays of wake-up and accounting.
const WATCH: u64 = 400 * US + 100 * US;

/// A few cases together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    pub(crate) cases: u64,
    pub(crate) convoys: u64,
    pub(crate) holds: u64,
    pub(crate) longest_waste: u64,
    pub(crate) taken: u64,
    pub(crate) taken_with_nothing: u64,
    /// Of who ran when, in all cases, with the rule and without: the same seeds
    /// give the same.
    pub(crate) digest: u64,
}

impl Sum {
    pub(crate) fn add(&mut self, other: Self) {
        self.cases += other.cases;
        self.convoys += other.convoys;
        self.holds += other.holds;
        self.longest_waste = self.longest_waste.max(other.longest_waste);
        self.taken += other.taken;
        self.taken_with_nothing += other.taken_with_nothing;
        // In any order: the cases are drawn by several threads.
        self.digest = self.digest.wrapping_add(other.digest);
    }
}

impl Case {
    /// How long one that wants to run waits at most for a pCPU of a fair host:
    /// until everybody else has had a slice. A sticky one lets them all wait for
    /// one pCPU.
    fn queueing(&self) -> u64 {
        let rounds = match self.host.sticky {
            true => self.vcpus.len(),
            false => self.vcpus.len().div_ceil(self.host.pcpus) + 1,
        };
        rounds as u64 * (self.host.slice + 30 * US)
    }

    /// How long a guest's longest stay takes, on a pCPU and waiting for one.
    fn stay(&self) -> u64 {
        let most = self.vcpus.iter().map(|role| role.longest_work()).max();
        let works = most.unwrap_or(0);
        works + self.queueing() * (2 + works / self.host.slice)
    }

    fn blocks_for(&self) -> u64 {
        self.blocks().map_or(0, |blocks| blocks.time * 3 / 2)
    }
}

/// How long the vCPU with the least luck waited for the end of its round.
fn longest_round(seen: &Seen) -> u64 {
    let rounds = seen.notes.iter().map(|notes| {
        // The one that the stop found it in counts too.
        (notes.longest_round).max(seen.stopped.saturating_sub(notes.began))
    });
    rounds.max().unwrap_or(0)
}

fn longest_wake(seen: &Seen) -> u64 {
    let wakes = seen.notes.iter().flat_map(|notes| notes.wakes.iter());
    wakes.copied().max().unwrap_or(0)
}

fn taken(seen: &Seen) -> u64 {
    seen.world.locks.iter().map(|lock| lock.taken).sum()
}

/// Runs the case under the convoy rule, and without any.
///
/// # Panics
/// A promise is broken.
pub(crate) fn check(case: &Case) -> Sum {
    let seen = run(case, Policy::Hold);
    let base = run(case, Policy::Nothing);
    let mut broken = Vec::new();
    let mut at_most = |what: &str, ns: u64, limit: u64| {
        if ns > limit {
            broken.push(format!("{what}: {} us of {}", ns / US, limit / US));
        }
    };
    let (queueing, blocks) = (case.queueing(), case.blocks_for());
    let marked = case.blocks().is_none_or(|blocks| blocks.leaves);

    // Work conservation. What the rule is not told (a thread that blocks, a host
    // that lets a pCPU idle beside a waiting thread) it can't know.
    if !case.host.sticky {
        let unknown = if marked { 0 } else { blocks };
        at_most(
            "a pCPU idle while one is held",
            seen.world.longest_waste,
            WATCH + unknown,
        );
    }
    // A hold ends, after its time at the latest.
    let longest = case.longest.max(case.slice);
    let late = if case.host.jitter > 0 { 300 * US } else { 0 };
    at_most("hold", seen.world.longest_hold, longest + late);
    // Bounded waiting: of the next in a lock's queue, of timers and interrupts,
    // of everybody.
    let paused = seen.to_rest.map_or(0, |rest| rest + 400 * US);
    for lock in &seen.world.locks {
        at_most("lock passed on", lock.longest_pass, 2 * queueing + paused);
    }
    at_most("wake to run", longest_wake(&seen), 2 * queueing + paused);
    // Whoever holds an outer lock may be held, and must be once for the rule to
    // learn of it.
    let held = longest * (3 + case.nested());
    let fair = 3 * longest_round(&base) + held + 3 * case.stay() + 3 * blocks;
    at_most("a vCPU's round", longest_round(&seen), fair);
    // Pause and stop.
    if let Some(rest) = seen.to_rest {
        at_most("pause to rest", rest, case.stay() + blocks + 50 * US);
    }
    at_most("stop to end", seen.to_end, case.stay() + blocks);

    let counters = &seen.counters;
    let ends = counters.holds_turn + counters.holds_idle + counters.holds_event;
    if counters.holds != ends || counters.hold_time.count() != ends {
        broken.push(format!("{} holds, {ends} ends of holds", counters.holds));
    }
    if case.pauses && seen.to_rest.is_none() && case.time > 3 * (case.stay() + blocks) {
        broken.push("it never came to rest".into());
    }
    for (vcpu, (with, without)) in seen.notes.iter().zip(&base.notes).enumerate() {
        if with.rounds == 0 && without.rounds > 3 && case.time > held + 3 * case.stay() {
            broken.push(format!("vCPU {vcpu} starves"));
        }
    }
    if (case.no_locks() || case.vcpus.len() <= case.host.pcpus) && counters.holds > 0 {
        broken.push(format!("{} holds without a convoy", counters.holds));
    }
    // Without a convoy nothing at all is different.
    let same = seen.world.trace == base.world.trace;
    if case.no_locks() && case.host.jitter == 0 && !same {
        broken.push("not what it is without a policy".into());
    }
    assert!(
        broken.is_empty(),
        "seed {}: {}\n{case:?}",
        case.seed,
        broken.join("; ")
    );
    Sum {
        cases: 1,
        convoys: u64::from(counters.holds > 0),
        holds: counters.holds,
        longest_waste: if case.host.sticky || !marked {
            0
        } else {
            seen.world.longest_waste
        },
        taken: taken(&seen),
        taken_with_nothing: taken(&base),
        digest: (seen.world.trace.rotate_left(1) ^ base.world.trace).wrapping_mul(case.seed | 1),
    }
}

/// Times that read well.
pub(crate) fn us(ns: u64) -> String {
    match ns {
        0..MS => format!("{} us", ns / US),
        _ => format!("{}.{} ms", ns / MS, ns % MS / (100 * US)),
    }
}
