//! The convoy rule, number by number (docs/SCHEDULER.md).

use core::time::Duration;

use proptest::prelude::*;

use super::*;

const MS: u64 = 1_000_000;
const SLICE: u64 = 3 * MS;
const LONGEST: u64 = 60 * MS;
/// Any time after which everything that is remembered is long past.
const NOW: u64 = 1_000 * MS;

fn convoy() -> Convoy {
    Convoy::new(&HoldPolicy {
        slice: Duration::from_millis(3),
        longest: Duration::from_millis(60),
    })
}

/// A vCPU that a kick has just woken.
fn woken(at: u64) -> Link {
    let mut link = Link::default();
    link.woke(true, at);
    link
}

fn counts(running: usize) -> Counts {
    Counts { running, held: 0 }
}

/// [1], [2]: kicked out of a halt, then kicks, within a slice.
fn turn(convoy: &Convoy, since: u64, ahead: usize, now: u64) -> Turn {
    let longest = convoy.longest;
    convoy.turn(Hold { since, longest }, ahead, now)
}

#[test]
fn a_link_is_kicked_and_kicks() {
    let convoy = convoy();
    assert!(woken(NOW).kicks(&convoy, None, NOW));
    assert!(woken(NOW).kicks(&convoy, None, NOW + SLICE - 1));
    // It has done something else since: it is no link.
    assert!(!woken(NOW).kicks(&convoy, None, NOW + SLICE));
    // It was not kicked.
    assert!(!Link::default().kicks(&convoy, None, NOW));
    // An interrupt or a timer has woken it since.
    let mut link = woken(NOW);
    link.woke(false, NOW + 1);
    assert!(!link.kicks(&convoy, None, NOW + 2));
}

/// [2]: one that wakes several is no link more than once.
#[test]
fn only_the_first_kick_makes_a_link() {
    let convoy = convoy();
    let mut link = woken(NOW);
    assert!(link.watches_kicks());
    assert!(link.kicks(&convoy, None, NOW));
    assert!(!link.watches_kicks());
    assert!(!link.kicks(&convoy, None, NOW));
    link.woke(true, NOW);
    assert!(link.kicks(&convoy, None, NOW));
}

/// [3]: while the convoy is only one too long, a link that has just come back
/// passes, a few times; one that has had its turn is held.
#[test]
fn the_one_that_has_just_come_passes() {
    let convoy = convoy();
    let mut fresh = woken(NOW);
    fresh.was_held(&convoy, NOW - 50 * MS, NOW);
    for _ in 0..PASSES {
        assert!(!convoy.holds(&fresh, counts(3), 2, NOW));
    }
    assert!(convoy.holds(&fresh, counts(3), 2, NOW), "not for ever");
    assert!(!convoy.holds(&fresh, counts(3), 2, NOW), "and again");
    assert!(
        convoy.holds(&fresh, counts(3), 2, NOW + SLICE),
        "had its turn"
    );
    assert!(convoy.holds(&fresh, counts(4), 2, NOW), "two too many");
    assert!(
        convoy.holds(&woken(NOW), counts(3), 2, NOW),
        "never held yet"
    );
}

/// [5]: one vCPU each slice, the one that is held for longest first.
#[test]
fn turns_come_by_slices() {
    let convoy = convoy();
    convoy.let_go(NOW);
    assert_eq!(
        turn(&convoy, NOW + 1, 0, NOW + 1),
        Turn::Wait(NOW + 1 + SLICE)
    );
    assert_eq!(turn(&convoy, NOW - MS, 0, NOW + 1), Turn::Wait(NOW + SLICE));
    assert_eq!(
        turn(&convoy, NOW - MS, 0, NOW + SLICE - 1),
        Turn::Wait(NOW + SLICE)
    );
    assert_eq!(turn(&convoy, NOW - MS, 0, NOW + SLICE), Turn::Go);
    // Two before it: it looks when it is third, if nobody goes earlier.
    assert_eq!(turn(&convoy, NOW, 2, NOW), Turn::Wait(NOW + 3 * SLICE));
}

