//! Kicks, events, interruptions and deadlines against a halt.

use std::sync::Arc;
use std::time::Duration;

use models::vm::{ID, Parker, assert_counts_are_exact, builder, crowd, one_vcpu, one_vcpu_with};
use models::{Flag, Payload, World, clock, explore, relax, spawn};
use pv_lock_host::{ApicId, Interruption, KickOutcome, Platform, Polling, WakeReason};

/// A halt that must not last: what it is waiting for has been done.
pub(crate) fn halt_now(parker: &mut Parker) -> WakeReason {
    parker.halt_until_ns(World::now())
}

/// The guest's own loop: check the condition, HLT, check again. The kick may
/// come before the check, between check and halt, and after; the write that it
/// announces is visible behind the halt.
#[test]
fn kick_before_between_after_the_check() {
    explore(|| {
        let (_scheduler, kicker, mut parker) = one_vcpu();
        let payload = Arc::new(Payload::new());
        let sender = Arc::clone(&payload);
        let other = spawn(move || {
            sender.set(42);
            kicker.kick_by_host(ID);
        });
        assert_eq!(parker.halt(), WakeReason::Kicked);
        assert_eq!(payload.get(), 42);
        other.join().unwrap();
    });
}

/// The same for each halt of two in a row: no kick is used twice, and a kick
/// that comes while the vCPU is on its way into the second halt is not lost.
#[test]
fn each_kick_ends_one_halt() {
    explore(|| {
        let (_scheduler, kicker, mut parker) = one_vcpu();
        let (_scheduler_b, kicker_b, mut parker_b) = one_vcpu();
        let (ping, pong) = (Arc::new(Payload::new()), Arc::new(Payload::new()));
        let there = (Arc::clone(&ping), Arc::clone(&pong));
        let other = spawn(move || {
            there.0.set(1);
            kicker.kick_by_host(ID);
            assert_eq!(parker_b.halt(), WakeReason::Kicked);
            assert_eq!(there.1.get(), 2);
            there.0.set(3);
            kicker.kick_by_host(ID);
        });
        assert_eq!(parker.halt(), WakeReason::Kicked);
        assert_eq!(ping.get(), 1);
        pong.set(2);
        kicker_b.kick_by_host(ID);
        assert_eq!(parker.halt(), WakeReason::Kicked);
        assert_eq!(ping.get(), 3);
        other.join().unwrap();
        assert_eq!(halt_now(&mut parker), WakeReason::TimedOut);
    });
}

/// Two guests kick each other, in a VM that counts who wants to run: a halt may
/// be counted after the kick that ends it, and the sum is right all the same.
#[test]
fn guests_kick_each_other() {
    explore(|| {
        let (scheduler, [mut first, mut second]) = crowd(clock::ENDLESS);
        let guest = Arc::new(Payload::new());
        let inside = Arc::clone(&guest);
        let vcpu = spawn(move || {
            assert_eq!(second.halt(), WakeReason::Kicked);
            inside.touch();
            second.kick_by_guest(ApicId(0));
            second
        });
        guest.touch();
        first.kick_by_guest(ApicId(1));
        assert_eq!(first.halt(), WakeReason::Kicked);
        assert_eq!(guest.touch(), 2);
        let second = vcpu.join().unwrap();
        assert_counts_are_exact(&scheduler, first, second);
    });
}

/// Two kickers: one of them wakes, kicks coalesce but never below one, and
/// whichever kick a halt is ended by, what its kicker wrote is visible.
#[test]
fn two_kickers() {
    explore(|| {
        let (_scheduler, kicker, mut parker) = one_vcpu();
        let payloads = [Arc::new(Payload::new()), Arc::new(Payload::new())];
        let others = payloads.clone().map(|payload| {
            let kicker = kicker.clone();
            spawn(move || {
                payload.set(7);
                kicker.kick_by_host(ID)
            })
        });
        assert_eq!(parker.halt(), WakeReason::Kicked);
        let outcomes = others.map(|other| other.join().unwrap());
        let coalesced = outcomes.contains(&KickOutcome::AlreadyLatched);
        // Both have kicked: the second kick is either one with the first, or
        // ends the next halt.
        let second = halt_now(&mut parker);
        if coalesced {
            assert_eq!(second, WakeReason::TimedOut);
        } else {
            assert_eq!(second, WakeReason::Kicked);
        }
        assert_eq!(payloads.map(|payload| payload.get()), [7, 7]);
    });
}

