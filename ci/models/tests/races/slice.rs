//! Holds that end because it is a vCPU's turn, against all else that ends them.
//! The slice is short here: it ends in each execution, sooner or later.

use models::vm::{ID, assert_counts_are_exact, convoy, holds};
use models::{clock, explore, spawn};
use pv_lock_host::{ApicId, WakeReason};

/// Nobody does anything: it goes on when it is its turn.
#[test]
fn its_turn_comes() {
    explore(|| {
        let (scheduler, [mut link, other]) = convoy(1, clock::SHORT);
        assert_eq!(link.enter(), Ok(()));
        let held = holds(&scheduler, ID);
        // Natively the thread may have lost its pCPU for a slice in between, and
        // a kick that comes so late makes no link.
        let native = cfg!(not(any(feature = "loom", feature = "shuttle")));
        assert!(held == [1, 1, 0, 0] || (native && held == [0; 4]));
        assert_counts_are_exact(&scheduler, other, link);
    });
}

/// An event that comes when the slice ends is neither lost nor counted twice.
#[test]
fn a_turn_and_an_event() {
    explore(|| {
        let (scheduler, [mut link, other]) = convoy(1, clock::SHORT);
        let kicker = scheduler.kicker();
        let device = spawn(move || kicker.notify(ID));
        assert_eq!(link.enter(), Ok(()));
        device.join().unwrap();
        assert!(link.take_event());
        assert_counts_are_exact(&scheduler, other, link);
    });
}

/// The slice ends when the other vCPU leaves, which lets the held one go too.
#[test]
fn a_turn_and_a_release() {
    explore(|| {
        let (scheduler, [mut link, mut other]) = convoy(1, clock::SHORT);
        let vcpu = spawn(move || {
            other.leave();
            other
        });
        assert_eq!(link.enter(), Ok(()));
        let other = vcpu.join().unwrap();
        assert_counts_are_exact(&scheduler, other, link);
    });
}

/// The slice ends when the other vCPU, which halts, takes its pCPU for idle.
#[test]
fn a_turn_and_an_idle_pcpu() {
    explore(|| {
        let (scheduler, [mut link, mut other]) = convoy(1, clock::SHORT);
        let vcpu = spawn(move || {
            assert_eq!(link.enter(), Ok(()));
            link.kick_by_guest(ApicId(1));
            link
        });
        assert_eq!(other.halt(), WakeReason::Kicked);
        let link = vcpu.join().unwrap();
        assert_counts_are_exact(&scheduler, other, link);
    });
}

/// Two are held while the third runs on: one after the other has its turn.
#[test]
fn two_have_their_turns() {
    explore(|| {
        let (scheduler, [mut first, mut second, third]) = convoy(2, clock::SHORT);
        let vcpu = spawn(move || {
            assert_eq!(first.enter(), Ok(()));
            first
        });
        assert_eq!(second.enter(), Ok(()));
        drop(vcpu.join().unwrap());
        assert_counts_are_exact(&scheduler, third, second);
    });
}
