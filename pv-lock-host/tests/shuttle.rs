//! More vCPUs than loom can hold, under schedules drawn at random.
//!
//! `ci/shuttle` runs these with `--cfg shuttle`, where a schedule that ends in
//! a deadlock is a failure; without it the same bodies run natively.
#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps is a test that fails"
)]

#[expect(dead_code, reason = "the loom models use the rest")]
mod checker;

use std::sync::Arc;

use checker::{Payload, explore, spawn};
use pv_lock_host::{
    ApicId, HaltScheduler, Resumed, RunCap, SchedulerBuilder, WakeReason, Yielding,
};

/// A wave of kicks through a tree of vCPUs, while the VM is paused and resumed:
/// each is kicked once, hands on what it got, and halts again until the stop.
fn wave(builder: SchedulerBuilder, vcpus: u32) {
    let ids: Vec<ApicId> = (0..vcpus).map(|n| ApicId(n * 0x1_0001)).collect();
    let (scheduler, parkers) = builder.counting(false).build(&ids).unwrap();
    let kicker = scheduler.kicker();
    let ids = Arc::new(ids);
    let mail: Arc<Vec<Payload>> = Arc::new(ids.iter().map(|_| Payload::new()).collect());

    let threads: Vec<_> = parkers
        .into_iter()
        .zip(0usize..)
        .map(|(mut parker, me)| {
            let (ids, mail) = (Arc::clone(&ids), Arc::clone(&mail));
            spawn(move || {
                let mut kicks = 0;
                loop {
                    match parker.halt() {
                        WakeReason::Kicked => {}
                        WakeReason::Paused => {
                            assert_ne!(parker.wait_resumed(), Resumed::Running);
                            continue;
                        }
                        WakeReason::Stopped => return kicks,
                        other => unreachable!("{other:?}"),
                    }
                    kicks += 1;
                    parker.enter();
                    let letter = mail.get(me).unwrap().get();
                    assert_eq!(letter, 1, "what was written before the kick");
                    for child in [2 * me + 1, 2 * me + 2] {
                        if let (Some(id), Some(mail)) = (ids.get(child), mail.get(child)) {
                            mail.set(letter);
                            parker.kick(*id);
                        }
                    }
                }
            })
        })
        .collect();

    let vmm = kicker.clone();
    let pauser = spawn(move || {
        vmm.pause_all();
        vmm.resume_all();
    });
    mail.first().unwrap().set(1);
    kicker.kick(*ids.first().unwrap());
    pauser.join().unwrap();
    // Only when all have been kicked may the VM be stopped: each has written to
    // its children, so the last ones' letters are enough.
    let leaves = mail.len() / 2..mail.len();
    while !leaves
        .clone()
        .all(|leaf| mail.get(leaf).unwrap().get() == 1)
    {
        checker::relax();
    }
    // A kick that is latched when the stop comes is not reported any more.
    kicker.stop_all();
    let kicks: u32 = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .sum();
    let inner = u32::try_from(ids.len() / 2).unwrap();
    assert!((inner..=vcpus).contains(&kicks), "{kicks} of {vcpus}");
}

#[test]
fn a_wave_through_8_vcpus() {
    explore("a_wave_through_8_vcpus", || {
        wave(HaltScheduler::builder().yielding(Yielding::Nothing), 8);
    });
}

#[test]
fn a_wave_through_16_vcpus() {
    explore("a_wave_through_16_vcpus", || {
        wave(HaltScheduler::builder().yielding(Yielding::Nothing), 16);
    });
}

#[test]
fn a_wave_through_8_vcpus_of_which_two_may_run() {
    explore("a_wave_through_8_vcpus_of_which_two_may_run", || {
        let cap = RunCap {
            running: core::num::NonZeroUsize::new(2),
            // A checker has no clock.
            slice: std::time::Duration::MAX,
            ..RunCap::default()
        };
        wave(HaltScheduler::builder().yielding(Yielding::Cap(cap)), 8);
    });
}
