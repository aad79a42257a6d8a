//! What a hold by the convoy rule promises: whom it meets, what ends it, what it
//! costs. One thread, on a platform whose clock and whose sleeps are scripted:
//! what happens while a vCPU sleeps is a closure, and without one its deadline
//! passes.
#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps is a test that fails"
)]

use std::cell::{Cell, RefCell};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pv_lock_host::{
    ApicId, HaltScheduler, HoldPolicy, Interruption, KickOutcome, Kicker, Platform,
    SchedulerBuilder, VcpuCounters, VcpuParker, Waited, WakeReason, Yielding,
};

#[derive(Debug)]
enum Scripted {}

type Script = Box<dyn FnOnce()>;

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(1_000_000_000) };
    /// What happens in the next sleep.
    static MEANWHILE: RefCell<Option<Script>> = const { RefCell::new(None) };
    static PCPUS: Cell<usize> = const { Cell::new(1) };
    static YIELDS: Cell<u32> = const { Cell::new(0) };
}

impl Platform for Scripted {
    type Word = AtomicU32;

    fn now() -> u64 {
        NOW.get()
    }

    fn wait(word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Waited {
        assert_eq!(word.load(Ordering::Relaxed), expected, "nobody else runs");
        if let Some(meanwhile) = MEANWHILE.take() {
            meanwhile();
            return Waited::LookAgain;
        }
        NOW.set(deadline.unwrap().max(NOW.get()));
        Waited::DeadlinePassed
    }

    fn wake(_: &AtomicU32) {}

    fn relax() {
        NOW.set(NOW.get() + 100);
    }

    fn yield_now() {
        YIELDS.set(YIELDS.get() + 1);
    }

    fn pcpus() -> usize {
        PCPUS.get()
    }
}

/// In the next sleep this happens.
fn meanwhile(what: impl FnOnce() + 'static) {
    MEANWHILE.set(Some(Box::new(what)));
}

const LINK: ApicId = ApicId(0);
const NEXT: ApicId = ApicId(1);
const OTHER: ApicId = ApicId(2);
const SLICE: u64 = 2_000_000;

type Parker = VcpuParker<Scripted>;

struct Vm {
    scheduler: HaltScheduler<Scripted>,
    kicker: Kicker<Scripted>,
    /// The one that is to be held.
    link: Parker,
    /// The one that it kicks, and one that just runs.
    next: Parker,
    other: Parker,
}

fn policy() -> Yielding {
    let mut policy = HoldPolicy::default();
    policy.slice = Duration::from_nanos(SLICE);
    policy.longest = Duration::from_nanos(10 * SLICE);
    Yielding::Hold(policy)
}

/// Three vCPUs that run, on one pCPU.
fn vm_of(builder: SchedulerBuilder<Scripted>) -> Vm {
    let (scheduler, parkers) = builder.build(&[LINK, NEXT, OTHER]).unwrap();
    let kicker = scheduler.kicker();
    let [mut link, mut next, mut other]: [Parker; 3] = parkers.try_into().unwrap();
    for parker in [&mut link, &mut next, &mut other] {
        parker.enter().unwrap();
    }
    Vm {
        scheduler,
        kicker,
        link,
        next,
        other,
    }
}

fn vm() -> Vm {
    vm_of(SchedulerBuilder::default().yielding(policy()).pcpus(1))
}

impl Vm {
    /// The link sleeps in a halt, which a kick ends.
    fn is_kicked(&mut self) {
        let kicker = self.kicker.clone();
        meanwhile(move || {
            assert_eq!(kicker.kick_by_host(LINK), KickOutcome::Woke);
        });
        assert_eq!(self.link.halt(), WakeReason::Kicked);
    }

    /// The link's guest kicks the next one, which is halted (and on its way to
    /// its next halt, after an interruption).
    fn kicks_the_next(&mut self) {
        // What an earlier kick left.
        self.next.halt_until_ns(NOW.get());
        self.kicker.interrupt(NEXT);
        assert_eq!(self.next.halt(), WakeReason::Interrupted);
        assert_eq!(self.link.kick_by_guest(NEXT), KickOutcome::Woke);
    }