/// [5]: with more than `longest` allows for, nobody waits longer than that.
#[test]
fn no_hold_is_longer_than_the_longest() {
    let convoy = convoy();
    convoy.let_go(NOW);
    for ahead in [0, 1, 19, 20, 1_000, usize::MAX] {
        let mut now = NOW;
        let looks = (0..1_000).take_while(|_| match turn(&convoy, NOW, ahead, now) {
            Turn::Go => false,
            Turn::Wait(until) => {
                assert!(until > now, "{ahead}");
                now = until;
                // The others take their turns meanwhile.
                convoy.let_go(now);
                true
            }
        });
        assert!(looks.count() <= 20, "{ahead}");
        assert!(now <= NOW + LONGEST, "{ahead}");
    }
}

/// [6]: the poll is as long as two links take; halts that say nothing of links
/// lengthen it no further.
#[test]
fn the_poll_follows_the_links() {
    let convoy = convoy();
    assert_eq!(convoy.poll_ns(), 2 * FIRST_LINK);
    for _ in 0..200 {
        convoy.learn(10 * US);
    }
    assert!(
        (20 * US..22 * US).contains(&convoy.poll_ns()),
        "{}",
        convoy.poll_ns()
    );
    for _ in 0..200 {
        convoy.learn(u64::MAX);
    }
    let most = 2 * LONGEST_LINK;
    assert!(
        (most - 2 * US..=most).contains(&convoy.poll_ns()),
        "{}",
        convoy.poll_ns()
    );
}

/// [2]: who finds after its hold that somebody had been waiting for it through
/// most of it held a lock: it is spared, longer each time, and trusted again.
#[test]
fn a_hold_that_did_harm_spares_the_next_links() {
    let convoy = convoy();
    let mut link = Link::default();
    // How many links pass after a hold of 10 ms whose victim waited so long.
    let mut spared = |waited: u64| {
        let (from, to) = (NOW - 10 * MS, NOW);
        link.was_held(&convoy, from, to);
        (0..)
            .take_while(|_| {
                link.woke(true, NOW);
                !link.kicks(&convoy, Some(NOW - waited), NOW)
            })
            .count()
    };
    assert_eq!(spared(MS), 0, "the next of a queue that moves");
    assert_eq!([spared(9 * MS), spared(9 * MS), spared(9 * MS)], [2, 4, 8]);
    assert_eq!(spared(MS), 0);
    assert_eq!(spared(9 * MS), 8, "distrust went down by one, and up again");
    let most = (0..20).map(|_| spared(9 * MS)).max();
    assert_eq!(most, Some(1 << MOST_DISTRUST));
}

/// [2]: a hold that took no longer than some links do can't have done harm.
#[test]
fn a_short_hold_is_not_judged() {
    let convoy = convoy();
    let mut link = Link::default();
    link.was_held(&convoy, NOW - 2 * convoy.poll_ns(), NOW);
    assert!(!link.watches_kicks());
    link.was_held(&convoy, NOW - 2 * convoy.poll_ns() - 1, NOW);
    assert!(link.watches_kicks());
}

#[test]
fn the_slice_has_a_least_and_the_longest_hold_is_a_slice_at_least() {
    let convoy = Convoy::new(&HoldPolicy {
        slice: Duration::ZERO,
        longest: Duration::ZERO,
    });
    let due = NOW + HoldPolicy::SHORTEST_SLICE;
    assert_eq!(turn(&convoy, NOW, 0, NOW), Turn::Wait(due));
    assert_eq!(turn(&convoy, NOW, 9, NOW), Turn::Wait(due));
    assert_eq!(turn(&convoy, NOW, 9, due), Turn::Go);
}

proptest! {
    /// Whatever the policy and the times: no overflow, and a wait has an end
    /// that is later than now and no later than the longest hold.
    #[test]
    fn any_times_do(
        slice in any::<u64>(), longest in any::<u64>(),
        last in any::<u64>(), since in any::<u64>(), ahead in any::<usize>(), now in any::<u64>(),
    ) {
        let policy = HoldPolicy {
            slice: Duration::from_nanos(slice),
            longest: Duration::from_nanos(longest),
        };
        let convoy = Convoy::new(&policy);
        convoy.let_go(last);
        let most = slice.max(longest).max(HoldPolicy::SHORTEST_SLICE);
        if let Turn::Wait(until) = turn(&convoy, since, ahead, now) {
            prop_assert!(until > now && until <= since.saturating_add(most));
        }
        let mut link = woken(last);
        link.was_held(&convoy, since.min(now), since.max(now));
        link.kicks(&convoy, Some(last), now);
        convoy.holds(&link, counts(3), 2, now);
    }
}
