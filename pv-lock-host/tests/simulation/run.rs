//! One case from its beginning to its end, and what was seen.

use std::cell::{Cell, RefCell};
use std::ptr;
use std::rc::Rc;
use std::time::Duration;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult};
use pv_lock_host::{ApicId, HoldPolicy, Kicker, SchedulerBuilder, VcpuCounters, Yielding};

use super::guest::{Notes, Role, Vcpu, Vm};
use super::platform::{Simulated, Way, runs};
use super::world::{self, Answer, Host, MS, Next, Request, US, World, world};

/// A VM and its host.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) seed: u64,
    pub(crate) host: Host,
    pub(crate) slice: u64,
    pub(crate) longest: u64,
    pub(crate) time: u64,
    pub(crate) pauses: bool,
    pub(crate) locks: usize,
    pub(crate) vcpus: Vec<Role>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Policy {
    Hold,
    Nothing,
}

/// What was seen.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) world: World,
    pub(crate) notes: Vec<Notes>,
    pub(crate) counters: VcpuCounters,
    /// From the pause until the VM was at rest.
    pub(crate) to_rest: Option<u64>,
    /// From the stop until all threads had ended.
    pub(crate) to_end: u64,
    /// When it was stopped.
    pub(crate) stopped: u64,
}

/// Nobody sleeps longer than this at the end of a VM.
const PATIENCE: u64 = 60_000 * MS;
/// Far more than a vCPU's loop needs.
const STACK: usize = 64 << 10;

const STOP: usize = 0;
const PAUSE: usize = 1;
const RESUME: usize = 2;
/// The first device.
const DEVICES: usize = 3;

type Thread = Coroutine<Answer, Request, ()>;

pub(crate) fn run(case: &Case, policy: Policy) -> Seen {
    let count = case.vcpus.len();
    world::begin(World::new(case.host, case.seed, count, case.locks));
    let mut hold = HoldPolicy::default();
    hold.slice = Duration::from_nanos(case.slice);
    hold.longest = Duration::from_nanos(case.longest);
    let yielding = match policy {
        Policy::Hold => Yielding::Hold(hold),
        Policy::Nothing => Yielding::Nothing,
    };
    let ids: Vec<ApicId> = (0..count)
        .map(|n| ApicId(u32::try_from(n).unwrap()))
        .collect();
    let (scheduler, parkers) = SchedulerBuilder::<Simulated>::default()
        .yielding(yielding)
        .build(&ids)
        .unwrap();
    let vm = Rc::new(Vm {
        notes: RefCell::new(vec![Notes::default(); count]),
        quiet: Cell::new(false),
        due: RefCell::new(vec![None; count]),
    });
    let ways: Vec<Rc<Cell<*const Way>>> = ids
        .iter()
        .map(|_| Rc::new(Cell::new(ptr::null())))
        .collect();
    let mut threads: Vec<Thread> = (parkers.into_iter().zip(0..))
        .map(|(parker, n): (_, usize)| {
            let (vm, way, role) = (Rc::clone(&vm), Rc::clone(&ways[n]), case.vcpus[n]);
            Coroutine::with_stack(
                DefaultStack::new(STACK).unwrap(),
                move |yielder: &Way, _| {
                    way.set(yielder);
                    runs(Some((n, yielder)));
                    Vcpu { parker, vm }.run(role);
                },
            )
        })
        .collect();

    let mut outside = Outside {
        case,
        vm: &vm,
        kicker: scheduler.kicker(),
        paused: None,
        to_rest: None,
        stopped: None,
    };
    outside.begin();
    loop {
        match world(World::next) {
            Next::Thread(n, answer) => {
                runs(Some((n, ways[n].get())));
                let result = threads[n].resume(answer);
                runs(None);
                match result {
                    CoroutineResult::Yield(request) => world(|world| world.request(n, request)),
                    CoroutineResult::Return(()) => world(|world| world.ended(n)),
                }
            }
            Next::Outside(event) => outside.happens(event, scheduler.is_quiescent()),
            Next::Nothing => break,
        }
        if let Some(stopped) = outside.stopped {
            let (now, all) = world(|world| (world.now, world.all_ended()));
            assert!(now < stopped + PATIENCE, "a thread has not ended");
            if all {
                break;
            }
        }
    }
    assert!(world(|world| world.all_ended()), "a thread sleeps for ever");
    let (stopped, to_rest) = (outside.stopped.unwrap(), outside.to_rest);
    let counters = scheduler.counters().total();
    drop(outside);
    let world = world::end();
    Seen {
        to_end: world.now - stopped,
        world,
        notes: vm.notes.take(),
        counters,
        to_rest,
        stopped,
    }
}

/// Who is neither vCPU nor host: devices, and whoever pauses and stops the VM.
struct Outside<'a> {
    case: &'a Case,
    vm: &'a Vm,
    kicker: Kicker<Simulated>,
    paused: Option<u64>,
    to_rest: Option<u64>,
    stopped: Option<u64>,
}

impl Outside<'_> {
    fn begin(&self) {
        world(|world| {
            world.outside_after(self.case.time, STOP);
            if self.case.pauses {
                world.outside_after(self.case.time / 3, PAUSE);
            }
        });
        for n in 0..self.case.vcpus.len() {
            self.device_after(n);
        }
    }

    /// The device of this vCPU, if it has one, does something after its period.
    fn device_after(&self, vcpu: usize) {
        if let Role::Notified { period, .. } = self.case.vcpus[vcpu] {
            world(|world| {
                let after = world.random.around(period);
                world.outside_after(after, DEVICES + vcpu);
            });
        }
    }

    fn happens(&mut self, event: usize, quiescent: bool) {
        let now = world(|world| world.now);
        match event {
            STOP => {
                self.stopped = Some(now);
                self.vm.quiet.set(false);
                self.kicker.stop_all();
            }
            PAUSE if self.paused.is_none() => {
                self.paused = Some(now);
                self.kicker.pause_all();
                world(|world| world.outside_after(20 * US, PAUSE));
            }
            PAUSE if quiescent => {
                self.to_rest = self.paused.map(|paused| now - paused);
                self.vm.quiet.set(true);
                world(|world| world.outside_after(300 * US, RESUME));
            }
            PAUSE => world(|world| world.outside_after(20 * US, PAUSE)),
            RESUME => {
                assert!(
                    quiescent || self.stopped.is_some(),
                    "it came out of a pause"
                );
                self.vm.quiet.set(false);
                self.kicker.resume_all();
            }
            device => {
                let vcpu = device - DEVICES;
                self.vm.due.borrow_mut()[vcpu].get_or_insert(now);
                self.kicker.notify(ApicId(u32::try_from(vcpu).unwrap()));
                if self.stopped.is_none() {
                    self.device_after(vcpu);
                }
            }
        }
    }
}