    fn is_a_link(&mut self) {
        self.is_kicked();
        self.kicks_the_next();
    }

    fn counters(&self) -> VcpuCounters {
        self.scheduler.vcpu_counters(LINK).unwrap()
    }
}

/// What [`VcpuParker::enter`] says to a link that is held while `ends` happens,
/// and the counters then.
fn hold(ends: impl FnOnce(&Kicker<Scripted>) + 'static) -> (Result<(), Interruption>, Vm) {
    let mut vm = vm();
    vm.is_a_link();
    let kicker = vm.kicker.clone();
    meanwhile(move || {
        NOW.set(NOW.get() + 700);
        ends(&kicker);
    });
    let entered = vm.link.enter();
    (entered, vm)
}

#[test]
fn a_link_is_held_for_a_slice_which_is_counted() {
    let mut vm = vm();
    vm.is_a_link();
    let before = NOW.get();
    assert_eq!(vm.link.enter(), Ok(()));
    assert_eq!(NOW.get() - before, SLICE);
    let counters = vm.counters();
    assert_eq!((counters.holds, counters.holds_turn), (1, 1));
    assert_eq!(counters.held_ns, SLICE);
    assert_eq!(counters.hold_time.count(), 1);
    // It is not held again for the same kick.
    assert_eq!(vm.link.enter(), Ok(()));
    assert_eq!(vm.counters().holds, 1);
    assert_eq!(vm.scheduler.counters().total().holds, 1);
}

#[test]
fn an_interrupt_ends_a_hold_at_once_and_is_still_there() {
    let (entered, mut vm) = hold(|kicker| {
        assert_eq!(kicker.notify(LINK), KickOutcome::Latched);
    });
    assert_eq!(entered, Ok(()));
    assert!(vm.link.take_event());
    let counters = vm.counters();
    assert_eq!((counters.holds, counters.holds_event), (1, 1));
    assert_eq!(counters.held_ns, 700);
}

#[test]
fn a_pause_a_stop_and_an_interruption_end_a_hold_at_once() {
    let (paused, vm) = hold(Kicker::pause_all);
    assert_eq!(paused, Err(Interruption::Paused));
    assert_eq!((vm.counters().holds_event, vm.counters().held_ns), (1, 700));

    let (stopped, vm) = hold(Kicker::stop_all);
    assert_eq!(stopped, Err(Interruption::Stopped));
    assert_eq!((vm.counters().holds_event, vm.counters().held_ns), (1, 700));

    let (interrupted, mut vm) = hold(|kicker| {
        kicker.interrupt(LINK);
    });
    assert_eq!(interrupted, Err(Interruption::Interrupted));
    assert_eq!((vm.counters().holds_event, vm.counters().held_ns), (1, 700));
    assert_eq!(vm.link.enter(), Ok(()));
}

#[test]
fn the_end_of_the_last_owner_ends_a_hold() {
    let mut vm = vm();
    vm.is_a_link();
    let Vm {
        scheduler,
        kicker,
        mut link,
        ..
    } = vm;
    meanwhile(move || drop((scheduler, kicker)));
    assert_eq!(link.enter(), Err(Interruption::Stopped));
}

/// A kick is for a vCPU that halts: it waits for the next halt.
#[test]
fn a_kick_does_not_end_a_hold_and_is_kept() {
    let before = NOW.get();
    let (entered, mut vm) = hold(|kicker| {
        assert_eq!(kicker.kick_by_host(LINK), KickOutcome::Latched);
    });
    assert_eq!(entered, Ok(()));
    assert_eq!(NOW.get() - before, SLICE);
    assert_eq!(vm.counters().holds_turn, 1);
    assert_eq!(vm.link.halt(), WakeReason::Kicked);
}

#[test]
fn a_wake_up_for_nothing_does_not_end_a_hold() {
    let before = NOW.get();
    let (entered, vm) = hold(|_| {});
    assert_eq!((entered, NOW.get() - before), (Ok(()), SLICE));
    assert_eq!(vm.counters().held_ns, SLICE);
}

/// As soon as the pCPU would idle: here because the others leave.
#[test]
fn one_that_leaves_lets_the_held_one_go() {
    for gone in [false, true] {
        let mut vm = vm();
        vm.is_a_link();
        let Vm {
            scheduler,
            kicker: _kicker,
            mut link,
            mut next,
            mut other,
        } = vm;
        meanwhile(move || {
            NOW.set(NOW.get() + 300);
            if gone {
                drop((next, other));
            } else {
                next.leave();
                other.leave();
            }
        });
        assert_eq!(link.enter(), Ok(()));
        let counters = scheduler.vcpu_counters(LINK).unwrap();
        assert_eq!((counters.holds_idle, counters.held_ns), (1, 300));
    }
}

/// One that halts polls for as long as the convoy needs to pass on; only then is
/// its pCPU idle.
#[test]
fn one_that_halts_lets_the_held_one_go_after_a_poll() {
    let mut vm = vm();
    vm.is_a_link();
    let Vm {
        scheduler,
        kicker: _kicker,
        mut link,
        mut next,
        mut other,
    } = vm;
    let begin = NOW.get();
    meanwhile(move || {
        next.leave();
        let timer = NOW.get() + 100 * SLICE;
        assert_eq!(other.halt_until_ns(timer), WakeReason::TimedOut);
    });
    assert_eq!(link.enter(), Ok(()));
    let counters = scheduler.vcpu_counters(LINK).unwrap();
    assert_eq!((counters.holds, counters.holds_idle), (1, 1));
    // Here the link's thread goes on only after the sleep of the other.
    assert_eq!(NOW.get() - begin, 100 * SLICE);
}

#[test]
fn who_is_not_a_link_is_not_held() {
    type Case = (&'static str, fn(&mut Vm));
    let cases: [Case; 6] = [
        ("it was not kicked", Vm::kicks_the_next),
        ("it kicks nobody", Vm::is_kicked),
        ("it kicks one that runs", |vm| {
            vm.is_kicked();
            assert_eq!(vm.link.kick_by_guest(NEXT), KickOutcome::Latched);
        }),
        ("an interrupt ended its halt", |vm| {
            let kicker = vm.kicker.clone();
            meanwhile(move || {
                kicker.notify(LINK);
            });
            assert_eq!(vm.link.halt(), WakeReason::Event);
            vm.kicks_the_next();
        }),
        ("it took long between the two kicks", |vm| {
            vm.is_kicked();
            NOW.set(NOW.get() + SLICE);
            vm.kicks_the_next();
        }),
        ("the host kicks", |vm| {
            vm.is_kicked();
            vm.kicker.interrupt(NEXT);
            assert_eq!(vm.next.halt(), WakeReason::Interrupted);
            assert_eq!(vm.kicker.kick_by_host(NEXT), KickOutcome::Woke);
        }),
    ];
    for (name, case) in cases {
        let mut vm = vm();
        case(&mut vm);
        let before = NOW.get();
        assert_eq!(vm.link.enter(), Ok(()), "{name}");
        assert_eq!((vm.counters().holds, NOW.get()), (0, before), "{name}");
    }
}

#[test]
fn who_halts_or_leaves_after_its_kick_is_not_held_later() {
    let mut vm = vm();
    vm.is_a_link();
    assert_eq!(vm.link.halt_until_ns(NOW.get()), WakeReason::TimedOut);
    assert_eq!(vm.link.enter(), Ok(()));
    vm.is_a_link();
    vm.link.leave();
    assert_eq!(vm.link.enter(), Ok(()));
    vm.is_a_link();
    vm.kicker.pause_all();
    vm.kicker.resume_all();
    let _ = vm.link.wait_resumed();
    assert_eq!(vm.link.enter(), Ok(()));
    assert_eq!(vm.counters().holds, 0);
}

#[test]
fn an_event_that_is_pending_already_allows_no_hold() {
    let mut vm = vm();
    vm.is_a_link();
    vm.kicker.notify(LINK);
    assert_eq!(vm.link.enter(), Ok(()));
    assert_eq!(vm.counters().holds, 0);
}

#[test]
fn nobody_is_held_while_there_are_enough_pcpus() {
    let mut vm = vm();
    vm.scheduler.set_pcpus(3);
    vm.is_a_link();
    assert_eq!((vm.link.enter(), vm.counters().holds), (Ok(()), 0));
    vm.scheduler.set_pcpus(2);
    vm.is_a_link();
    assert_eq!((vm.link.enter(), vm.counters().holds), (Ok(()), 1));
    // One of them is away.
    vm.other.leave();
    vm.is_a_link();
    assert_eq!((vm.link.enter(), vm.counters().holds), (Ok(()), 1));
}

#[test]
fn without_a_number_of_its_own_the_platform_is_asked_again() {
    PCPUS.set(3);
    let mut vm = vm_of(SchedulerBuilder::default().yielding(policy()));
    vm.is_a_link();
    assert_eq!((vm.link.enter(), vm.counters().holds), (Ok(()), 0));
    PCPUS.set(1);
    vm.is_a_link();
    assert_eq!((vm.link.enter(), vm.counters().holds), (Ok(()), 1));
}

/// What the VMM has said stays so, whatever the platform says then.
#[test]
fn a_number_that_the_vmm_has_set_is_kept() {
    PCPUS.set(1);
    let mut vm = vm_of(SchedulerBuilder::default().yielding(policy()));
    vm.scheduler.set_pcpus(2);
    vm.is_a_link();
    vm.other.leave();
    assert_eq!((vm.link.enter(), vm.counters().holds), (Ok(()), 0));
    vm.scheduler.set_pcpus(1);
    vm.is_a_link();
    PCPUS.set(3);
    assert_eq!((vm.link.enter(), vm.counters().holds), (Ok(()), 1));
}

#[test]
fn the_other_policies_hold_nobody() {
    for yielding in [Yielding::Nothing, Yielding::SchedYield] {
        let mut vm = vm_of(SchedulerBuilder::default().yielding(yielding).pcpus(1));
        vm.is_a_link();
        assert_eq!((vm.link.enter(), vm.counters().holds), (Ok(()), 0));
    }
}

#[test]
fn none_is_held_while_an_interrupt_waits_elsewhere() {
    let builder = SchedulerBuilder::default().yielding(policy()).pcpus(1);
    let mut vm = vm_of(builder.halts_elsewhere(Arc::new(|| 0)));
    assert!(vm.other.kick_elsewhere(LINK, || true));
    assert!(vm.link.kick_elsewhere(NEXT, || true));
    let before = NOW.get();
    assert_eq!(vm.link.enter_unless(|| true), Ok(()));
    assert_eq!((NOW.get(), vm.counters().holds), (before, 0));
}

/// Where halts are not seen a kick is all that is known: of two before the next
/// entry the first one counts.
#[test]
fn a_second_kick_elsewhere_takes_no_hold_back() {
    let builder = SchedulerBuilder::default().yielding(policy()).pcpus(1);
    let mut vm = vm_of(builder.halts_elsewhere(Arc::new(|| 0)));
    assert!(vm.other.kick_elsewhere(LINK, || true));
    assert!(vm.link.kick_elsewhere(NEXT, || true));
    assert!(vm.link.kick_elsewhere(OTHER, || true));
    assert_eq!((vm.link.enter(), vm.counters().holds), (Ok(()), 1));
}

/// A panic of what is asked during a hold ends the hold: who catches it goes on
/// with a vCPU that runs, and counts as such.
#[test]
fn a_panic_in_a_hold_ends_it() {
    let builder = SchedulerBuilder::default().yielding(policy()).pcpus(1);
    let mut vm = vm_of(builder.halts_elsewhere(Arc::new(|| 0)));
    assert!(vm.other.kick_elsewhere(LINK, || true));
    assert!(vm.link.kick_elsewhere(NEXT, || true));
    let mut asked = 0;
    let panics = || {
        asked += 1;
        // The second time it is held.
        assert!(asked < 2, "of the caller's own");
        false
    };
    let held = AssertUnwindSafe(|| vm.link.enter_unless(panics));
    assert!(std::panic::catch_unwind(held).is_err());
    assert_eq!(vm.link.enter(), Ok(()));
    // If it still counted as held, one that halts would poll for its end.
    vm.next.leave();
    assert_eq!(vm.other.halt_until_ns(NOW.get()), WakeReason::TimedOut);
    assert_eq!(vm.scheduler.counters().total().polls_lost, 0);
}

#[test]
fn a_kicker_yields_only_where_pcpus_are_too_few() {
    for (pcpus, yields) in [(3, 0), (2, 1)] {
        let builder = SchedulerBuilder::default().yielding(Yielding::SchedYield);
        let builder = builder.pcpus(pcpus).halts_elsewhere(Arc::new(|| 0));
        let mut vm = vm_of(builder);
        let before = YIELDS.get();
        assert!(vm.link.kick_elsewhere(NEXT, || true));
        assert_eq!(YIELDS.get() - before, yields, "{pcpus} pCPUs");
    }
}

#[test]
fn holds_are_not_counted_when_counting_is_off() {
    let builder = SchedulerBuilder::default().yielding(policy()).pcpus(1);
    let mut vm = vm_of(builder.counting(false));
    vm.is_a_link();
    let before = NOW.get();
    assert_eq!(vm.link.enter(), Ok(()));
    assert_eq!(NOW.get() - before, SLICE);
    assert_eq!((vm.counters().holds, vm.counters().held_ns), (0, 0));
}

#[test]
fn a_hold_ends_when_an_interrupt_is_due() {
    let mut vm = vm();
    vm.is_a_link();
    let began = NOW.get();
    let due = began + SLICE / 4;
    assert_eq!(vm.link.enter_until_ns(|| Some(due)), Ok(()));
    assert_eq!(NOW.get(), due);
    let counters = vm.counters();
    assert_eq!((counters.holds, counters.holds_event), (1, 1));
    assert_eq!(counters.held_ns, SLICE / 4);
}

#[test]
fn none_is_held_while_an_interrupt_waits() {
    for passed in [0, NOW.get()] {
        let mut vm = vm();
        vm.is_a_link();
        let began = NOW.get();
        assert_eq!(vm.link.enter_until_ns(|| Some(passed)), Ok(()));
        assert_eq!((NOW.get(), vm.counters().holds), (began, 0), "{passed}");
        // Its turn to step back is over: the guest has left the lock behind.
        assert_eq!(vm.link.enter_until_ns(|| None), Ok(()));
        assert_eq!(vm.counters().holds, 0);
    }
}

#[test]
fn an_interrupt_that_is_due_late_leaves_a_hold_as_it_is() {
    for due in [None, Some(u64::MAX)] {
        let mut vm = vm();
        vm.is_a_link();
        let began = NOW.get();
        assert_eq!(vm.link.enter_until_ns(|| due), Ok(()));
        assert_eq!(NOW.get(), began + SLICE, "its turn");
        assert_eq!(vm.counters().holds_turn, 1);
    }
}

#[test]
fn nobody_asks_when_an_interrupt_is_due_but_for_a_hold() {
    let mut vm = vm();
    let asked = || panic!("it is not a link");
    assert_eq!(vm.link.enter_until_ns(asked), Ok(()));
    vm.kicker.pause_all();
    assert_eq!(vm.link.enter_until_ns(asked), Err(Interruption::Paused));
}
