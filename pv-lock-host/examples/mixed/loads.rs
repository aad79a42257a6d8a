//! The loads, by name.

use std::thread;
use std::time::Duration;

/// What a vCPU's guest does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    /// Computes.
    Works,
    /// Works so long, then sleeps until a timer.
    Sleeps { works: Duration, sleeps: Duration },
    /// Sleeps until its device does something, once in a `period`.
    Notified { works: Duration, period: Duration },
    /// Takes a lock, over and over; within another one, if there is an outer.
    Locks { lock: usize, outer: Option<usize> },
}

pub(crate) struct Load {
    pub(crate) name: String,
    /// CPUs for all vCPUs.
    pub(crate) cpus: usize,
    pub(crate) vcpus: Vec<Role>,
}

/// Locks that the loads use, at most.
pub(crate) const LOCKS: usize = 2;

const CONVOY: Role = Role::Locks {
    lock: 0,
    outer: None,
};

fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

fn sleeps(works: u64, sleeps: u64) -> Role {
    Role::Sleeps {
        works: us(works),
        sleeps: us(sleeps),
    }
}

fn notified() -> Role {
    Role::Notified {
        works: us(5),
        period: us(60),
    }
}

/// So many of each.
fn load(name: impl Into<String>, cpus: usize, vcpus: &[(usize, Role)]) -> Load {
    Load {
        name: name.into(),
        cpus,
        vcpus: vcpus.iter().flat_map(|&(n, role)| vec![role; n]).collect(),
    }
}

/// At most two CPUs each, of those that there are; locks on all of the two.
pub(crate) fn all() -> Vec<Load> {
    let available = thread::available_parallelism().map_or(1, |n| n.get());
    let two = available.min(2);
    let mut loads = vec![
        load(
            "one 20/80, one computes",
            1,
            &[(1, sleeps(20, 80)), (1, Role::Works)],
        ),
        load(
            "two 20/80, two compute",
            two,
            &[(2, sleeps(20, 80)), (2, Role::Works)],
        ),
        load(
            "one 100/2000, three compute",
            two,
            &[(1, sleeps(100, 2_000)), (3, Role::Works)],
        ),
        load(
            "three 300/100, three compute",
            two,
            &[(3, sleeps(300, 100)), (3, Role::Works)],
        ),
        load(
            "one notified, one computes",
            1,
            &[(1, notified()), (1, Role::Works)],
        ),
    ];
    for over in [1, 2, 4, 8] {
        let vcpus = two * over;
        loads.push(load(format!("convoy {over}x"), two, &[(vcpus, CONVOY)]));
    }
    let nested = Role::Locks {
        lock: 0,
        outer: Some(1),
    };
    let other = Role::Locks {
        lock: 1,
        outer: None,
    };
    for over in [2, 4, 8] {
        let half = two * over / 2;
        let name = format!("nested locks {over}x");
        loads.push(load(name, two, &[(half, CONVOY), (half, nested)]));
        let name = format!("independent locks {over}x");
        loads.push(load(name, two, &[(half, CONVOY), (half, other)]));
    }
    loads.push(load(
        "convoy of 4, two compute, two 20/80",
        two,
        &[(4, CONVOY), (2, Role::Works), (2, sleeps(20, 80))],
    ));
    loads.push(load(
        "convoy of 8, one computes, one notified",
        two,
        &[(8, CONVOY), (1, Role::Works), (1, notified())],
    ));
    loads
}
