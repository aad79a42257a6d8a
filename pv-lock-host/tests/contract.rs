//! The contract of halt and kick, one promise a test, on real threads.
#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps is a test that fails"
)]

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

mod save {
    use super::*;
    use pv_lock_host::{SavedError, SavedVcpu};

    #[test]
    fn a_snapshot_carries_kicks_on_running_and_halted_vcpus() {
        let (scheduler, mut first, mut second) = pair();
        let kicker = scheduler.kicker();
        kicker.kick(ApicId(0));
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
            kicker.kick(ApicId(7));
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
        assert_eq!(first.pending(), Some(WakeReason::Paused));
        assert_eq!(second.pending(), Some(WakeReason::Paused));
        restored.kicker().resume_all();
        assert_eq!(first.wait_resumed(), Resumed::Running);
        assert_eq!(first.halt(), WakeReason::Kicked);
        assert_eq!(second.wait_resumed(), Resumed::Halted);
        assert_eq!(second.halt(), WakeReason::Kicked);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let (scheduler, _a, _b) = pair();
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
        scheduler.kicker().kick(ApicId(7));
        assert_eq!(refused(&saved), SavedError::NotPaused(ApicId(7)));
        assert_eq!(scheduler.kicker().kick(ApicId(0)), KickOutcome::Latched);
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
        kicker.kick(ApicId(7));
        kicker.kick(ApicId(7));
        kicker.kick(ApicId(9));
        parker.halt();
        kicker.notify(ApicId(7));
        parker.halt();
        parker.halt_until(Instant::now());
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
        scheduler.kicker().kick(ApicId(0));
        parkers[0].halt();
        let vcpu = scheduler.counters().total();
        assert_eq!((vcpu.kicks(), vcpu.halts), (0, 0));
    }
}

mod policies {
    use super::*;
    use core::num::NonZeroUsize;
    use pv_lock_host::{AdaptivePolling, Polling, RunCap, SchedulerBuilder, Yielding};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A cap with one place and nobody out of patience.
    fn cap_of_one() -> RunCap {
        RunCap {
            running: Some(NonZeroUsize::MIN),
            slice: Duration::MAX,
            ..RunCap::default()
        }
    }

    /// Four vCPUs pass kicks round until `hops` are done; gives the greatest
    /// number that ran at once. A lost kick ends the passing, and the test
    /// would not come back.
    fn ring(builder: SchedulerBuilder, hops: usize) -> usize {
        let ids: Vec<ApicId> = (0..4).map(ApicId).collect();
        let (scheduler, parkers) = builder.build(&ids).unwrap();
        let kicker = scheduler.kicker();
        let (done, running, most) = Default::default();
        let counters: [&AtomicUsize; 3] = [&done, &running, &most];
        thread::scope(|scope| {
            for mut parker in parkers {
                let kicker = kicker.clone();
                let [done, running, most] = counters;
                scope.spawn(move || {
                    let next = ApicId((parker.apic_id().0 + 1) % 4);
                    while parker.halt() != WakeReason::Stopped && parker.enter().is_none() {
                        let now = running.fetch_add(1, Ordering::Relaxed) + 1;
                        most.fetch_max(now, Ordering::Relaxed);
                        thread::yield_now();
                        running.fetch_sub(1, Ordering::Relaxed);
                        parker.kick(next);
                        if done.fetch_add(1, Ordering::Relaxed) == hops {
                            kicker.stop_all();
                        }
                    }
                });
            }
            kicker.kick(ApicId(0));
            kicker.kick(ApicId(2));
        });
        most.into_inner()
    }

    #[test]
    fn no_policy_loses_a_kick() {
        let polling = [
            Polling::Off,
            Polling::Fixed(Duration::from_micros(50)),
            Polling::Adaptive(AdaptivePolling::default()),
        ];
        let yielding = [
            Yielding::Nothing,
            Yielding::SchedYield,
            Yielding::Cap(cap_of_one()),
        ];
        for polling in polling {
            for yielding in &yielding {
                // One host CPU makes the rules of overcommitment apply.
                for host_cpus in [1, 4] {
                    let builder = HaltScheduler::builder()
                        .polling(polling)
                        .yielding(yielding.clone())
                        .host_cpus(host_cpus);
                    ring(builder, 1000);
                }
            }
        }
    }

