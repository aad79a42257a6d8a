//! Affinity and quota of a thread that is bound, against what std and taskset
//! would say.

use rustix::thread::{CpuSet, sched_setaffinity};

use super::*;

#[test]
fn the_lesser_of_affinity_and_quota_is_usable() {
    let pcpus = |affinity, quota| Pcpus { affinity, quota }.usable();
    assert_eq!(pcpus(64, None), 64);
    assert_eq!(pcpus(64, Some(2)), 2);
    assert_eq!(pcpus(1, Some(2)), 1);
}

/// A test's thread is not the process's first one: binding it says nothing of
/// what the process may use.
#[test]
fn a_bound_thread_changes_nothing() {
    let before = Pcpus::read();
    let own = sched_getaffinity(None).unwrap();
    let first = (0..CpuSet::MAX_CPU).find(|&cpu| own.is_set(cpu)).unwrap();
    let mut one = CpuSet::new();
    one.set(first);
    sched_setaffinity(None, &one).unwrap();
    let (bound, quick) = (Pcpus::read(), now());
    sched_setaffinity(None, &own).unwrap();
    assert_eq!(bound.affinity, before.affinity);
    assert_eq!(quick, before.usable());
    assert!(bound.quota.is_none_or(|quota| Some(quota) == before.quota));
}

#[test]
fn what_std_says_of_an_unbound_thread_is_usable() {
    let std = std::thread::available_parallelism().unwrap().get();
    let pcpus = Pcpus::read();
    assert_eq!(pcpus.usable(), std);
    assert!(pcpus.quota.is_none_or(|quota| quota < pcpus.affinity));
}
