//! Holds in a VM whose vCPUs halt where the scheduler does not see it: whoever is
//! held looks for what nobody tells it.

use std::sync::Arc;
use std::time::Duration;

use models::vm::{self, ID, Parker, Scheduler, holds};
use models::{Flag, Payload, explore, spawn};
use pv_lock_host::{ApicId, Interruption};

/// Longer than it takes until a held vCPU looks.
const SLICE: Duration = Duration::from_millis(1);

/// Two vCPUs that run on one pCPU, the first of which was kicked and has kicked
/// the other: it is held at its next `enter`. `idle` says that the other halts.
fn convoy(idle: &Arc<Flag>) -> (Scheduler, [Parker; 2]) {
    let halted = Arc::clone(idle);
    let builder = vm::builder()
        .yielding(vm::held_for(SLICE))
        .pcpus(1)
        .halts_elsewhere(Arc::new(move || usize::from(halted.is_raised())));
    let (scheduler, [mut link, mut other]) = vm::vcpus(builder);
    assert_eq!((link.enter(), other.enter()), (Ok(()), Ok(())));
    assert!(other.kick_elsewhere(ID, || true));
    assert!(link.kick_elsewhere(ApicId(1), || true));
    (scheduler, [link, other])
}

/// The other vCPU halts: with a pCPU that idles nobody is held, or not for long,
/// and what the sleeper wrote before it halted is there.
#[test]
fn one_halts() {
    explore(|| {
        let idle = Arc::new(Flag::new());
        let (scheduler, [mut link, _other]) = convoy(&idle);
        let sleeper = Arc::clone(&idle);
        let vcpu = spawn(move || sleeper.raise());
        assert_eq!(link.enter(), Ok(()));
        vcpu.join().unwrap();
        let [held, by_turn, by_idle, by_event] = holds(&scheduler, ID);
        assert!(held <= 1 && by_turn + by_idle == held && by_event == 0);
    });
}

/// An interrupt that only the vCPU's local APIC knows of.
#[test]
fn an_interrupt_is_looked_for() {
    explore(|| {
        let (scheduler, [mut link, _other]) = convoy(&Arc::new(Flag::new()));
        let irr = Arc::new(Flag::new());
        let device = Arc::clone(&irr);
        let raises = spawn(move || device.raise());
        assert_eq!(link.enter_unless(|| irr.is_raised()), Ok(()));
        raises.join().unwrap();
        let [held, by_turn, by_idle, by_event] = holds(&scheduler, ID);
        assert!(held <= 1 && by_turn + by_event == held && by_idle == 0);
    });
}

/// A pause ends the hold as it does any other, and publishes.
#[test]
fn a_pause_ends_it() {
    explore(|| {
        let (scheduler, [mut link, _other]) = convoy(&Arc::new(Flag::new()));
        let kicker = scheduler.kicker();
        let payload = Arc::new(Payload::new());
        let sender = Arc::clone(&payload);
        let vmm = spawn(move || {
            sender.set(1);
            kicker.pause_all();
        });
        if link.enter() == Err(Interruption::Paused) {
            assert_eq!(payload.get(), 1);
        }
        vmm.join().unwrap();
        assert_eq!(link.enter(), Err(Interruption::Paused));
    });
}

/// Both looks find what has come when the hold has begun, before its turn comes.
#[test]
fn its_looks_find_it() {
    for (idle, interrupt, ends) in [(true, false, [1, 0, 1, 0]), (false, true, [1, 0, 0, 1])] {
        explore(move || {
            let halted = Arc::new(Flag::new());
            let (scheduler, [mut link, _other]) = convoy(&halted);
            if idle {
                halted.raise();
            }
            // The first time it is asked there is no hold yet.
            let mut asked = 0;
            let interrupted = || {
                asked += 1;
                interrupt && asked > 1
            };
            assert_eq!(link.enter_unless(interrupted), Ok(()));
            // Natively the thread may lose its pCPU for a slice.
            let native = cfg!(not(any(feature = "loom", feature = "shuttle")));
            assert!(native || holds(&scheduler, ID) == ends);
        });
    }
}

/// An interrupt that waits already: no hold begins.
#[test]
fn none_is_held_while_an_interrupt_waits() {
    explore(|| {
        let (scheduler, [mut link, _other]) = convoy(&Arc::new(Flag::new()));
        assert_eq!(link.enter_unless(|| true), Ok(()));
        assert_eq!(holds(&scheduler, ID), [0; 4]);
    });
}