    #[test]
    fn no_more_run_than_the_cap_says() {
        let cap = Yielding::Cap(cap_of_one());
        assert_eq!(ring(HaltScheduler::builder().yielding(cap), 2000), 1);
    }

    /// One vCPU never halts and looks at the clock only when it is told to.
    #[test]
    fn a_vcpu_whose_time_is_up_is_preempted() {
        let told = Arc::new(AtomicUsize::new(0));
        let cap = RunCap {
            slice: Duration::from_millis(1),
            preempt: Some(Arc::new({
                let told = Arc::clone(&told);
                move |id: ApicId| {
                    assert_eq!(id, ApicId(0));
                    told.fetch_add(1, Ordering::Relaxed);
                }
            })),
            ..cap_of_one()
        };
        let (_scheduler, mut parkers) = HaltScheduler::builder()
            .yielding(Yielding::Cap(cap))
            .build(&[ApicId(0), ApicId(1)])
            .unwrap();
        let mut waiting = parkers.pop().unwrap();
        let mut hog = parkers.pop().unwrap();
        assert_eq!(hog.enter(), None);
        thread::scope(|scope| {
            scope.spawn(move || assert_eq!(waiting.enter(), None));
            while told.load(Ordering::Relaxed) == 0 {
                thread::yield_now();
            }
            // Gives its place to the other, and has it back when that is gone.
            assert_eq!(hog.enter(), None);
        });
    }

    /// The same, and nobody to tell it: the one that waits runs beside it, and
    /// the cap is back when one of them has left.
    #[test]
    fn a_vcpu_that_never_exits_starves_nobody() {
        let cap = RunCap {
            slice: Duration::from_millis(1),
            ..cap_of_one()
        };
        let (scheduler, mut parkers) = HaltScheduler::builder()
            .yielding(Yielding::Cap(cap))
            .build(&[ApicId(0), ApicId(1)])
            .unwrap();
        for parker in &mut parkers {
            assert_eq!(parker.enter(), None);
        }
        for parker in &mut parkers {
            let deadline = Instant::now();
            assert_eq!(parker.halt_until(deadline), WakeReason::TimedOut);
        }
        assert_eq!(parkers[0].enter(), None);
        scheduler.kicker().stop_all();
    }

    #[test]
    fn pause_and_stop_reach_those_who_wait_in_line() {
        let (scheduler, mut parkers) = HaltScheduler::builder()
            .yielding(Yielding::Cap(cap_of_one()))
            .build(&[ApicId(0), ApicId(1)])
            .unwrap();
        let kicker = scheduler.kicker();
        let mut waiting = parkers.pop().unwrap();
        assert_eq!(parkers[0].enter(), None);
        let seen = AtomicUsize::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                assert_eq!(waiting.enter(), Some(WakeReason::Paused));
                seen.store(1, Ordering::Relaxed);
                assert_eq!(waiting.wait_resumed(), Resumed::Running);
                seen.store(2, Ordering::Relaxed);
                assert_eq!(waiting.enter(), Some(WakeReason::Stopped));
            });
            kicker.pause_all();
            while seen.load(Ordering::Relaxed) < 1 {
                thread::yield_now();
            }
            kicker.resume_all();
            while seen.load(Ordering::Relaxed) < 2 {
                thread::yield_now();
            }
            kicker.stop_all();
        });
    }

    /// A poll is over as soon as its CPU is wanted: with fewer host CPUs than
    /// vCPUs that want to run, none is even begun.
    #[test]
    fn nobody_polls_while_the_cpus_are_wanted() {
        let polls = |host_cpus| {
            let (scheduler, mut parkers) = HaltScheduler::builder()
                .polling(Polling::Fixed(Duration::from_micros(1)))
                .host_cpus(host_cpus)
                .build(&[ApicId(0), ApicId(1)])
                .unwrap();
            let deadline = Instant::now() + Duration::from_millis(1);
            assert_eq!(parkers[0].halt_until(deadline), WakeReason::TimedOut);
            scheduler.counters().total().polls_lost
        };
        assert_eq!(polls(1), 0);
        assert_eq!(polls(2), 1);
    }
}
