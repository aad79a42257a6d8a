//! The counts, against a plain sum over the vCPUs' words.

use proptest::prelude::*;

use super::*;
use crate::platform::Spin;
use crate::state::{Event, step};

fn load(pcpus: usize) -> Load<Spin> {
    Load::new(Some(pcpus), true, None)
}

/// A vCPU that wants to run, one that is held, and one that wants nothing.
const RUNS: State = State(State::ATTACHED);
const WAITS: State = State(State::ATTACHED | State::HELD | State::PARKED);
const HALTS: State = State(State::ATTACHED | State::HALTED | State::PARKED);

fn running(pcpus: usize, n: usize) -> Load<Spin> {
    let load = load(pcpus);
    (0..n).for_each(|_| load.account(State::NEW, RUNS));
    load
}

#[test]
fn a_vcpu_is_held_only_while_more_want_to_run_than_there_are_pcpus() {
    let load = running(2, 3);
    assert!(load.crowded());
    assert!(load.try_hold());
    let counts = Counts {
        running: 2,
        held: 1,
    };
    assert_eq!((load.counts(), load.settle()), (counts, counts));
    assert!(!load.crowded() && !load.try_hold(), "as many as pCPUs");
    load.unhold();
    assert_eq!(
        load.counts(),
        Counts {
            running: 3,
            held: 0
        }
    );
}

#[test]
fn a_pcpu_idles_if_somebody_is_held_and_fewer_run_than_there_are_pcpus() {
    let load = running(2, 3);
    assert!(load.try_hold());
    assert!(!load.idles(load.counts()));
    load.account(RUNS, HALTS);
    assert!(load.idles(load.counts()));
    load.account(WAITS, RUNS);
    assert!(!load.idles(load.counts()), "nobody is held any more");
    load.account(RUNS, HALTS);
    assert!(!load.idles(load.counts()));
}

/// The halt that follows a kick may be accounted before it.
#[test]
fn below_zero_for_a_moment_is_no_harm() {
    let load = load(1);
    load.account(RUNS, HALTS);
    load.account(RUNS, HALTS);
    assert_eq!(
        load.counts(),
        Counts {
            running: 0,
            held: 0
        }
    );
    load.account(HALTS, RUNS);
    load.account(HALTS, RUNS);
    load.account(HALTS, RUNS);
    assert_eq!(
        load.counts(),
        Counts {
            running: 1,
            held: 0
        }
    );
}

#[test]
fn as_many_vcpus_as_a_vm_may_have_fit() {
    let load = running(1, MAX_VCPUS);
    let all = MAX_VCPUS;
    assert_eq!(
        load.counts(),
        Counts {
            running: all,
            held: 0
        }
    );
    let held = (0..all).filter(|_| load.try_hold()).count();
    assert_eq!(held, all - 1);
    assert_eq!(load.counts(), Counts { running: 1, held });
}

#[test]
fn nothing_is_counted_for_a_policy_that_does_not_ask() {
    let load = Load::<Spin>::new(Some(1), false, None);
    load.account(State::NEW, RUNS);
    load.account(State::NEW, RUNS);
    assert_eq!(
        load.counts(),
        Counts {
            running: 0,
            held: 0
        }
    );
}

#[test]
fn no_pcpu_counts_as_one() {
    let load = load(0);
    assert_eq!(load.pcpus(), 1);
    load.set_pcpus(5);
    assert_eq!(load.pcpus(), 5);
    load.set_pcpus(0);
    assert_eq!(load.pcpus(), 1);
}

/// No number is so large that one more is none at all.
#[test]
fn any_number_of_pcpus_will_do() {
    for load in [load(usize::MAX), load(1)] {
        load.set_pcpus(usize::MAX);
        assert!(load.pcpus().checked_add(MAX_VCPUS).is_some());
        load.account(State::NEW, RUNS);
        assert!(!load.crowded() && !load.try_hold());
    }
}

proptest! {
    /// Any changes of any words: the counts are the sum of what they want.
    #[test]
    fn the_counts_are_the_sum(
        events in proptest::collection::vec(
            (0usize..4, prop::sample::select(vec![
                Event::Enter, Event::Park, Event::Expire, Event::AwaitResume, Event::Leave,
                Event::Hold, Event::HoldLook { over: true }, Event::Kick, Event::Notify,
                Event::Release, Event::Pause, Event::Resume, Event::Interrupt,
            ])),
            0..100,
        ),
    ) {
        let load = load(2);
        let mut words = [State::NEW; 4];
        for (which, event) in events {
            // Held is one that runs, and is taken off the counts before.
            if event == Event::Hold && (words[which].demand() != Demand::Run || !load.try_hold()) {
                continue;
            }
            let (after, _) = step(words[which], event);
            match event {
                Event::Hold if after.demand() == Demand::Held => {}
                Event::Hold => load.unhold(),
                _ => load.account(words[which], after),
            }
            words[which] = after;
            let sum = |demand| words.iter().filter(|word| word.demand() == demand).count();
            let expected = Counts { running: sum(Demand::Run), held: sum(Demand::Held) };
            prop_assert_eq!(load.counts(), expected);
        }
    }
}
