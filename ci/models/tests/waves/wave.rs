//! A wave of kicks through a tree of vCPUs, while the VM is paused and resumed.

use std::sync::Arc;

use models::vm::{builder, held_for};
use models::{Payload, World, clock, explore, relax, spawn};
use pv_lock_host::{ApicId, Resumed, SchedulerBuilder, WakeReason, Yielding};

/// Each vCPU is kicked once, hands on what it got, and halts again until the
/// stop.
fn wave(builder: SchedulerBuilder<World>, vcpus: u32) {
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
                    if let Err(why) = parker.enter()
                        && !parker.go_on(why)
                    {
                        return kicks;
                    }
                    let letter = mail.get(me).unwrap().get();
                    assert_eq!(letter, 1, "what was written before the kick");
                    for child in [2 * me + 1, 2 * me + 2] {
                        if let (Some(id), Some(mail)) = (ids.get(child), mail.get(child)) {
                            mail.set(letter);
                            parker.kick_by_guest(*id);
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
    kicker.kick_by_host(*ids.first().unwrap());
    pauser.join().unwrap();
    // Only when all have been kicked may the VM be stopped: each has written to
    // its children, so the last ones' letters are enough.
    let leaves = mail.len() / 2..mail.len();
    while !leaves
        .clone()
        .all(|leaf| mail.get(leaf).unwrap().get() == 1)
    {
        relax();
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
fn through_8_vcpus() {
    explore(|| wave(builder().yielding(Yielding::Nothing), 8));
}

#[test]
fn through_16_vcpus() {
    explore(|| wave(builder().yielding(Yielding::Nothing), 16));
}

/// Links of this convoy are held, for a slice that does not end: only those who
/// leave a pCPU let them go.
#[test]
fn through_8_vcpus_on_2_pcpus() {
    explore(|| wave(builder().yielding(held_for(clock::ENDLESS)).pcpus(2), 8));
}
