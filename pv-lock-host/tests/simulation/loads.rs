//! Named loads: those that a policy for lock convoys must leave alone, and the
//! convoys that it is for.

use super::check::check;
use super::guest::{Locks, Role};
use super::run::{Case, Policy, Seen, run};
use super::world::{Host, MS, US};

fn case(pcpus: usize, vcpus: Vec<Role>) -> Case {
    Case {
        seed: 1,
        host: Host {
            pcpus,
            slice: 3 * MS,
            sticky: false,
            jitter: 0,
        },
        slice: 3 * MS,
        longest: 60 * MS,
        time: if cfg!(debug_assertions) {
            100 * MS
        } else {
            400 * MS
        },
        pauses: false,
        locks: 2,
        vcpus,
    }
}

/// So many vCPUs that work and sleep so long (in us), beside so many that work.
fn mixed(pcpus: usize, n: usize, works: u64, sleeps: u64, hogs: usize) -> Case {
    let (works, sleeps) = (works * US, sleeps * US);
    let mut vcpus = vec![Role::Sleeps { works, sleeps }; n];
    vcpus.extend(vec![Role::Works { chunk: 200 * US }; hogs]);
    case(pcpus, vcpus)
}

const LOCKS: Locks = Locks {
    lock: 0,
    outer: None,
    inside: 2 * US,
    outside: 2 * US,
    blocks: None,
    naps: None,
};

fn convoy(pcpus: usize, vcpus: usize) -> Case {
    case(pcpus, vec![Role::Locks(LOCKS); vcpus])
}

fn taken(seen: &Seen) -> f64 {
    let taken: u64 = seen.world.locks.iter().map(|lock| lock.taken).sum();
    f64::from(u32::try_from(taken).unwrap())
}

/// The loads that suffered from a cap on the number of vCPUs that run.
#[test]
fn a_load_without_a_convoy_is_as_without_a_policy() {
    let notified = Role::Notified {
        works: 5 * US,
        period: 60 * US,
    };
    let hog = Role::Works { chunk: 200 * US };
    let loads = [
        mixed(1, 1, 20, 80, 1),
        mixed(2, 2, 20, 80, 2),
        mixed(2, 1, 100, 2_000, 3),
        mixed(2, 3, 300, 100, 3),
        case(1, vec![notified, hog]),
    ];
    for load in &loads {
        let sum = check(load);
        assert_eq!(sum.holds, 0);
        let (with, without) = (run(load, Policy::Hold), run(load, Policy::Nothing));
        assert_eq!(with.world.trace, without.world.trace);
        for (vcpu, (a, b)) in with.notes.iter().zip(&without.notes).enumerate() {
            assert_eq!(a.wakes, b.wakes);
            assert_eq!(with.world.cpu_time(vcpu), without.world.cpu_time(vcpu));
        }
    }
}

/// The rate without overcommitment is what is to be kept. On four pCPUs a wake-up
/// takes longer than a waiter spins.
#[test]
fn a_convoy_keeps_its_rate() {
    for pcpus in [2, 4] {
        let alone = taken(&run(&convoy(pcpus, pcpus), Policy::Hold));
        for over in [2, 4, 8] {
            let load = convoy(pcpus, pcpus * over);
            check(&load);
            let with = taken(&run(&load, Policy::Hold)) / alone;
            let without = taken(&run(&load, Policy::Nothing)) / alone;
            println!(
                "simulation: convoy on {pcpus} pCPUs, {over}x: {with:.3} of the rate kept, without a policy {without:.3}"
            );
            assert!(with >= 0.92, "{over}x: {with}");
            assert!(without < 0.5, "there is no convoy");
        }
    }
}

/// Half of the vCPUs take the lock within another one.
#[test]
fn nested_locks_lose_nothing() {
    for over in [2, 4, 8] {
        let nested = Locks {
            outer: Some(1),
            ..LOCKS
        };
        let mut vcpus = vec![Role::Locks(LOCKS); over];
        vcpus.extend(vec![Role::Locks(nested); over]);
        let load = case(2, vcpus);
        check(&load);
        let gain = taken(&run(&load, Policy::Hold)) / taken(&run(&load, Policy::Nothing));
        println!(
            "simulation: nested locks on 2 pCPUs, {over}x: {gain:.2} of the rate without a policy"
        );
        assert!(gain >= 0.95, "{over}x: {gain}");
    }
}

#[test]
fn a_seed_says_it_all() {
    for seed in [3, 7, 40] {
        let case = Case::of(seed);
        let (first, second) = (run(&case, Policy::Hold), run(&case, Policy::Hold));
        assert_eq!(first.world.trace, second.world.trace);
        assert_eq!(first.counters, second.counters);
    }
}
