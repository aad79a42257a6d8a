//! A lock for which more vCPUs queue than there are pCPUs: each waiter halts, and
//! is kicked when the lock is handed to it.

use std::collections::VecDeque;
use std::sync::Arc;

use models::vm::{Parker, builder, held_for};
use models::{Mutex, Payload, clock, explore, spawn};
use pv_lock_host::{ApicId, Yielding};

/// The guest's lock; the mutex stands for the atomics that it is made of.
struct Lock {
    state: Mutex<State>,
    /// What it protects.
    inside: Payload,
}

#[derive(Default)]
struct State {
    owner: Option<ApicId>,
    queue: VecDeque<ApicId>,
}

/// The guest's HLT, and the VMM's part in it.
fn halt(parker: &mut Parker) {
    let reason = parker.halt();
    assert!(parker.go_on(reason), "nobody stops this VM");
    enter(parker);
}

fn enter(parker: &mut Parker) {
    while let Err(why) = parker.enter() {
        assert!(parker.go_on(why), "nobody stops this VM");
    }
}

impl Lock {
    fn lock(&self, parker: &mut Parker) {
        let me = parker.apic_id();
        {
            let mut state = self.state.lock().unwrap();
            if state.owner.is_none() {
                state.owner = Some(me);
                return;
            }
            state.queue.push_back(me);
        }
        while self.state.lock().unwrap().owner != Some(me) {
            halt(parker);
        }
    }

    fn unlock(&self, parker: &mut Parker) {
        let next = {
            let mut state = self.state.lock().unwrap();
            state.owner = state.queue.pop_front();
            state.owner
        };
        if let Some(next) = next {
            parker.kick_by_guest(next);
            enter(parker);
        }
    }
}

/// Six vCPUs on two pCPUs, each of which takes the lock three times, while the VM
/// is paused and one of them is notified. Nobody waits for ever.
fn convoy(yielding: Yielding) {
    const ROUNDS: u32 = 3;
    let ids: Vec<ApicId> = (0..6).map(ApicId).collect();
    let builder = builder().yielding(yielding).pcpus(2);
    let (scheduler, parkers) = builder.build(&ids).unwrap();
    let lock = Arc::new(Lock {
        state: Mutex::new(State::default()),
        inside: Payload::new(),
    });
    let threads: Vec<_> = parkers
        .into_iter()
        .map(|mut parker| {
            let lock = Arc::clone(&lock);
            spawn(move || {
                enter(&mut parker);
                for _ in 0..ROUNDS {
                    lock.lock(&mut parker);
                    lock.inside.touch();
                    lock.unlock(&mut parker);
                }
            })
        })
        .collect();
    let (kicker, device) = (scheduler.kicker(), scheduler.kicker());
    let vmm = spawn(move || {
        kicker.pause_all();
        kicker.resume_all();
    });
    device.notify(ApicId(3));
    for thread in threads {
        thread.join().unwrap();
    }
    vmm.join().unwrap();
    let entries = ROUNDS * u32::try_from(ids.len()).unwrap();
    assert_eq!(lock.inside.get(), entries);
}

#[test]
fn that_nobody_holds() {
    explore(|| convoy(Yielding::Nothing));
}

#[test]
fn that_yields() {
    explore(|| convoy(Yielding::SchedYield));
}

/// Slices that end.
#[test]
fn held_for_slices() {
    explore(|| convoy(held_for(clock::SHORT)));
}

/// Slices that do not end: a held vCPU goes on because a pCPU idles, or never.
#[test]
fn held_until_a_pcpu_idles() {
    explore(|| convoy(held_for(clock::ENDLESS)));
}
