//! Every race of halt and kick, in every order that loom finds.
//!
//! `ci/loom` runs these with `--cfg loom` and prints the number of executions
//! of each; without it the same bodies run natively, many times over. Each
//! model says what must hold; a lost wake-up is found as a deadlock (or, run
//! natively, as a test that does not come back), a missing ordering as a
//! causality violation of the payload's cell.
#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps is a test that fails"
)]

mod checker;

use std::sync::Arc;
use std::time::Instant;

use checker::{Payload, explore, spawn};
use pv_lock_host::{
    ApicId, HaltScheduler, KickOutcome, Kicker, Polling, Resumed, RunCap, SchedulerBuilder,
    VcpuParker, WakeReason, Yielding,
};

const ID: ApicId = ApicId(0);

fn one_vcpu_with(builder: SchedulerBuilder) -> (HaltScheduler, VcpuParker) {
    let builder = builder.counting(false);
    let (scheduler, mut parkers) = builder.build(&[ID]).unwrap();
    (scheduler, parkers.pop().unwrap())
}

fn one_vcpu() -> (Kicker, VcpuParker) {
    let (scheduler, parker) = one_vcpu_with(HaltScheduler::builder());
    (scheduler.kicker(), parker)
}

/// A halt that must not last: what it is waiting for has been done.
fn halt_now(parker: &mut VcpuParker) -> WakeReason {
    parker.halt_until(Instant::now())
}

