//! Snapshots of a VM in whose vCPUs things still happen.

use std::sync::Arc;

use models::vm::{ID, builder, one_vcpu, vcpus};
use models::{Payload, explore, relax, spawn};
use pv_lock_host::{
    ApicId, Interruption, Resumed, SavedError, SavedScheduler, SavedVcpu, WakeReason, Yielding,
};

use crate::halt::halt_now;

/// A vCPU that was halted, with a kick that has come since.
const fn halted_and_kicked(apic_id: ApicId) -> SavedVcpu {
    SavedVcpu {
        apic_id,
        halted: true,
        kicked: true,
        event: false,
    }
}

/// A snapshot taken while a kicker is at work: the kick is in the snapshot, or
/// it came after it; it is not in neither.
#[test]
fn a_snapshot_has_the_kick_or_the_slot_has() {
    explore(|| {
        let (scheduler, kicker, mut parker) = one_vcpu();
        kicker.kick_by_host(ID);
        kicker.pause_all();
        let vcpu = spawn(move || {
            assert_eq!(parker.wait_resumed(), Resumed::Running);
            parker.halt()
        });
        let saved = loop {
            match scheduler.save() {
                Ok(saved) => break saved,
                Err(_) => relax(),
            }
        };
        assert!(saved.vcpus.iter().all(|vcpu| vcpu.kicked && !vcpu.halted));
        kicker.resume_all();
        assert_eq!(vcpu.join().unwrap(), WakeReason::Kicked);
    });
}

/// Whoever is given a snapshot sees what the vCPUs' threads wrote before.
#[test]
fn a_snapshot_publishes() {
    explore(|| {
        let (scheduler, kicker, mut parker) = one_vcpu();
        let registers = Arc::new(Payload::new());
        let thread = Arc::clone(&registers);
        assert_eq!(parker.enter(), Ok(()));
        kicker.pause_all();
        let vcpu = spawn(move || {
            thread.set(3);
            parker.wait_resumed()
        });
        while scheduler.save().is_err() {
            relax();
        }
        assert_eq!(registers.get(), 3);
        kicker.resume_all();
        assert_eq!(vcpu.join().unwrap(), Resumed::Running);
    });
}

/// A restore against a thread that begins: either it came first, and the restore
/// fails and has changed nothing, or it waits and then has what was restored.
#[test]
fn a_restore_against_one_that_begins() {
    explore(|| {
        let (scheduler, kicker, mut parker) = one_vcpu();
        let memory = Arc::new(Payload::new());
        let guest = Arc::clone(&memory);
        let vcpu = spawn(move || {
            // As a thread begins that may find its vCPU halted.
            if parker.wait_resumed() == Resumed::Halted {
                assert_eq!(parker.halt(), WakeReason::Kicked);
            }
            while let Err(why) = parker.enter() {
                assert_eq!(why, Interruption::Paused);
                if parker.wait_resumed() == Resumed::Halted {
                    assert_eq!(parker.halt(), WakeReason::Kicked);
                }
            }
            guest.touch();
            loop {
                match parker.halt() {
                    // By a restore that fails, or that came just now.
                    WakeReason::Paused => assert_eq!(parker.wait_resumed(), Resumed::Halted),
                    WakeReason::Kicked => {}
                    reason => break reason,
                }
            }
        });
        let saved = SavedScheduler {
            vcpus: vec![halted_and_kicked(ID)],
        };
        match scheduler.restore(&saved) {
            Ok(()) => {
                memory.touch();
                kicker.resume_all();
            }
            Err(error) => assert_eq!(error, SavedError::NotPaused(ID)),
        }
        kicker.notify(ID);
        assert_eq!(vcpu.join().unwrap(), WakeReason::Event);
    });
}

/// A restore that fails for one vCPU lets those go that it has paused.
#[test]
fn a_failed_restore_pauses_nobody() {
    explore(|| {
        let builder = builder().counting(false).yielding(Yielding::Nothing);
        let (scheduler, [mut first, mut second]) = vcpus(builder);
        assert_eq!(second.enter(), Ok(()));
        let vcpu = spawn(move || {
            while first.enter().is_err() {
                assert_eq!(first.wait_resumed(), Resumed::Running);
            }
        });
        let saved = SavedScheduler {
            vcpus: vec![halted_and_kicked(ID), halted_and_kicked(ApicId(1))],
        };
        assert!(scheduler.restore(&saved).is_err());
        vcpu.join().unwrap();
        assert_eq!(second.enter(), Ok(()));
    });
}

/// A kick while a VM that was kicked is restored: there is one kick afterwards.
#[test]
fn a_restore_against_a_kick() {
    explore(|| {
        let (scheduler, kicker, mut parker) = one_vcpu();
        let peer = kicker.clone();
        kicker.pause_all();
        let kick = spawn(move || peer.kick_by_host(ID));
        let vcpu = spawn(move || {
            assert_eq!(parker.wait_resumed(), Resumed::Halted);
            assert_eq!(parker.halt(), WakeReason::Kicked);
            parker
        });
        let saved = SavedScheduler {
            vcpus: vec![halted_and_kicked(ID)],
        };
        assert_eq!(scheduler.restore(&saved), Ok(()));
        kick.join().unwrap();
        kicker.resume_all();
        let mut parker = vcpu.join().unwrap();
        assert_eq!(halt_now(&mut parker), WakeReason::TimedOut);
    });
}