/// A kick that is one with an earlier one publishes too: if it came before the
/// halt that consumed both, its payload is there, though nothing else says so.
#[test]
fn a_coalesced_kick_publishes() {
    explore(|| {
        let (_scheduler, kicker, mut parker) = one_vcpu();
        let payload = Arc::new(Payload::new());
        let coalesced = Arc::new(Flag::new());
        kicker.kick_by_host(ID);
        let (sender, says) = (Arc::clone(&payload), Arc::clone(&coalesced));
        let other = spawn(move || {
            sender.set(5);
            if kicker.kick_by_host(ID) == KickOutcome::AlreadyLatched {
                says.raise_relaxed();
            }
        });
        assert_eq!(parker.halt(), WakeReason::Kicked);
        if coalesced.is_raised_relaxed() {
            assert_eq!(payload.get(), 5);
        }
        other.join().unwrap();
    });
}

/// A kick and an event: both end a halt, each once, whatever came first.
#[test]
fn kick_and_event_are_told_apart() {
    explore(|| {
        let (_scheduler, kicker, mut parker) = one_vcpu();
        let payload = Arc::new(Payload::new());
        let (a, b) = (kicker.clone(), kicker);
        let sender = Arc::clone(&payload);
        let kick = spawn(move || a.kick_by_host(ID));
        let notify = spawn(move || {
            sender.set(3);
            b.notify(ID)
        });
        let mut reasons = [parker.halt(), parker.halt()];
        reasons.sort_by_key(|reason| *reason == WakeReason::Event);
        assert_eq!(reasons, [WakeReason::Kicked, WakeReason::Event]);
        assert_eq!(payload.get(), 3);
        kick.join().unwrap();
        notify.join().unwrap();
    });
}

/// An event that is announced after the controller was read is not lost.
#[test]
fn taking_an_event_loses_none() {
    explore(|| {
        let (_scheduler, kicker, mut parker) = one_vcpu();
        let line = Arc::new(Flag::new());
        let device = Arc::clone(&line);
        let other = spawn(move || {
            device.raise();
            kicker.notify(ID);
        });
        // Acknowledge, then read the line; halt only if it is low.
        loop {
            parker.take_event();
            if line.is_raised() {
                break;
            }
            assert_eq!(parker.halt(), WakeReason::Event);
        }
        other.join().unwrap();
    });
}

/// A deadline that passes just as the kick comes: the kick is either reported
/// or still latched.
#[test]
fn a_timeout_eats_no_kick() {
    explore(|| {
        let (_scheduler, kicker, mut parker) = one_vcpu();
        let other = spawn(move || {
            kicker.kick_by_host(ID);
        });
        if halt_now(&mut parker) == WakeReason::TimedOut {
            assert_eq!(parker.halt(), WakeReason::Kicked);
        }
        other.join().unwrap();
        assert_eq!(halt_now(&mut parker), WakeReason::TimedOut);
    });
}

/// Awake at first, asleep then: a kick finds the vCPU in either.
#[test]
fn a_kick_between_poll_and_sleep() {
    explore(|| {
        let polling = Polling::Fixed(Duration::from_micros(1));
        let (_scheduler, kicker, mut parker) = one_vcpu_with(builder().polling(polling).pcpus(4));
        let payload = Arc::new(Payload::new());
        let sender = Arc::clone(&payload);
        let other = spawn(move || {
            sender.set(8);
            kicker.kick_by_host(ID)
        });
        assert_eq!(parker.halt(), WakeReason::Kicked);
        assert_eq!(payload.get(), 8);
        other.join().unwrap();
    });
}

/// An interruption and a kick: the vCPU comes out for either, each once, and is
/// halted until the kick.
#[test]
fn an_interruption_is_said_once() {
    explore(|| {
        let (_scheduler, kicker, mut parker) = one_vcpu();
        let (a, b) = (kicker.clone(), kicker);
        let interrupt = spawn(move || a.interrupt(ID));
        let kick = spawn(move || b.kick_by_host(ID));
        let first = parker.halt();
        assert_eq!(parker.is_halted(), first == WakeReason::Interrupted);
        let mut reasons = [first, parker.halt()];
        reasons.sort_by_key(|reason| *reason == WakeReason::Kicked);
        assert_eq!(reasons, [WakeReason::Interrupted, WakeReason::Kicked]);
        interrupt.join().unwrap();
        kick.join().unwrap();
        assert_eq!(halt_now(&mut parker), WakeReason::TimedOut);
    });
}

/// A vCPU that runs, and enters its guest again and again, comes out for an
/// interruption once, and sees what was written before it.
#[test]
fn an_interruption_ends_the_entering() {
    explore(|| {
        let (_scheduler, kicker, mut parker) = one_vcpu();
        assert_eq!(parker.enter(), Ok(()));
        let payload = Arc::new(Payload::new());
        let sender = Arc::clone(&payload);
        let other = spawn(move || {
            sender.set(4);
            kicker.interrupt(ID);
        });
        while parker.enter().is_ok() {
            relax();
        }
        assert_eq!(payload.get(), 4);
        other.join().unwrap();
        assert_eq!(parker.enter(), Ok(()));
        parker.leave();
        assert_eq!(parker.pending(), None::<Interruption>);
    });
}
