//! Pauses: who may run in one, who hears of its end, and when it is complete.

use std::sync::Arc;

use models::vm::{ID, Parker, Scheduler, one_vcpu};
use models::{Payload, explore, relax, spawn};
use pv_lock_host::{Interruption, KickOutcome, Resumed, WakeReason};

use crate::halt::halt_now;

/// What a vCPU's thread does before each run of the guest.
pub(crate) fn enter(parker: &mut Parker) {
    while let Err(why) = parker.enter() {
        assert_eq!(why, Interruption::Paused);
        assert_eq!(parker.wait_resumed(), Resumed::Running);
    }
}

/// Until no vCPU runs; then it stays so.
pub(crate) fn wait_quiescent(scheduler: &Scheduler) {
    while !scheduler.is_quiescent() {
        relax();
    }
    assert!(scheduler.is_quiescent(), "until it is resumed");
}

/// Pause, kick and resume against a halt: the vCPU sees the pause or not, but
/// it always sees the kick.
#[test]
fn a_pause_keeps_the_kick() {
    explore(|| {
        let (_scheduler, kicker, mut parker) = one_vcpu();
        let (vmm, peer) = (kicker.clone(), kicker);
        let pause = spawn(move || {
            vmm.pause_all();
            vmm.resume_all();
        });
        let kick = spawn(move || {
            peer.kick_by_host(ID);
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
    explore(|| {
        let (_scheduler, kicker, mut parker) = one_vcpu();
        let other = spawn(move || {
            kicker.pause_all();
            let outcome = kicker.kick_by_host(ID);
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
    explore(|| {
        let (_scheduler, kicker, mut parker) = one_vcpu();
        kicker.pause_all();
        let other = spawn(move || {
            kicker.resume_all();
            kicker.pause_all();
            kicker.stop_all();
        });
        while parker.wait_resumed() != Resumed::Stopped {
            relax();
        }
        other.join().unwrap();
    });
}

/// The VMM has the guest's memory from quiescence to resume, the vCPU has it
/// from `enter` to the next call: neither sees the other in it, and each sees
/// what the other wrote.
#[test]
fn a_paused_vm_is_the_vmms() {
    explore(|| {
        let (scheduler, kicker, mut parker) = one_vcpu();
        let memory = Arc::new(Payload::new());
        let guest = Arc::clone(&memory);
        let vcpu = spawn(move || {
            for _ in 0..2 {
                enter(&mut parker);
                guest.touch();
            }
        });
        kicker.pause_all();
        wait_quiescent(&scheduler);
        memory.touch();
        kicker.resume_all();
        vcpu.join().unwrap();
        assert_eq!(memory.get(), 3);
    });
}

/// The same with two pauses: the second one begins before the vCPU, which the
/// resume has woken, has noticed the end of the first.
#[test]
fn pause_resume_pause() {
    explore(|| {
        let (scheduler, kicker, mut parker) = one_vcpu();
        let memory = Arc::new(Payload::new());
        let guest = Arc::clone(&memory);
        let vcpu = spawn(move || {
            enter(&mut parker);
            guest.touch();
        });
        kicker.pause_all();
        kicker.resume_all();
        kicker.pause_all();
        wait_quiescent(&scheduler);
        memory.touch();
        kicker.resume_all();
        vcpu.join().unwrap();
        assert_eq!(memory.get(), 2);
    });
}

/// A vCPU whose thread is away when the pause begins comes back in it.
#[test]
fn one_that_was_away_comes_back_into_the_pause() {
    explore(|| {
        let (scheduler, kicker, mut parker) = one_vcpu();
        let memory = Arc::new(Payload::new());
        let guest = Arc::clone(&memory);
        let vcpu = spawn(move || {
            enter(&mut parker);
            guest.touch();
            parker.leave();
            enter(&mut parker);
            guest.touch();
        });
        kicker.pause_all();
        wait_quiescent(&scheduler);
        memory.touch();
        kicker.resume_all();
        vcpu.join().unwrap();
        assert_eq!(memory.get(), 3);
    });
}

/// A stop in a pause ends nobody's rest: neither that of one that waits for the
/// end of the pause, nor that of one that has left and then asks.
#[test]
fn a_stop_in_a_pause_ends_no_rest() {
    explore(|| {
        let (scheduler, kicker, mut parker) = one_vcpu();
        let memory = Arc::new(Payload::new());
        let guest = Arc::clone(&memory);
        assert_eq!(parker.enter(), Ok(()));
        kicker.pause_all();
        let vcpu = spawn(move || {
            guest.touch();
            assert_eq!(parker.wait_resumed(), Resumed::Stopped);
            assert_eq!(parker.enter(), Err(Interruption::Stopped));
            parker.leave();
            assert_eq!(parker.wait_resumed(), Resumed::Stopped);
        });
        wait_quiescent(&scheduler);
        memory.touch();
        kicker.stop_all();
        assert!(scheduler.is_quiescent(), "it was, and runs no guest");
        vcpu.join().unwrap();
        assert!(scheduler.is_quiescent(), "it still does not");
        assert_eq!(memory.get(), 2);
    });
}

/// A vCPU that a kick has woken when the pause begins is not at rest before its
/// thread, awake for a moment, waits for the end of the pause.
#[test]
fn one_that_wakes_is_not_at_rest() {
    explore(|| {
        let (scheduler, kicker, mut parker) = one_vcpu();
        assert_eq!(parker.enter(), Ok(()));
        let vcpus_state = Arc::new(Payload::new());
        let thread = Arc::clone(&vcpus_state);
        let vcpu = spawn(move || {
            while parker.halt() == WakeReason::Paused {
                thread.touch();
                assert_eq!(parker.wait_resumed(), Resumed::Halted);
            }
            thread.touch();
        });
        kicker.kick_by_host(ID);
        kicker.pause_all();
        wait_quiescent(&scheduler);
        assert!(vcpus_state.touch() <= 1);
        kicker.resume_all();
        vcpu.join().unwrap();
        assert!(vcpus_state.get() >= 2);
    });
}
