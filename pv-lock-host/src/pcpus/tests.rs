//! Affinity and quota of a thread that is bound, against what std and taskset
//! would say.

use super::*;

#[test]
fn the_lesser_of_affinity_and_quota_is_usable() {
    let pcpus = |affinity, quota| Pcpus { affinity, quota }.usable();
    assert_eq!(pcpus(64, None), 64);
    assert_eq!(pcpus(64, Some(2)), 2);
    assert_eq!(pcpus(1, Some(2)), 1);
}

/// What this says in a thread that is bound to one pCPU.
fn bound<R>(ask: impl FnOnce() -> R) -> R {
    let own = sched_getaffinity(None).unwrap();
    let first = (0..CpuSet::MAX_CPU).find(|&cpu| own.is_set(cpu)).unwrap();
    let mut one = CpuSet::new();
    one.set(first);
    sched_setaffinity(None, &one).unwrap();
    let answer = ask();
    assert_eq!(sched_getaffinity(None).unwrap(), one, "it is still bound");
    sched_setaffinity(None, &own).unwrap();
    answer
}

/// A test's thread is not the process's first one: binding it says nothing of
/// what the process may use.
#[test]
fn a_bound_thread_changes_nothing() {
    let before = Pcpus::read();
    assert_eq!(bound(Pcpus::read), before);
    assert_eq!(bound(now), before.usable());
}

/// A quota is seen by a thread that may run on more pCPUs than it pays for, and
/// such a one is asked.
#[test]
fn who_is_asked_for_the_quota_is_not_bound() {
    let of_the_process = count(&first_threads().unwrap());
    let asked = bound(|| at_large(|| count(&sched_getaffinity(None).unwrap())));
    assert_eq!(asked, Some(of_the_process));
}

#[test]
fn what_std_says_of_an_unbound_thread_is_usable() {
    let std = std::thread::available_parallelism().unwrap().get();
    let pcpus = Pcpus::read();
    assert_eq!(pcpus.usable(), std);
    assert!(pcpus.quota.is_none_or(|quota| quota < pcpus.affinity));
}
