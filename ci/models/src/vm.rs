//! The VMs that models begin with, and what must hold at their end.
#![expect(
    clippy::unwrap_used,
    reason = "a model that unwraps is a model that fails"
)]

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use pv_lock_host::{
    ApicId, HaltScheduler, HoldPolicy, KickOutcome, Kicker, Platform, SchedulerBuilder, VcpuParker,
    WakeReason, Yielding,
};

use crate::{World, at_next_wait};

pub type Scheduler = HaltScheduler<World>;
pub type Parker = VcpuParker<World>;

/// The only vCPU, or the first.
pub const ID: ApicId = ApicId(0);

pub fn builder() -> SchedulerBuilder<World> {
    SchedulerBuilder::default()
}

/// A VM with one vCPU. The scheduler is to be kept: with the last owner the VM
/// stops.
pub fn one_vcpu() -> (Scheduler, Kicker<World>, Parker) {
    one_vcpu_with(builder())
}

pub fn one_vcpu_with(builder: SchedulerBuilder<World>) -> (Scheduler, Kicker<World>, Parker) {
    let (scheduler, [parker]) = vcpus(builder.counting(false));
    let kicker = scheduler.kicker();
    (scheduler, kicker, parker)
}

/// A VM with vCPUs 0 to N - 1.
pub fn vcpus<const N: usize>(builder: SchedulerBuilder<World>) -> (Scheduler, [Parker; N]) {
    let ids: Vec<ApicId> = (0..).map(ApicId).take(N).collect();
    let (scheduler, parkers) = builder.build(&ids).unwrap();
    (scheduler, parkers.try_into().unwrap())
}

/// Members of convoys are held for a slice, and for four at the most.
pub fn held_for(slice: Duration) -> Yielding {
    let mut policy = HoldPolicy::default();
    policy.slice = slice;
    policy.longest = slice * 4;
    Yielding::Hold(policy)
}

/// A VM with `N` vCPUs that all run, on one pCPU, where members of convoys are
/// held for a slice.
pub fn crowd<const N: usize>(slice: Duration) -> (Scheduler, [Parker; N]) {
    let builder = builder().yielding(held_for(slice)).pcpus(1);
    let (scheduler, mut parkers) = vcpus(builder);
    for parker in &mut parkers {
        assert_eq!(parker.enter(), Ok(()));
    }
    (scheduler, parkers)
}

/// A crowd of which the first `links` have been kicked out of a halt and have
/// kicked the next one: each is held at its next `enter` as long as that leaves
/// one that runs.
pub fn convoy<const N: usize>(links: usize, slice: Duration) -> (Scheduler, [Parker; N]) {
    let (scheduler, parkers) = crowd::<N>(slice);
    let mut parkers = parkers.into_iter();
    let mut link = parkers.next().unwrap();
    be_kicked(&scheduler, &mut link);
    let mut convoy = Vec::with_capacity(N);
    for mut next in parkers.by_ref().take(links) {
        convoy.push(kick_out(&mut next, link));
        link = next;
    }
    convoy.push(link);
    convoy.extend(parkers);
    (scheduler, convoy.try_into().unwrap())
}

/// It halts, and is kicked out of that by the host.
pub fn be_kicked(scheduler: &Scheduler, parker: &mut Parker) {
    let (kicker, id) = (scheduler.kicker(), parker.apic_id());
    at_next_wait(move || assert_eq!(kicker.kick_by_host(id), KickOutcome::Woke));
    assert_eq!(parker.halt(), WakeReason::Kicked);
}

/// `next` halts, and the guest of `link`, which is given back, kicks it out of
/// that.
fn kick_out(next: &mut Parker, mut link: Parker) -> Parker {
    let id = next.apic_id();
    let back = Rc::new(Cell::new(None));
    let there = Rc::clone(&back);
    at_next_wait(move || {
        assert_eq!(link.kick_by_guest(id), KickOutcome::Woke);
        there.set(Some(link));
    });
    assert_eq!(next.halt(), WakeReason::Kicked);
    back.take().unwrap()
}

/// How often a vCPU was held, and how many of these holds ended because it was
/// its turn, because a pCPU would have idled, and because of an event.
pub fn holds(scheduler: &Scheduler, id: ApicId) -> [u64; 4] {
    let counters = scheduler.vcpu_counters(id).unwrap();
    let c = &counters;
    [c.holds, c.holds_turn, c.holds_idle, c.holds_event]
}

/// How often a vCPU polled in a halt.
pub fn polls(scheduler: &Scheduler, id: ApicId) -> u64 {
    let counters = scheduler.vcpu_counters(id).unwrap();
    counters.polls_won + counters.polls_lost
}

/// The counts of the vCPUs that want to run and of those that are held are
/// right, if they were right for a VM without a convoy: seen in what the
/// scheduler does. `link` has never been held, no vCPU but these two has not left,
/// and all is over.
pub fn assert_counts_are_exact(scheduler: &Scheduler, mut link: Parker, mut other: Parker) {
    let id = link.apic_id();
    for parker in [&mut link, &mut other] {
        // What the race has left: a latch, or a hold to come.
        parker.take_event();
        parker.halt_until_ns(World::now());
        assert_eq!(parker.enter(), Ok(()));
    }
    be_kicked(scheduler, &mut link);
    let mut link = kick_out(&mut other, link);
    // If one too few seems to run, it is not held; if one too many, it is not let
    // go when the other leaves.
    let before = holds(scheduler, id);
    at_next_wait(move || drop(other));
    assert_eq!(link.enter(), Ok(()));
    let [holds, turn, idle, event] = before;
    let after = self::holds(scheduler, id);
    // Natively the thread may have lost its pCPU for a slice in between, and a kick
    // that comes so late makes no link.
    if cfg!(not(any(feature = "loom", feature = "shuttle"))) && after == before {
        return;
    }
    assert_eq!(after, [holds + 1, turn, idle + 1, event]);
    // If one seems to be held, it polls before it leaves its pCPU.
    let before = polls(scheduler, id);
    be_kicked(scheduler, &mut link);
    assert_eq!(polls(scheduler, id), before, "nobody is held");
}
