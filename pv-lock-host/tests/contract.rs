//! The contract of halt and kick, one promise a test, on real threads.
#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps is a test that fails"
)]

use std::thread;
use std::time::{Duration, Instant};

use pv_lock_host::{
    ApicId, BuildError, HaltScheduler, Interruption, KickOutcome, Kicker, Resumed, VcpuParker,
    WakeReason,
};

fn pair() -> (HaltScheduler, VcpuParker, VcpuParker) {
    let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0), ApicId(7)]).unwrap();
    let second = parkers.pop().unwrap();
    let first = parkers.pop().unwrap();
    (scheduler, first, second)
}

/// Kicks until a kick finds the vCPU halted.
fn kick_until_woken(kicker: &Kicker, id: ApicId) {
    while kicker.kick_by_host(id) != KickOutcome::Woke {
        thread::yield_now();
    }
}

#[test]
fn the_halves_go_where_they_are_needed() {
    fn sendable<T: Send>() {}
    fn shareable<T: Send + Sync + 'static>() {}
    sendable::<VcpuParker>();
    shareable::<Kicker>();
    shareable::<HaltScheduler>();
}

#[test]
fn kick_before_halt_is_kept() {
    let (scheduler, _, mut parker) = pair();
    assert_eq!(
        scheduler.kicker().kick_by_host(ApicId(7)),
        KickOutcome::Latched
    );
    assert_eq!(parker.halt(), WakeReason::Kicked);
}

#[test]
fn kicks_coalesce_and_are_consumed_by_one_halt() {
    let (scheduler, _, mut parker) = pair();
    let kicker = scheduler.kicker();
    assert_eq!(kicker.kick_by_host(ApicId(7)), KickOutcome::Latched);
    assert_eq!(kicker.kick_by_host(ApicId(7)), KickOutcome::AlreadyLatched);
    assert_eq!(kicker.kick_by_host(ApicId(7)), KickOutcome::AlreadyLatched);
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
        assert_eq!(
            scheduler.kicker().kick_by_host(ApicId(id)),
            KickOutcome::NoSuchVcpu
        );
    }
}

