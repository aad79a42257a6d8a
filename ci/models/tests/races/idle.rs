//! A pCPU that becomes idle and a vCPU that is held just then do not miss each
//! other. The slice is endless here: a held vCPU that is not let go is held for
//! ever, and a checker says so.

use std::cell::Cell;
use std::rc::Rc;

use models::vm::{ID, Parker, assert_counts_are_exact, convoy, holds, polls};
use models::{at_next_wait, clock, explore, spawn};
use pv_lock_host::{ApicId, WakeReason};

/// The other vCPU halts, and only the one that is held would kick it: it waits
/// for a kick as long as two links of a convoy would take, and then lets the
/// held one go.
#[test]
fn one_halts() {
    explore(|| {
        let (scheduler, [mut link, mut other]) = convoy(1, clock::ENDLESS);
        let vcpu = spawn(move || {
            assert_eq!(link.enter(), Ok(()));
            link.kick_by_guest(ApicId(1));
            link
        });
        assert_eq!(other.halt(), WakeReason::Kicked);
        let link = vcpu.join().unwrap();
        let [held, by_turn, by_idle, by_event] = holds(&scheduler, ID);
        assert!(held <= 1 && by_turn == 0 && by_idle == held && by_event == 0);
        assert_counts_are_exact(&scheduler, other, link);
    });
}

/// The same with the hold first (natively there may be none, if the thread lost its
/// pCPU for a slice), which a bounded search may not reach: the other
/// one polls in vain, then sleeps, and lets the held one go.
#[test]
fn one_polls() {
    explore(|| {
        let (scheduler, [mut link, mut other]) = convoy(1, clock::ENDLESS);
        let thread = Rc::new(Cell::new(None));
        let its_thread = Rc::clone(&thread);
        at_next_wait(move || {
            its_thread.set(Some(spawn(move || {
                assert_eq!(other.halt(), WakeReason::Kicked);
                other
            })));
        });
        assert_eq!(link.enter(), Ok(()));
        let thread = match thread.take() {
            Some(thread) => thread,
            None if cfg!(any(feature = "loom", feature = "shuttle")) => panic!("it is not held"),
            None => return,
        };
        link.kick_by_guest(ApicId(1));
        let other = thread.join().unwrap();
        assert_eq!(holds(&scheduler, ID), [1, 0, 1, 0]);
        assert_eq!(polls(&scheduler, ApicId(1)), 1);
        assert_counts_are_exact(&scheduler, other, link);
    });
}

/// A kick that comes while it polls, or just when it is about to sleep.
#[test]
fn one_polls_and_is_kicked() {
    explore(|| {
        let (scheduler, [mut link, mut other]) = convoy(1, clock::ENDLESS);
        let kicker = scheduler.kicker();
        let thread = Rc::new(Cell::new(None));
        let its_thread = Rc::clone(&thread);
        at_next_wait(move || {
            its_thread.set(Some(spawn(move || {
                let device = spawn(move || kicker.kick_by_host(ApicId(1)));
                assert_eq!(other.halt(), WakeReason::Kicked);
                device.join().unwrap();
                other.leave();
                other
            })));
        });
        assert_eq!(link.enter(), Ok(()));
        let thread = match thread.take() {
            Some(thread) => thread,
            None if cfg!(any(feature = "loom", feature = "shuttle")) => panic!("it is not held"),
            None => return,
        };
        let other = thread.join().unwrap();
        assert_eq!(holds(&scheduler, ID), [1, 0, 1, 0]);
        assert_counts_are_exact(&scheduler, other, link);
    });
}

/// It is let go because the other one goes.
fn one_goes(go: fn(Parker)) {
    let (scheduler, [mut link, other]) = convoy(1, clock::ENDLESS);
    let vcpu = spawn(move || go(other));
    assert_eq!(link.enter(), Ok(()));
    vcpu.join().unwrap();
    let [held, by_turn, by_idle, by_event] = holds(&scheduler, ID);
    assert!(held <= 1 && by_turn == 0 && by_idle == held && by_event == 0);
    let other = scheduler.attach(ApicId(1)).unwrap();
    assert_counts_are_exact(&scheduler, other, link);
}

#[test]
fn one_leaves() {
    explore(|| {
        one_goes(|mut other| {
            other.leave();
        });
    });
}

#[test]
fn one_is_dropped() {
    explore(|| one_goes(drop));
}

/// Two are held, and the one that runs leaves: one after the other goes on, and
/// leaves its pCPU to the next.
#[test]
fn two_are_held() {
    explore(|| {
        let (scheduler, [mut first, mut second, mut third]) = convoy(2, clock::ENDLESS);
        let a = spawn(move || {
            assert_eq!(first.enter(), Ok(()));
            drop(first);
        });
        let b = spawn(move || {
            assert_eq!(second.enter(), Ok(()));
            second.leave();
            second
        });
        third.leave();
        a.join().unwrap();
        let second = b.join().unwrap();
        assert_counts_are_exact(&scheduler, third, second);
    });
}

/// Two pCPUs, one held: of the two that run one leaves and one halts.
#[test]
fn one_of_two_pcpus() {
    explore(|| {
        let (scheduler, [mut link, mut second, mut third]) = convoy(1, clock::ENDLESS);
        scheduler.set_pcpus(2);
        let a = spawn(move || {
            assert_eq!(link.enter(), Ok(()));
            link.kick_by_guest(ApicId(2));
            link
        });
        let b = spawn(move || {
            second.leave();
            second
        });
        assert_eq!(third.halt(), WakeReason::Kicked);
        drop(a.join().unwrap());
        let second = b.join().unwrap();
        scheduler.set_pcpus(1);
        assert_counts_are_exact(&scheduler, third, second);
    });
}
