//! Cases out of a seed: any VM on any host.

use super::guest::{Blocks, Locks, Role};
use super::random::Random;
use super::run::Case;
use super::world::{Host, MS, US};

impl Case {
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let r = &mut random;
        let pcpus = r.pick(&[1, 2, 2, 3, 4, 4, 6, 8, 16, 32, 80]);
        let over = r.between(1, 8);
        let most = pcpus * over;
        // Sometimes one more or one less than so many times the pCPUs.
        let vcpus = (most + r.below(3)).saturating_sub(1).clamp(2, 8 * pcpus);
        let slice = r.pick(&[100 * US, 300 * US, MS, MS, 3 * MS]);
        let locks = usize::try_from(r.between(1, 3)).unwrap();
        let shape = Shape {
            locks,
            inside: r.pick(&[US, 2 * US, 5 * US, 20 * US]),
            outside: r.pick(&[US, 2 * US, 10 * US, 100 * US]),
            nested: locks > 1 && r.one_in(2),
            blocks: r.one_in(4).then(|| Blocks {
                every: r.between(20, 500),
                time: r.pick(&[100 * US, MS, 5 * MS]),
                leaves: r.one_in(2),
                holding: r.one_in(2),
            }),
            naps: r
                .one_in(4)
                .then(|| (r.between(5, 200), r.pick(&[50 * US, 500 * US, 5 * MS]))),
        };
        // How many of a hundred are what.
        let mix = r.pick(&[
            [100, 0, 0, 0],
            [100, 0, 0, 0],
            [60, 20, 20, 0],
            [60, 0, 20, 20],
            [40, 20, 20, 20],
            [20, 40, 40, 0],
            [0, 50, 50, 0],
            [0, 40, 30, 30],
            [0, 0, 100, 0],
        ]);
        let vcpus = (0..vcpus).map(|_| shape.role(mix, r)).collect();
        Self {
            seed,
            host: Host {
                pcpus: usize::try_from(pcpus).unwrap(),
                slice: r.pick(&[500 * US, MS, 3 * MS]),
                sticky: r.one_in(4),
                jitter: r.pick(&[0, 0, 0, 5, 50, 1_000]),
            },
            slice,
            longest: slice * r.pick(&[1, 5, 20]),
            time: (240 * MS / pcpus).max(20 * MS) + slice * 5,
            pauses: r.one_in(3),
            locks,
            vcpus,
        }
    }

    /// Whether no two vCPUs wait for each other.
    pub(crate) fn no_locks(&self) -> bool {
        !self.vcpus.iter().any(|role| matches!(role, Role::Locks(_)))
    }

    /// How many vCPUs take a lock within another.
    pub(crate) fn nested(&self) -> u64 {
        let nests = |role: &&Role| matches!(role, Role::Locks(locks) if locks.outer.is_some());
        self.vcpus.iter().filter(nests).count() as u64
    }

    /// The longest that a vCPU blocks in device emulation, and whether the VMM
    /// says so.
    pub(crate) fn blocks(&self) -> Option<Blocks> {
        self.vcpus.iter().find_map(|role| match role {
            Role::Locks(locks) => locks.blocks,
            _ => None,
        })
    }
}

struct Shape {
    locks: usize,
    inside: u64,
    outside: u64,
    nested: bool,
    blocks: Option<Blocks>,
    naps: Option<(u64, u64)>,
}

impl Shape {
    fn role(&self, mix: [u64; 4], r: &mut Random) -> Role {
        let which = r.below(100);
        let [locks, works, sleeps, _] = mix;
        if which < locks {
            self.locks(r)
        } else if which < locks + works {
            Role::Works {
                chunk: r.pick(&[20 * US, 200 * US, MS]),
            }
        } else if which < locks + works + sleeps {
            let (works, sleeps) = r.pick(&[(20, 80), (100, 2_000), (300, 100), (50, 5_000)]);
            Role::Sleeps {
                works: works * US,
                sleeps: sleeps * US,
            }
        } else {
            Role::Notified {
                works: r.pick(&[5 * US, 30 * US]),
                period: r.pick(&[60 * US, 500 * US]),
            }
        }
    }

    fn locks(&self, r: &mut Random) -> Role {
        // Nested: the last lock is the outer one, and half of the vCPUs take it.
        let inner = if self.nested {
            self.locks - 1
        } else {
            self.locks
        };
        let lock = usize::try_from(r.below(inner as u64)).unwrap();
        Role::Locks(Locks {
            lock,
            outer: (self.nested && r.one_in(2)).then_some(inner),
            inside: self.inside,
            outside: self.outside,
            blocks: self.blocks.filter(|_| r.one_in(3)),
            naps: self.naps.filter(|_| r.one_in(2)),
        })
    }
}