#[test]
fn a_kick_goes_before_an_event_which_stays() {
    let (scheduler, _, mut parker) = pair();
    let kicker = scheduler.kicker();
    kicker.notify(ApicId(7));
    kicker.kick_by_host(ApicId(7));
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
    kicker.kick_by_host(ApicId(7));
    kicker.pause_all();
    assert_eq!(parker.pending(), Some(Interruption::Paused));
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
    kicker.kick_by_host(ApicId(7));
    kicker.notify(ApicId(7));
    kicker.pause_all();
    kicker.stop_all();
    kicker.resume_all();
    for _ in 0..2 {
        assert_eq!(parker.pending(), Some(Interruption::Stopped));
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
        assert_eq!(kicker.kick_by_host(id), KickOutcome::Latched);
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

mod threads {
    use super::*;
    use pv_lock_host::{AttachError, SavedError};

    /// A vCPU that has been asleep, and is again or is about to be; its thread
    /// gives what ends its halts, if not a kick.
    fn sleeper() -> (HaltScheduler, thread::JoinHandle<WakeReason>) {
        let (scheduler, _, mut parker) = pair();
        let vcpu = thread::spawn(move || {
            loop {
                match parker.halt() {
                    WakeReason::Kicked => {}
                    other => return other,
                }
            }
        });
        kick_until_woken(&scheduler.kicker(), ApicId(7));
        (scheduler, vcpu)
    }

    #[test]
    fn an_interrupted_vcpu_is_still_halted_and_keeps_its_kick() {
        let (scheduler, _, mut parker) = pair();
        let kicker = scheduler.kicker();
        parker.enter().unwrap();
        kicker.kick_by_host(ApicId(7));
        assert_eq!(kicker.interrupt(ApicId(7)), KickOutcome::Latched);
        assert_eq!(kicker.interrupt(ApicId(7)), KickOutcome::AlreadyLatched);
        assert_eq!(kicker.interrupt(ApicId(1)), KickOutcome::NoSuchVcpu);
        assert_eq!(parker.pending(), Some(Interruption::Interrupted));
        assert_eq!(parker.halt(), WakeReason::Interrupted);
        assert!(parker.is_halted());
        assert_eq!(parker.pending(), None, "it is said once");
        assert!(parker.go_on(WakeReason::Interrupted), "halts again");
        assert!(!parker.is_halted(), "the kick ended that halt");
    }

    #[test]
    fn an_interruption_reaches_a_sleeper() {
        let (scheduler, vcpu) = sleeper();
        scheduler.kicker().interrupt(ApicId(7));
        assert_eq!(vcpu.join().unwrap(), WakeReason::Interrupted);
    }

    #[test]
    fn the_last_owner_stops_the_vm() {
        let (scheduler, vcpu) = sleeper();
        let kicker = scheduler.kicker();
        let other = kicker.clone();
        drop(scheduler);
        drop(kicker);
        // One is left.
        assert_ne!(other.kick_by_host(ApicId(0)), KickOutcome::NoSuchVcpu);
        drop(other);
        assert_eq!(vcpu.join().unwrap(), WakeReason::Stopped);
    }

    #[test]
    fn a_kicker_keeps_the_vm_going() {
        let (scheduler, _, mut parker) = pair();
        let kicker = scheduler.kicker();
        drop(scheduler);
        assert_eq!(parker.enter(), Ok(()));
        drop(kicker);
        assert_eq!(parker.enter(), Err(Interruption::Stopped));
    }

    #[test]
    fn a_vcpu_that_is_away_does_not_hold_up_a_pause() {
        let (scheduler, mut first, mut second) = pair();
        let kicker = scheduler.kicker();
        first.enter().unwrap();
        second.enter().unwrap();
        first.leave();
        kicker.pause_all();
        assert_eq!(scheduler.save(), Err(SavedError::NotPaused(ApicId(7))));
        second.leave();
        assert!(scheduler.is_quiescent());
        // It may not come back before the VM goes on.
        assert_eq!(first.enter(), Err(Interruption::Paused));
        assert_eq!(second.halt(), WakeReason::Paused);
        assert!(scheduler.is_quiescent());
        kicker.resume_all();
        assert!(!scheduler.is_quiescent());
        assert_eq!(first.wait_resumed(), Resumed::Running);
        assert_eq!(second.wait_resumed(), Resumed::Halted);
    }

    /// A vCPU that nobody has may be attached, and run, at any moment: it is at
    /// rest in a pause or after a stop only.
    #[test]
    fn a_vm_without_threads_is_at_rest_once_it_is_paused() {
        let (scheduler, first, second) = pair();
        let kicker = scheduler.kicker();
        drop((first, second));
        assert!(!scheduler.is_quiescent());
        assert_eq!(scheduler.save(), Err(SavedError::NotPaused(ApicId(0))));
        kicker.pause_all();
        assert!(scheduler.is_quiescent());
        let mut again = scheduler.attach(ApicId(7)).unwrap();
        assert!(scheduler.save().is_ok());
        assert_eq!(again.enter(), Err(Interruption::Paused));
        assert!(scheduler.is_quiescent());
        kicker.resume_all();
        assert_eq!(again.enter(), Ok(()));
        assert!(!scheduler.is_quiescent());
        kicker.stop_all();
        assert_eq!(scheduler.save(), Err(SavedError::NotPaused(ApicId(7))));
        drop(again);
        assert!(scheduler.save().is_ok(), "stopped, and all are gone");
    }

    /// One that has left, and is then told that the VM is stopped, has still left.
    #[test]
    fn a_stop_ends_nobodys_rest() {
        let (scheduler, first, mut second) = pair();
        let kicker = scheduler.kicker();
        drop(first);
        second.enter().unwrap();
        second.leave();
        kicker.pause_all();
        assert!(scheduler.is_quiescent());
        kicker.stop_all();
        assert_eq!(second.wait_resumed(), Resumed::Stopped);
        assert!(scheduler.is_quiescent());
        assert_eq!(second.halt(), WakeReason::Stopped);
        assert!(scheduler.is_quiescent());
        assert_eq!(scheduler.reset(), Ok(()));
        assert_eq!(second.enter(), Ok(()));
    }

    #[test]
    fn a_vcpu_goes_on_in_another_thread() {
        let (scheduler, mut first, second) = pair();
        let attached = |id| scheduler.attach(ApicId(id)).map(drop).unwrap_err();
        assert_eq!(attached(7), AttachError::Attached(ApicId(7)));
        assert_eq!(attached(8), AttachError::NoSuchVcpu(ApicId(8)));
        drop(second);
        assert_eq!(first.kick_by_guest(ApicId(7)), KickOutcome::Latched);
        let mut again = scheduler.attach(ApicId(7)).unwrap();
        assert_eq!(attached(7), AttachError::Attached(ApicId(7)));
        let vcpu = thread::spawn(move || again.halt());
        assert_eq!(vcpu.join().unwrap(), WakeReason::Kicked);
        // The thread has ended and its parker with it.
        assert!(scheduler.attach(ApicId(7)).is_ok());
    }

    /// A thread that dies in a halt leaves its vCPU halted.
    #[test]
    fn a_vcpu_that_was_halted_is_halted_in_its_next_thread() {
        let (scheduler, _, mut parker) = pair();
        scheduler.kicker().interrupt(ApicId(7));
        assert_eq!(parker.halt(), WakeReason::Interrupted);
        drop(parker);
        assert!(scheduler.attach(ApicId(7)).unwrap().is_halted());
    }

    #[test]
    fn a_vm_starts_again_once_all_have_left() {
        let (scheduler, mut first, mut second) = pair();
        let kicker = scheduler.kicker();
        first.enter().unwrap();
        second.leave();
        assert_eq!(scheduler.reset(), Err(SavedError::NotPaused(ApicId(0))));
        kicker.kick_by_host(ApicId(0));
        kicker.notify(ApicId(0));
        kicker.interrupt(ApicId(0));
        kicker.pause_all();
        kicker.stop_all();
        assert_eq!(first.halt(), WakeReason::Stopped);
        assert_eq!(scheduler.reset(), Err(SavedError::NotPaused(ApicId(0))));
        assert_eq!(second.enter(), Err(Interruption::Stopped), "still stopped");
        first.leave();
        assert_eq!(scheduler.reset(), Ok(()));
        for parker in [&mut first, &mut second] {
            assert_eq!((parker.pending(), parker.is_halted()), (None, false));
            assert_eq!(parker.enter(), Ok(()));
            assert_eq!(parker.halt_until(Instant::now()), WakeReason::TimedOut);
        }
    }

    /// One that runs can't be reset under its thread's feet.
    #[test]
    fn a_vm_that_was_not_stopped_is_not_reset() {
        let (scheduler, mut first, mut second) = pair();
        first.leave();
        second.leave();
        assert_eq!(scheduler.reset(), Err(SavedError::NotPaused(ApicId(0))));
    }
}

mod save {
    use super::*;
    use pv_lock_host::{SavedError, SavedVcpu};

    #[test]
    fn a_snapshot_carries_kicks_on_running_and_halted_vcpus() {
        let (scheduler, mut first, mut second) = pair();
        let kicker = scheduler.kicker();
        first.enter().unwrap();
        second.enter().unwrap();
        kicker.kick_by_host(ApicId(0));
        kicker.pause_all();
        assert!(!scheduler.is_quiescent());
        assert_eq!(scheduler.save(), Err(SavedError::NotPaused(ApicId(0))));

        let saved = thread::scope(|scope| {
            scope.spawn(|| assert_eq!(first.wait_resumed(), Resumed::Running));
            scope.spawn(|| {
                assert_eq!(second.halt(), WakeReason::Paused);
                assert_eq!(second.wait_resumed(), Resumed::Halted);
            });
            while !scheduler.is_quiescent() {
                thread::yield_now();
            }
            kicker.kick_by_host(ApicId(7));
            let saved = scheduler.save().unwrap();
            kicker.resume_all();
            saved
        });
        let vcpu = |id, halted| SavedVcpu {
            apic_id: ApicId(id),
            halted,
            kicked: true,
            event: false,
        };
        assert_eq!(saved.vcpus, [vcpu(0, false), vcpu(7, true)]);

        let (restored, mut first, mut second) = pair();
        restored.restore(&saved).unwrap();
        assert_eq!(first.pending(), Some(Interruption::Paused));
        assert_eq!(second.pending(), Some(Interruption::Paused));
        restored.kicker().resume_all();
        assert_eq!(first.wait_resumed(), Resumed::Running);
        assert_eq!(first.halt(), WakeReason::Kicked);
        assert_eq!(second.wait_resumed(), Resumed::Halted);
        assert_eq!(second.halt(), WakeReason::Kicked);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let (scheduler, _a, mut running) = pair();
        running.enter().unwrap();
        let mut saved = pv_lock_host::SavedScheduler { vcpus: Vec::new() };
        let refused = |saved: &_| scheduler.restore(saved).unwrap_err();
        assert_eq!(refused(&saved), SavedError::Mismatch(ApicId(0)));
        let vcpu = |id| SavedVcpu {
            apic_id: ApicId(id),
            halted: true,
            kicked: true,
            event: true,
        };
        saved.vcpus = vec![vcpu(0), vcpu(1)];
        assert_eq!(refused(&saved), SavedError::Mismatch(ApicId(1)));
        saved.vcpus = vec![vcpu(0), vcpu(7), vcpu(7)];
        assert_eq!(refused(&saved), SavedError::Mismatch(ApicId(7)));
        saved.vcpus = vec![vcpu(7), vcpu(0)];
        assert_eq!(refused(&saved), SavedError::NotPaused(ApicId(7)));
        assert_eq!(
            scheduler.kicker().kick_by_host(ApicId(0)),
            KickOutcome::Latched
        );
        assert_eq!(running.enter(), Ok(()), "the VM is not paused");
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_saved_state_survives_json() {
        let saved = pv_lock_host::SavedScheduler {
            vcpus: vec![SavedVcpu {
                apic_id: ApicId(u32::MAX),
                halted: true,
                kicked: false,
                event: true,
            }],
        };
        let json = serde_json::to_string(&saved).unwrap();
        assert_eq!(
            json,
            r#"{"vcpus":[{"apic_id":4294967295,"halted":true,"kicked":false,"event":true}]}"#
        );
        assert_eq!(saved, serde_json::from_str(&json).unwrap());
    }
}

mod counting {
    use super::*;

    #[test]
    fn everything_that_happened_is_counted_once() {
        let (scheduler, _, mut parker) = pair();
        let kicker = scheduler.kicker();
        kicker.kick_by_host(ApicId(7));
        kicker.kick_by_host(ApicId(7));
        kicker.kick_by_host(ApicId(9));
        assert_eq!(parker.halt(), WakeReason::Kicked);
        kicker.notify(ApicId(7));
        assert_eq!(parker.halt(), WakeReason::Event);
        assert_eq!(parker.halt_until(Instant::now()), WakeReason::TimedOut);
        let counters = scheduler.counters();
        assert_eq!(counters.no_such_vcpu, 1);
        let vcpu = scheduler.vcpu_counters(ApicId(7)).unwrap();
        assert_eq!(counters.vcpus[1], vcpu);
        assert_eq!(
            (
                vcpu.kicks_woke,
                vcpu.kicks_latched,
                vcpu.kicks_already_latched
            ),
            (0, 1, 1)
        );
        assert_eq!(
            (
                vcpu.halts,
                vcpu.halts_kicked,
                vcpu.halts_event,
                vcpu.halts_timed_out
            ),
            (3, 1, 1, 1)
        );
        assert_eq!((vcpu.sleeps, vcpu.halt_time.count()), (1, 1));
        assert_eq!(counters.total().kicks(), 2);
        assert_eq!(scheduler.vcpu_counters(ApicId(9)), None);
    }

    #[test]
    fn a_wake_up_is_timed() {
        let (scheduler, _, mut parker) = pair();
        let vcpu = thread::spawn(move || while parker.halt() == WakeReason::Kicked {});
        let kicker = scheduler.kicker();
        let slept = || scheduler.vcpu_counters(ApicId(7)).unwrap();
        let mut woken = 0;
        while slept().kick_to_run.count() < 10 {
            kick_until_woken(&kicker, ApicId(7));
            woken += 1;
        }
        kicker.stop_all();
        vcpu.join().unwrap();
        let vcpu = slept();
        assert_eq!(vcpu.kicks_woke, woken);
        assert!(vcpu.kick_to_run.count() <= vcpu.sleeps);
        assert!(vcpu.halts_kicked <= vcpu.kicks());
    }

    #[test]
    fn nothing_is_counted_when_counting_is_off() {
        let (scheduler, mut parkers) = HaltScheduler::builder()
            .counting(false)
            .build(&[ApicId(0)])
            .unwrap();
        scheduler.kicker().kick_by_host(ApicId(0));
        assert_eq!(parkers[0].halt(), WakeReason::Kicked);
        let vcpu = scheduler.counters().total();
        assert_eq!((vcpu.kicks(), vcpu.halts), (0, 0));
    }
}

mod policies {
    use super::*;
    use pv_lock_host::{AdaptivePolling, Platform, Polling, SchedulerBuilder, Spin, Yielding};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Four vCPUs pass kicks round until `hops` are done. A lost kick ends the
    /// passing, and the test would not come back.
    fn ring(builder: SchedulerBuilder, hops: usize) {
        let ids: Vec<ApicId> = (0..4).map(ApicId).collect();
        let (scheduler, parkers) = builder.build(&ids).unwrap();
        let kicker = scheduler.kicker();
        let done = &AtomicUsize::new(0);
        thread::scope(|scope| {
            for mut parker in parkers {
                let kicker = kicker.clone();
                scope.spawn(move || {
                    let next = ApicId((parker.apic_id().0 + 1) % 4);
                    while parker.halt() != WakeReason::Stopped && parker.enter().is_ok() {
                        parker.kick_by_guest(next);
                        if done.fetch_add(1, Ordering::Relaxed) == hops {
                            kicker.stop_all();
                        }
                    }
                });
            }
            kicker.kick_by_host(ApicId(0));
            kicker.kick_by_host(ApicId(2));
        });
    }

    #[test]
    fn no_policy_loses_a_kick() {
        let polling = [
            Polling::Off,
            Polling::Fixed(Duration::from_micros(50)),
            Polling::Adaptive(AdaptivePolling::default()),
        ];
        let yielding = [Yielding::Nothing, Yielding::SchedYield, Yielding::default()];
        for polling in polling {
            for yielding in yielding {
                // One pCPU makes the rules of overcommitment apply.
                for pcpus in [1, 4] {
                    let builder = HaltScheduler::builder()
                        .polling(polling)
                        .yielding(yielding)
                        .pcpus(pcpus);
                    ring(builder, 1000);
                }
            }
        }
    }

    /// A platform without a clock of its own has one in which polls end.
    #[test]
    fn a_poll_ends_where_nothing_but_spinning_is_possible() {
        let before = Spin::now();
        assert!(before < Spin::now());
        let (_scheduler, mut parkers) = SchedulerBuilder::<Spin>::default()
            .polling(Polling::Fixed(Duration::from_micros(20)))
            .build(&[ApicId(0)])
            .unwrap();
        let deadline = Spin::now() + 1_000_000;
        assert_eq!(parkers[0].halt_until_ns(deadline), WakeReason::TimedOut);
    }

    /// A poll is over as soon as its CPU is wanted: with fewer pCPUs than
    /// vCPUs that want to run, none is even begun.
    #[test]
    fn nobody_polls_while_the_cpus_are_wanted() {
        let polls = |pcpus| {
            let (scheduler, mut parkers) = HaltScheduler::builder()
                .polling(Polling::Fixed(Duration::from_micros(1)))
                .pcpus(pcpus)
                .build(&[ApicId(0), ApicId(1)])
                .unwrap();
            for parker in &mut parkers {
                parker.enter().unwrap();
            }
            let deadline = Instant::now() + Duration::from_millis(1);
            assert_eq!(parkers[0].halt_until(deadline), WakeReason::TimedOut);
            scheduler.counters().total().polls_lost
        };
        assert_eq!(polls(1), 0);
        assert_eq!(polls(2), 1);
    }
}
