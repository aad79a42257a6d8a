//! What ends a hold, and what does not. The slice is endless here, so that an
//! end that is lost is not made up for by the next one: it is a deadlock.

use std::sync::Arc;

use models::vm::{ID, assert_counts_are_exact, convoy, holds};
use models::{Payload, World, clock, explore, spawn};
use pv_lock_host::{ApicId, Interruption, Kicker, Platform, WakeReason};

use crate::pause::enter;

/// A link that is to be held against this, while the other vCPU runs.
fn ends_a_hold(by: fn(&Kicker<World>), expected: Result<(), Interruption>) {
    let (scheduler, [mut link, other]) = convoy(1, clock::ENDLESS);
    let kicker = scheduler.kicker();
    let payload = Arc::new(Payload::new());
    let sender = Arc::clone(&payload);
    let device = spawn(move || {
        sender.set(2);
        by(&kicker);
    });
    assert_eq!(link.enter(), expected);
    if expected.is_ok() {
        assert!(link.take_event());
    }
    assert_eq!(payload.get(), 2);
    device.join().unwrap();
    let [held, by_turn, by_idle, by_event] = holds(&scheduler, ID);
    assert!(held <= 1 && by_turn == 0 && by_idle == 0 && by_event == held);
    if expected != Err(Interruption::Stopped) {
        scheduler.kicker().resume_all();
        assert_counts_are_exact(&scheduler, other, link);
    }
}

#[test]
fn an_event_ends_it() {
    explore(|| ends_a_hold(|kicker| _ = kicker.notify(ID), Ok(())));
}

#[test]
fn a_pause_ends_it() {
    explore(|| ends_a_hold(Kicker::pause_all, Err(Interruption::Paused)));
}

#[test]
fn a_stop_ends_it() {
    explore(|| ends_a_hold(Kicker::stop_all, Err(Interruption::Stopped)));
}

#[test]
fn an_interruption_ends_it() {
    let interrupted = Err(Interruption::Interrupted);
    explore(move || ends_a_hold(|kicker| _ = kicker.interrupt(ID), interrupted));
}

/// The guest's timer expires while it is held, and nobody else does anything.
#[test]
fn a_timer_ends_it() {
    explore(|| {
        let (scheduler, [mut link, other]) = convoy(1, clock::ENDLESS);
        let timer = World::now() + 1_000_000;
        assert_eq!(link.enter_until_ns(|| Some(timer)), Ok(()));
        let held = holds(&scheduler, ID);
        // Natively the thread may have lost its pCPU for a slice in between.
        let native = cfg!(not(any(feature = "loom", feature = "shuttle")));
        assert!(held == [1, 0, 0, 1] || (native && held == [0; 4]));
        assert!(native || World::now() == timer);
        assert_counts_are_exact(&scheduler, other, link);
    });
}

/// The same, and an event at any moment of it.
#[test]
fn a_timer_and_an_event() {
    explore(|| {
        let (scheduler, [mut link, other]) = convoy(1, clock::ENDLESS);
        let kicker = scheduler.kicker();
        let device = spawn(move || kicker.notify(ID));
        let timer = World::now() + 1_000_000;
        assert_eq!(link.enter_until_ns(|| Some(timer)), Ok(()));
        device.join().unwrap();
        assert!(link.take_event());
        assert_counts_are_exact(&scheduler, other, link);
    });
}

/// An interrupt that waits already, or a timer that has expired.
#[test]
fn none_is_held_whose_timer_has_expired() {
    explore(|| {
        let (scheduler, [mut link, other]) = convoy(1, clock::ENDLESS);
        let now = World::now();
        assert_eq!(link.enter_until_ns(|| Some(now)), Ok(()));
        assert_eq!(holds(&scheduler, ID), [0; 4]);
        assert_counts_are_exact(&scheduler, other, link);
    });
}

/// A kick is for a vCPU that halts: one that is held goes on being held, asleep,
/// and its next halt ends at once.
#[test]
fn a_kick_stays_latched() {
    explore(|| {
        let (scheduler, [mut link, other]) = convoy(1, clock::ENDLESS);
        let kicker = scheduler.kicker();
        let payload = Arc::new(Payload::new());
        let sender = Arc::clone(&payload);
        let device = spawn(move || {
            sender.set(2);
            kicker.kick_by_host(ID);
            drop(other);
        });
        assert_eq!(link.enter(), Ok(()));
        assert_eq!(link.halt(), WakeReason::Kicked);
        assert_eq!(payload.get(), 2);
        device.join().unwrap();
        let other = scheduler.attach(ApicId(1)).unwrap();
        assert_counts_are_exact(&scheduler, other, link);
    });
}

/// Two ends at once: an event, and the other vCPU that leaves its pCPU idle.
#[test]
fn an_event_and_a_release() {
    explore(|| {
        let (scheduler, [mut link, mut other]) = convoy(1, clock::ENDLESS);
        let kicker = scheduler.kicker();
        let device = spawn(move || kicker.notify(ID));
        let vcpu = spawn(move || {
            other.leave();
            other
        });
        assert_eq!(link.enter(), Ok(()));
        device.join().unwrap();
        let other = vcpu.join().unwrap();
        assert_counts_are_exact(&scheduler, other, link);
    });
}

/// A pause that is over before the held vCPU has noticed it, in which the other
/// one has left: nobody is held for an idle pCPU afterwards.
#[test]
fn a_short_pause() {
    explore(|| {
        let (scheduler, [mut link, other]) = convoy(1, clock::ENDLESS);
        let kicker = scheduler.kicker();
        let vmm = spawn(move || {
            kicker.pause_all();
            drop(other);
            kicker.resume_all();
        });
        enter(&mut link);
        vmm.join().unwrap();
        let other = scheduler.attach(ApicId(1)).unwrap();
        assert_counts_are_exact(&scheduler, other, link);
    });
}
