//! The contract of halt and kick, one promise a test, on real threads.

use std::thread;
use std::time::{Duration, Instant};

use pv_lock_host::{
    ApicId, BuildError, HaltScheduler, KickOutcome, Kicker, Resumed, VcpuParker, WakeReason,
};

fn pair() -> (HaltScheduler, VcpuParker, VcpuParker) {
    let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0), ApicId(7)]).unwrap();
    let second = parkers.pop().unwrap();
    let first = parkers.pop().unwrap();
    (scheduler, first, second)
}

/// Kicks until a kick finds the vCPU halted.
fn kick_until_woken(kicker: &Kicker, id: ApicId) {
    while kicker.kick(id) != KickOutcome::Woke {
        thread::yield_now();
    }
}

#[test]
fn kick_before_halt_is_kept() {
    let (scheduler, _, mut parker) = pair();
    assert_eq!(scheduler.kicker().kick(ApicId(7)), KickOutcome::Latched);
    assert_eq!(parker.halt(), WakeReason::Kicked);
}

#[test]
fn kicks_coalesce_and_are_consumed_by_one_halt() {
    let (scheduler, _, mut parker) = pair();
    let kicker = scheduler.kicker();
    assert_eq!(kicker.kick(ApicId(7)), KickOutcome::Latched);
    assert_eq!(kicker.kick(ApicId(7)), KickOutcome::AlreadyLatched);
    assert_eq!(kicker.kick(ApicId(7)), KickOutcome::AlreadyLatched);
    assert_eq!(parker.halt(), WakeReason::Kicked);
    assert_eq!(parker.halt_until(Instant::now()), WakeReason::TimedOut);
}

#[test]
fn kick_wakes_a_sleeper() {
    let (scheduler, _, mut parker) = pair();
    let vcpu = thread::spawn(move || while parker.halt() == WakeReason::Kicked {});
    let kicker = scheduler.kicker();
    for _ in 0..100 {
        kick_until_woken(&kicker, ApicId(7));
    }
    kicker.stop_all();
    vcpu.join().unwrap();
}

#[test]
fn unknown_ids_are_no_error() {
    let (scheduler, _a, _b) = pair();
    for id in [1, 6, 8, 255, 4096, u32::MAX] {
        assert_eq!(scheduler.kicker().kick(ApicId(id)), KickOutcome::NoSuchVcpu);
    }
}

#[test]
fn a_kick_goes_before_an_event_which_stays() {
    let (scheduler, _, mut parker) = pair();
    let kicker = scheduler.kicker();
    kicker.notify(ApicId(7));
    kicker.kick(ApicId(7));
    assert_eq!(parker.halt(), WakeReason::Kicked);
    assert_eq!(parker.halt(), WakeReason::Event);
    assert_eq!(parker.halt_until(Instant::now()), WakeReason::TimedOut);
}

#[test]
fn an_event_that_was_taken_ends_no_halt() {
    let (scheduler, _, mut parker) = pair();
    scheduler.kicker().notify(ApicId(7));
    assert!(parker.take_event());
    assert!(!parker.take_event());
    assert_eq!(parker.halt_until(Instant::now()), WakeReason::TimedOut);
}

#[test]
fn a_kick_outlives_pause_and_resume() {
    let (scheduler, _, mut parker) = pair();
    let kicker = scheduler.kicker();
    kicker.kick(ApicId(7));
    kicker.pause_all();
    assert_eq!(parker.pending(), Some(WakeReason::Paused));
    assert_eq!(parker.halt(), WakeReason::Paused);
    kicker.resume_all();
    assert_eq!(parker.pending(), None);
    assert_eq!(parker.wait_resumed(), Resumed::Halted);
    assert_eq!(parker.halt(), WakeReason::Kicked);
    assert!(!parker.is_halted());
}

#[test]
fn a_vcpu_paused_while_running_goes_on_running() {
    let (scheduler, _, mut parker) = pair();
    let kicker = scheduler.kicker();
    kicker.pause_all();
    let vcpu = thread::spawn(move || parker.wait_resumed());
    kicker.resume_all();
    assert_eq!(vcpu.join().unwrap(), Resumed::Running);
}

#[test]
fn stop_wins_over_all_and_stays() {
    let (scheduler, _, mut parker) = pair();
    let kicker = scheduler.kicker();
    kicker.kick(ApicId(7));
    kicker.notify(ApicId(7));
    kicker.pause_all();
    kicker.stop_all();
    kicker.resume_all();
    for _ in 0..2 {
        assert_eq!(parker.pending(), Some(WakeReason::Stopped));
        assert_eq!(parker.halt(), WakeReason::Stopped);
        assert_eq!(parker.wait_resumed(), Resumed::Stopped);
    }
}

#[test]
fn a_deadline_ends_a_halt() {
    let (_scheduler, _, mut parker) = pair();
    let deadline = Instant::now() + Duration::from_millis(2);
    assert_eq!(parker.halt_until(deadline), WakeReason::TimedOut);
    assert!(Instant::now() >= deadline);
}

#[test]
fn ids_may_be_sparse() {
    let ids: Vec<ApicId> = (0..1000u32)
        .map(|n| ApicId(n.wrapping_mul(0x0101_0107)))
        .collect();
    let (scheduler, mut parkers) = HaltScheduler::new(&ids).unwrap();
    let kicker = scheduler.kicker();
    for (parker, &id) in parkers.iter_mut().zip(&ids) {
        assert_eq!(parker.apic_id(), id);
        assert_eq!(kicker.kick(id), KickOutcome::Latched);
        assert_eq!(parker.halt(), WakeReason::Kicked);
    }
    assert_eq!(kicker.kick_all(), 0);
    for parker in &mut parkers {
        assert_eq!(parker.halt(), WakeReason::Kicked);
    }
}

#[test]
fn bad_id_lists_are_refused() {
    let refused = |ids: &[u32]| {
        let ids: Vec<ApicId> = ids.iter().map(|&id| ApicId(id)).collect();
        HaltScheduler::new(&ids).map(|_| ()).unwrap_err()
    };
    assert_eq!(refused(&[]), BuildError::NoVcpus);
    assert_eq!(refused(&[1, 2, 1]), BuildError::DuplicateApicId(ApicId(1)));
    assert_eq!(
        refused(&[u32::MAX, 0, u32::MAX]),
        BuildError::DuplicateApicId(ApicId(u32::MAX))
    );
}
