//! Owners that come and go: of a vCPU, and of the VM.

use std::sync::Arc;

use models::vm::{ID, Parker, Scheduler, one_vcpu};
use models::{Payload, World, explore, relax, spawn};
use pv_lock_host::{AttachError, Interruption, KickOutcome, Kicker, Resumed, WakeReason};

use crate::halt::halt_now;
use crate::pause::wait_quiescent;

/// Until nobody else has the vCPU.
fn attach(scheduler: &Scheduler) -> Parker {
    loop {
        match scheduler.attach(ID) {
            Ok(parker) => return parker,
            Err(error) => assert_eq!(error, AttachError::Attached(ID)),
        }
        relax();
    }
}

/// A stop against a kick: the halt ends, and the next one says stopped.
#[test]
fn a_stop_is_missed_by_nobody() {
    explore(|| {
        let (_scheduler, kicker, mut parker) = one_vcpu();
        let payload = Arc::new(Payload::new());
        let (vmm, sender) = (kicker.clone(), Arc::clone(&payload));
        let stop = spawn(move || {
            sender.set(9);
            vmm.stop_all();
        });
        let kick = spawn(move || {
            kicker.kick_by_host(ID);
        });
        let first = parker.halt();
        assert!(matches!(first, WakeReason::Kicked | WakeReason::Stopped));
        assert_eq!(parker.halt(), WakeReason::Stopped);
        assert_eq!(payload.get(), 9);
        stop.join().unwrap();
        kick.join().unwrap();
    });
}

/// When the last of the scheduler and its kickers goes, whichever that is, nobody
/// could wake the vCPU any more: it is stopped.
#[test]
fn the_last_owner_stops_the_vm() {
    explore(|| {
        let (scheduler, kicker, mut parker) = one_vcpu();
        let one = spawn(move || drop(scheduler));
        let other = spawn(move || drop(kicker));
        assert_eq!(parker.halt(), WakeReason::Stopped);
        one.join().unwrap();
        other.join().unwrap();
    });
}

/// A kick for a vCPU whose thread is about to go, is gone, or has a successor:
/// the successor's halt ends, and it sees what the kicker wrote.
#[test]
fn a_kick_outlives_the_parker() {
    explore(|| {
        let (scheduler, kicker, parker) = one_vcpu();
        let payload = Arc::new(Payload::new());
        let sender = Arc::clone(&payload);
        let other = spawn(move || {
            sender.set(6);
            assert_ne!(kicker.kick_by_host(ID), KickOutcome::AlreadyLatched);
        });
        drop(parker);
        let mut parker = attach(&scheduler);
        assert_eq!(parker.halt(), WakeReason::Kicked);
        assert_eq!(payload.get(), 6);
        other.join().unwrap();
        assert_eq!(halt_now(&mut parker), WakeReason::TimedOut);
    });
}

/// A successor sees what its predecessor wrote, and what was latched for it.
#[test]
fn a_vcpu_goes_from_thread_to_thread() {
    explore(|| {
        let (scheduler, kicker, mut parker) = one_vcpu();
        let state = Arc::new(Payload::new());
        let thread = Arc::clone(&state);
        kicker.kick_by_host(ID);
        let predecessor = spawn(move || {
            assert_eq!(parker.enter(), Ok(()));
            thread.set(1);
        });
        let mut parker = attach(&scheduler);
        assert_eq!(state.get(), 1);
        assert_eq!(parker.enter(), Ok(()));
        assert_eq!(parker.halt(), WakeReason::Kicked);
        predecessor.join().unwrap();
    });
}

/// Of two that want a vCPU one gets it.
#[test]
fn one_of_two_attaches() {
    explore(|| {
        let (scheduler, _kicker, parker) = one_vcpu();
        drop(parker);
        let scheduler = Arc::new(scheduler);
        let rival = Arc::clone(&scheduler);
        let other = spawn(move || rival.attach(ID).ok());
        let mine = scheduler.attach(ID).ok();
        let theirs = other.join().unwrap();
        assert!(mine.is_some() != theirs.is_some());
    });
}

/// Nobody has paused the VM, so a vCPU without an owner is not at rest: its next
/// one may run at any moment.
#[test]
fn one_without_an_owner_is_not_at_rest() {
    explore(|| {
        let (scheduler, _kicker, parker) = one_vcpu();
        drop(parker);
        let scheduler = Arc::new(scheduler);
        let memory = Arc::new(Payload::new());
        let (starter, guest) = (Arc::clone(&scheduler), Arc::clone(&memory));
        let vcpu = spawn(move || {
            let mut parker = starter.attach(ID).unwrap();
            assert_eq!(parker.enter(), Ok(()));
            guest.touch();
        });
        if scheduler.is_quiescent() || scheduler.save().is_ok() {
            memory.touch();
        }
        vcpu.join().unwrap();
    });
}

/// In a pause and after a stop the memory of a vCPU without an owner is the VMM's,
/// whoever attaches.
#[test]
fn an_owner_that_comes_into_a_stop_or_a_pause_does_not_run() {
    for (quiets, refused) in [
        (
            Kicker::stop_all as fn(&Kicker<World>),
            Interruption::Stopped,
        ),
        (Kicker::pause_all, Interruption::Paused),
    ] {
        explore(move || {
            let (scheduler, kicker, mut parker) = one_vcpu();
            let scheduler = Arc::new(scheduler);
            let memory = Arc::new(Payload::new());
            let (starter, guest) = (Arc::clone(&scheduler), Arc::clone(&memory));
            let vcpu = spawn(move || {
                if parker.enter().is_ok() {
                    guest.touch();
                }
                drop(parker);
                let mut next = starter.attach(ID).unwrap();
                match next.enter() {
                    Ok(()) => _ = guest.touch(),
                    Err(why) => assert_eq!(why, refused),
                }
            });
            quiets(&kicker);
            wait_quiescent(&scheduler);
            memory.touch();
            assert!(scheduler.save().is_ok());
            vcpu.join().unwrap();
        });
    }
}

/// A VM that was stopped begins anew in the same threads, once they have left:
/// whoever resets it sees what they wrote.
#[test]
fn a_reset_waits_until_all_have_left() {
    explore(|| {
        let (scheduler, kicker, mut parker) = one_vcpu();
        let memory = Arc::new(Payload::new());
        let guest = Arc::clone(&memory);
        assert_eq!(parker.enter(), Ok(()));
        let vcpu = spawn(move || {
            guest.touch();
            assert_eq!(parker.halt(), WakeReason::Stopped);
            guest.touch();
            parker.leave();
            parker
        });
        kicker.stop_all();
        while scheduler.reset().is_err() {
            relax();
        }
        assert_eq!(memory.get(), 2);
        let mut parker = vcpu.join().unwrap();
        assert_eq!(parker.enter(), Ok(()));
    });
}

/// A stop against one that waits for the end of a pause.
#[test]
fn a_stop_ends_a_pause() {
    explore(|| {
        let (scheduler, kicker, mut parker) = one_vcpu();
        kicker.pause_all();
        let vcpu = spawn(move || parker.wait_resumed());
        drop((scheduler, kicker));
        assert_eq!(vcpu.join().unwrap(), Resumed::Stopped);
    });
}