/// The guest's own loop: check the condition, HLT, check again. The kick may
/// come before the check, between check and halt, and after; the write that it
/// announces is visible behind the halt.
#[test]
fn kick_before_between_after_the_check() {
    explore("kick_before_between_after_the_check", || {
        let (kicker, mut parker) = one_vcpu();
        let payload = Arc::new(Payload::new());
        let sender = Arc::clone(&payload);
        let other = spawn(move || {
            sender.set(42);
            kicker.kick(ID);
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
    explore("each_kick_ends_one_halt", || {
        let (kicker, mut parker) = one_vcpu();
        let (ping, pong) = (Arc::new(Payload::new()), Arc::new(Payload::new()));
        let there = (Arc::clone(&ping), Arc::clone(&pong));
        let (scheduler_b, mut parker_b) = one_vcpu_with(HaltScheduler::builder());
        let kicker_b = scheduler_b.kicker();
        let other = spawn(move || {
            there.0.set(1);
            kicker.kick(ID);
            assert_eq!(parker_b.halt(), WakeReason::Kicked);
            assert_eq!(there.1.get(), 2);
            there.0.set(3);
            kicker.kick(ID);
        });
        assert_eq!(parker.halt(), WakeReason::Kicked);
        assert_eq!(ping.get(), 1);
        pong.set(2);
        kicker_b.kick(ID);
        assert_eq!(parker.halt(), WakeReason::Kicked);
        assert_eq!(ping.get(), 3);
        other.join().unwrap();
        assert_eq!(halt_now(&mut parker), WakeReason::TimedOut);
    });
}

/// Two kickers: one of them wakes, kicks coalesce but never below one, and
/// whichever kick a halt is ended by, what its kicker wrote is visible.
#[test]
fn two_kickers() {
    explore("two_kickers", || {
        let (kicker, mut parker) = one_vcpu();
        let payloads = [Arc::new(Payload::new()), Arc::new(Payload::new())];
        let others = payloads.clone().map(|payload| {
            let kicker = kicker.clone();
            spawn(move || {
                payload.set(7);
                kicker.kick(ID)
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
    explore("a_coalesced_kick_publishes", || {
        let (kicker, mut parker) = one_vcpu();
        let payload = Arc::new(Payload::new());
        let coalesced = Arc::new(checker::Flag::new());
        kicker.kick(ID);
        let (sender, says) = (Arc::clone(&payload), Arc::clone(&coalesced));
        let other = spawn(move || {
            sender.set(5);
            if kicker.kick(ID) == KickOutcome::AlreadyLatched {
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
    explore("kick_and_event_are_told_apart", || {
        let (kicker, mut parker) = one_vcpu();
        let payload = Arc::new(Payload::new());
        let (a, b) = (kicker.clone(), kicker);
        let sender = Arc::clone(&payload);
        let kick = spawn(move || a.kick(ID));
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
    explore("taking_an_event_loses_none", || {
        let (kicker, mut parker) = one_vcpu();
        let line = Arc::new(checker::Flag::new());
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
    explore("a_timeout_eats_no_kick", || {
        let (kicker, mut parker) = one_vcpu();
        let other = spawn(move || {
            kicker.kick(ID);
        });
        if halt_now(&mut parker) == WakeReason::TimedOut {
            assert_eq!(parker.halt(), WakeReason::Kicked);
        }
        other.join().unwrap();
        assert_eq!(halt_now(&mut parker), WakeReason::TimedOut);
    });
}

/// Pause, kick and resume against a halt: the vCPU sees the pause or not, but
/// it always sees the kick.
#[test]
fn a_pause_keeps_the_kick() {
    explore("a_pause_keeps_the_kick", || {
        let (kicker, mut parker) = one_vcpu();
        let (vmm, peer) = (kicker.clone(), kicker);
        let pause = spawn(move || {
            vmm.pause_all();
            vmm.resume_all();
        });
        let kick = spawn(move || {
            peer.kick(ID);
        });
        while parker.halt() == WakeReason::Paused {
            assert_eq!(parker.wait_resumed(), Resumed::Halted);
        }
        pause.join().unwrap();
        kick.join().unwrap();
        assert_eq!(halt_now(&mut parker), WakeReason::TimedOut, "consumed once");
    });
}

/// A pause that comes while the vCPU sleeps, and a kick within it: the kick is
/// there after the resume, and the sleeper is woken for the resume.
#[test]
fn a_kick_during_the_pause_ends_the_halt_after_it() {
    explore("a_kick_during_the_pause_ends_the_halt_after_it", || {
        let (kicker, mut parker) = one_vcpu();
        let other = spawn(move || {
            kicker.pause_all();
            let outcome = kicker.kick(ID);
            assert_eq!(outcome, KickOutcome::Latched);
            kicker.resume_all();
        });
        loop {
            match parker.halt() {
                WakeReason::Paused => assert_eq!(parker.wait_resumed(), Resumed::Halted),
                reason => break assert_eq!(reason, WakeReason::Kicked),
            }
        }
        other.join().unwrap();
    });
}

/// Resume and stop against a vCPU that sleeps in a pause, with a second pause
/// right behind the resume.
#[test]
fn a_paused_vcpu_is_let_go() {
    explore("a_paused_vcpu_is_let_go", || {
        let (kicker, mut parker) = one_vcpu();
        kicker.pause_all();
        let vmm = kicker.clone();
        let other = spawn(move || {
            vmm.resume_all();
            vmm.pause_all();
            vmm.stop_all();
        });
        while parker.wait_resumed() != Resumed::Stopped {
            checker::relax();
        }
        other.join().unwrap();
    });
}

/// A stop against a kick: the halt ends, and the next one says stopped.
#[test]
fn a_stop_is_missed_by_nobody() {
    explore("a_stop_is_missed_by_nobody", || {
        let (kicker, mut parker) = one_vcpu();
        let payload = Arc::new(Payload::new());
        let (vmm, sender) = (kicker.clone(), Arc::clone(&payload));
        let stop = spawn(move || {
            sender.set(9);
            vmm.stop_all();
        });
        let kick = spawn(move || {
            kicker.kick(ID);
        });
        let first = parker.halt();
        assert!(matches!(first, WakeReason::Kicked | WakeReason::Stopped));
        assert_eq!(parker.halt(), WakeReason::Stopped);
        assert_eq!(payload.get(), 9);
        stop.join().unwrap();
        kick.join().unwrap();
    });
}

/// Awake at first, asleep then: a kick finds the vCPU in either.
#[test]
fn a_kick_between_poll_and_sleep() {
    explore("a_kick_between_poll_and_sleep", || {
        let builder = HaltScheduler::builder()
            .polling(Polling::Fixed(std::time::Duration::from_micros(1)))
            .host_cpus(4);
        let (scheduler, mut parker) = one_vcpu_with(builder);
        let kicker = scheduler.kicker();
        let payload = Arc::new(Payload::new());
        let sender = Arc::clone(&payload);
        let other = spawn(move || {
            sender.set(8);
            kicker.kick(ID)
        });
        assert_eq!(parker.halt(), WakeReason::Kicked);
        assert_eq!(payload.get(), 8);
        other.join().unwrap();
    });
}

/// A snapshot taken while a kicker is at work: the kick is in the snapshot, or
/// it came after it; it is not in neither.
#[test]
fn a_snapshot_has_the_kick_or_the_slot_has() {
    explore("a_snapshot_has_the_kick_or_the_slot_has", || {
        let (scheduler, mut parker) = one_vcpu_with(HaltScheduler::builder());
        let kicker = scheduler.kicker();
        kicker.kick(ID);
        kicker.pause_all();
        let vcpu = spawn(move || {
            assert_eq!(parker.wait_resumed(), Resumed::Running);
            parker.halt()
        });
        let saved = loop {
            match scheduler.save() {
                Ok(saved) => break saved,
                Err(_) => checker::relax(),
            }
        };
        assert!(saved.vcpus.iter().all(|vcpu| vcpu.kicked && !vcpu.halted));
        kicker.resume_all();
        assert_eq!(vcpu.join().unwrap(), WakeReason::Kicked);
    });
}

/// Two vCPUs and one place.
fn one_place() -> (Kicker, VcpuParker, VcpuParker) {
    let cap = RunCap {
        // A checker has no clock.
        slice: std::time::Duration::MAX,
        running: Some(core::num::NonZeroUsize::MIN),
        ..RunCap::default()
    };
    let (scheduler, mut parkers) = HaltScheduler::builder()
        .counting(false)
        .yielding(Yielding::Cap(cap))
        .build(&[ApicId(0), ApicId(1)])
        .unwrap();
    let second = parkers.pop().unwrap();
    (scheduler.kicker(), parkers.pop().unwrap(), second)
}

/// A kick from outside for the one that sleeps, while the other runs. Each gets
/// its turn, and the place is never lost.
#[test]
fn one_place_for_two() {
    explore("one_place_for_two", || {
        let (kicker, mut first, mut second) = one_place();
        let guest = Arc::new(Payload::new());
        let inside = Arc::clone(&guest);
        let vcpu = spawn(move || {
            assert_eq!(second.halt(), WakeReason::Kicked);
            assert_eq!(second.enter(), None);
            inside.set(2);
        });
        assert_eq!(first.enter(), None);
        guest.set(1);
        kicker.kick(ApicId(1));
        // Sleeping, as the end of the vCPU does, gives the place up.
        assert_eq!(halt_now(&mut first), WakeReason::TimedOut);
        assert_eq!(first.enter(), None);
        guest.get();
        drop(first);
        vcpu.join().unwrap();
    });
}

/// The guest of the one that runs kicks the other: with the place, what was
/// written in it goes to and fro.
#[test]
fn a_kicker_gives_its_place() {
    explore("a_kicker_gives_its_place", || {
        let (_kicker, mut first, mut second) = one_place();
        let guest = Arc::new(Payload::new());
        let inside = Arc::clone(&guest);
        let vcpu = spawn(move || {
            assert_eq!(second.halt(), WakeReason::Kicked);
            assert_eq!(second.enter(), None);
            assert_eq!(inside.get(), 1);
            inside.set(2);
        });
        assert_eq!(first.enter(), None);
        guest.set(1);
        first.kick(ApicId(1));
        assert_eq!(first.enter(), None);
        // With the place, or not yet: it may have been awake, and not in line.
        assert!(matches!(guest.get(), 1 | 2));
        drop(first);
        vcpu.join().unwrap();
    });
}

/// One that waits for a place hears of a pause and of a stop.
#[test]
fn a_stop_is_heard_in_line() {
    explore("a_stop_is_heard_in_line", || {
        let (kicker, mut first, mut second) = one_place();
        assert_eq!(first.enter(), None);
        let vcpu = spawn(move || match second.enter() {
            Some(WakeReason::Paused) => second.wait_resumed(),
            Some(WakeReason::Stopped) => Resumed::Stopped,
            other => unreachable!("there is no place: {other:?}"),
        });
        kicker.pause_all();
        kicker.stop_all();
        assert_eq!(vcpu.join().unwrap(), Resumed::Stopped);
    });
}
