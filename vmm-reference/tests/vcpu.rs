//! The vCPU loop with a guest that is a list of exits: every arm, no VM.

#![expect(
    clippy::expect_used,
    reason = "a test's helper that fails is a test that fails"
)]

use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cpuid_features::KvmFeatures;
use hypercall_abi::{Enforcement, HypercallNr, Mode, RawHypercall};
use pv_lock_host::{ApicId, HaltScheduler, Kicker, VcpuParker};
use vmm_reference::backend::{
    BackendError, Exit, ExitRequest, Interruptible, PrivateIo, VcpuBackend,
};
use vmm_reference::devices::{Bus, BusEvent};
use vmm_reference::hypercall::Calls;
use vmm_reference::interrupts::{Controllers, VcpuApic};
use vmm_reference::irqchip::userspace::Features;
use vmm_reference::kicks::Kicks;
use vmm_reference::threads::VcpuThreads;
use vmm_reference::vcpu::{Ended, PauseListener, Vcpu};
use vmm_reference::vm::{JailedThreads, RunningVm, Waited};

/// What the guest does next.
enum Step {
    Call(u64, [u64; 4], Mode, u8),
    Leave(Exit),
    Fail,
}

struct Script {
    steps: std::vec::IntoIter<Step>,
    results: Arc<Mutex<Vec<u64>>>,
}

impl VcpuBackend for Script {
    fn run(&mut self, _bus: &Bus, _own: &mut dyn PrivateIo) -> Result<Exit, BackendError> {
        match self.steps.next() {
            Some(Step::Call(nr, args, mode, cpl)) => {
                let call = RawHypercall {
                    nr,
                    args,
                    mode,
                    cpl,
                };
                Ok(Exit::Hypercall(call))
            }
            Some(Step::Leave(exit)) => Ok(exit),
            Some(Step::Fail) => Err(BackendError::Ioctl {
                op: "KVM_RUN",
                source: vmm_sys_util::errno::Error::new(14),
            }),
            None => Ok(Exit::Bus(BusEvent::Exit(0))),
        }
    }

    fn set_result(&mut self, rax: u64) {
        self.results.lock().expect("not poisoned").push(rax);
    }

    fn exit_request(&self) -> Arc<ExitRequest> {
        Arc::new(ExitRequest::polled())
    }
}

struct Fixture {
    vcpu: Vcpu<Script>,
    other: VcpuParker,
    kicker: Kicker,
    results: Arc<Mutex<Vec<u64>>>,
}

/// vCPU 0 runs `steps`; vCPU 1 is there to be kicked.
fn fixture(steps: Vec<Step>, features: KvmFeatures) -> Fixture {
    let ids = [ApicId(0), ApicId(1)];
    let (scheduler, mut parkers) = HaltScheduler::new(&ids).expect("two distinct IDs");
    let (other, own) = (parkers.remove(1), parkers.remove(0));
    let results = Arc::default();
    let script = Script {
        steps: steps.into_iter(),
        results: Arc::clone(&results),
    };
    let kicker = scheduler.kicker();
    let calls = Calls::new(Kicks::new(kicker.clone(), None), &ids);
    let vcpu = Vcpu::new(
        script,
        own,
        calls,
        Enforcement::Enforced(features),
        Arc::new(Bus::default()),
    );
    Fixture {
        vcpu,
        other,
        kicker,
        results,
    }
}

const KICK: u64 = HypercallNr::KICK_CPU.0;
const ENOSYS: u64 = (-1000i64) as u64;
const EPERM: u64 = (-1i64) as u64;

#[test]
fn answers_are_the_abi_s() {
    let f = fixture(
        vec![
            Step::Call(KICK, [0, 1, 0, 0], Mode::Bits64, 0),
            Step::Call(KICK, [0, 77, 0, 0], Mode::Bits64, 0),
            Step::Call(KICK, [0, 1, 0, 0], Mode::Bits64, 3),
            Step::Call(0x63, [0; 4], Mode::Bits64, 0),
            Step::Call(0x63, [0; 4], Mode::Bits32, 0),
            Step::Call(0x63, [0; 4], Mode::Bits64, 3),
        ],
        KvmFeatures::PV_UNHALT,
    );
    assert!(matches!(f.vcpu.run(&()), Ended::ExitPort(0)));
    let results = f.results.lock().expect("not poisoned");
    assert_eq!(*results, [0, 0, EPERM, ENOSYS, 0xffff_fc18, EPERM]);
}

#[test]
fn a_kick_is_latched_for_the_other_vcpu() {
    let mut f = fixture(
        vec![Step::Call(KICK, [0, 1, 0, 0], Mode::Bits64, 0)],
        KvmFeatures::PV_UNHALT,
    );
    f.vcpu.run(&());
    assert_eq!(f.other.halt(), pv_lock_host::WakeReason::Kicked);
}

#[test]
fn without_the_feature_a_kick_is_not_there() {
    let f = fixture(
        vec![Step::Call(KICK, [0, 1, 0, 0], Mode::Bits64, 0)],
        KvmFeatures::empty(),
    );
    f.vcpu.run(&());
    assert_eq!(*f.results.lock().expect("not poisoned"), [ENOSYS]);
    // And it did nothing: the next kick is the first.
    assert_eq!(
        f.kicker.kick_by_host(ApicId(1)),
        pv_lock_host::KickOutcome::Latched
    );
}

#[test]
fn kick_self_then_halt_runs_on() {
    let f = fixture(
        vec![
            Step::Call(KICK, [0, 0, 0, 0], Mode::Bits64, 0),
            Step::Leave(Exit::Halt),
            Step::Leave(Exit::Bus(BusEvent::Exit(9))),
        ],
        KvmFeatures::PV_UNHALT,
    );
    assert!(matches!(f.vcpu.run(&()), Ended::ExitPort(9)));
}

/// A halted vCPU that is paused does not consume the kick that comes meanwhile:
/// the kick ends its halt after the pause, and not before.
#[test]
fn a_kick_during_a_pause_ends_the_halt_after_it() {
    struct Heard(Sender<&'static str>);
    impl PauseListener for Heard {
        fn falls_asleep(&self) {
            self.0.send("asleep").expect("the test listens");
        }
        fn wakes(&self) {
            self.0.send("awake").expect("the test listens");
        }
    }
    let long = Duration::from_secs(20);
    let f = fixture(
        vec![
            Step::Leave(Exit::Halt),
            Step::Leave(Exit::Bus(BusEvent::Exit(3))),
        ],
        KvmFeatures::PV_UNHALT,
    );
    let (vcpu, kicker) = (f.vcpu, f.kicker);
    let (heard, hears) = channel();
    kicker.pause_all();
    let thread = thread::spawn(move || vcpu.run(&Heard(heard)));
    // Paused before it runs at all, ...
    assert_eq!(hears.recv_timeout(long), Ok("asleep"));
    kicker.resume_all();
    assert_eq!(hears.recv_timeout(long), Ok("awake"));
    // ... and in its halt, or on the way to it.
    kicker.pause_all();
    assert_eq!(hears.recv_timeout(long), Ok("asleep"));
    kicker.kick_by_host(ApicId(0));
    assert!(!thread.is_finished(), "the guest ran on in a pause");
    let nothing = hears.recv_timeout(Duration::from_millis(20));
    assert_eq!(nothing, Err(RecvTimeoutError::Timeout));
    kicker.resume_all();
    assert!(matches!(
        thread.join().expect("no panic"),
        Ended::ExitPort(3)
    ));
}

#[test]
fn a_halted_vcpu_can_be_stopped() {
    let f = fixture(vec![Step::Leave(Exit::Halt)], KvmFeatures::PV_UNHALT);
    let (vcpu, kicker) = (f.vcpu, f.kicker);
    let thread = thread::spawn(move || vcpu.run(&()));
    kicker.stop_all();
    assert!(matches!(thread.join().expect("no panic"), Ended::Stopped));
}

#[test]
fn a_stop_before_the_first_run_keeps_the_guest_out() {
    let f = fixture(vec![Step::Fail], KvmFeatures::PV_UNHALT);
    f.kicker.stop_all();
    assert!(matches!(f.vcpu.run(&()), Ended::Stopped));
}

#[test]
fn ends_of_the_guest_end_the_loop() {
    let run = |step| fixture(vec![step], KvmFeatures::PV_UNHALT).vcpu.run(&());
    assert!(matches!(
        run(Step::Leave(Exit::Shutdown)),
        Ended::TripleFault(_)
    ));
    assert!(matches!(
        run(Step::Leave(Exit::Interrupted)),
        Ended::ExitPort(0)
    ));
    let Ended::Failed(e, _) = run(Step::Fail) else {
        panic!("an error ends it")
    };
    assert_eq!(e.to_string(), "KVM_RUN: Bad address (os error 14)");
}

/// A bug of the VMM's own ends the VM with an error instead of leaving it one
/// vCPU short.
#[test]
fn a_panic_on_a_vcpu_thread_is_an_end() {
    struct Bug;
    impl VcpuBackend for Bug {
        fn run(&mut self, _bus: &Bus, _own: &mut dyn PrivateIo) -> Result<Exit, BackendError> {
            panic!("on purpose, in a test");
        }
        fn set_result(&mut self, _rax: u64) {}
        fn exit_request(&self) -> Arc<ExitRequest> {
            Arc::new(ExitRequest::polled())
        }
    }
    let ids = [ApicId(0)];
    let (scheduler, mut parkers) = HaltScheduler::new(&ids).expect("one ID");
    let calls = Calls::new(Kicks::new(scheduler.kicker(), None), &ids);
    let none = Enforcement::NotEnforced;
    let vcpu = Vcpu::new(
        Bug,
        parkers.remove(0),
        calls,
        none,
        Arc::new(Bus::default()),
    );
    let threads = VcpuThreads::new([Arc::clone(vcpu.exit_request())]);
    let jailed = JailedThreads::spawn(1).expect("a thread");
    let scheduler = Arc::new(scheduler);
    let mut vm = RunningVm::start(vec![vcpu], jailed, scheduler, threads).expect("starts");
    let limit = std::time::Instant::now() + Duration::from_secs(20);
    assert_eq!(vm.wait(limit).expect("wait"), Waited::Failed);
    let ends = vm.stop().expect("nothing runs any more");
    assert!(matches!(
        ends.as_slice(),
        [Ended::Failed(BackendError::Panicked, _)]
    ));
}

/// A guest that is sent an interrupt while it runs, again and again.
struct Target {
    exit_request: Arc<ExitRequest>,
    sender: VcpuApic,
    /// What was delivered.
    vectors: Arc<Mutex<Vec<u8>>>,
    next: u8,
}

const FIRST: u8 = 0x31;
const LAST: u8 = 0x35;

impl VcpuBackend for Target {
    fn run(&mut self, _bus: &Bus, own: &mut dyn PrivateIo) -> Result<Exit, BackendError> {
        // Its local APIC: x2APIC mode, enabled by software; the end of whatever
        // was delivered before.
        assert!(own.msr_write(0x1b, 0xfee0_0d00));
        assert!(own.msr_write(0x80f, 0x1ff));
        assert!(own.msr_write(0x80b, 0));
        assert_eq!(self.exit_request.byte().load(Ordering::SeqCst), 0);
        if self.next > LAST {
            return Ok(Exit::Bus(BusEvent::Exit(0)));
        }
        // The ICR of APIC ID 1: fixed, to APIC ID 0.
        assert!(self.sender.msr_write(0x830, u64::from(self.next)));
        let asked = self.exit_request.byte().load(Ordering::SeqCst);
        assert_eq!(asked, 1, "vector {:#x} does not end the run", self.next);
        self.next += 1;
        Ok(Exit::Interrupted)
    }

    fn set_result(&mut self, _rax: u64) {}

    fn interruptible(&mut self) -> Option<&mut dyn Interruptible> {
        Some(self)
    }

    fn exit_request(&self) -> Arc<ExitRequest> {
        Arc::clone(&self.exit_request)
    }
}

impl Interruptible for Target {
    fn interrupts_enabled(&mut self) -> bool {
        true
    }

    fn accepts_interrupt(&mut self) -> bool {
        true
    }

    fn interrupt(&mut self, vector: u8) -> Result<(), BackendError> {
        self.vectors.lock().expect("not poisoned").push(vector);
        Ok(())
    }

    fn want_window(&mut self, _wanted: bool) {}

    fn nmi(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    fn cr8(&mut self) -> u8 {
        0
    }

    fn set_cr8(&mut self, _cr8: u8) {}

    fn init(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    fn startup(&mut self, _page: u8) -> Result<(), BackendError> {
        Ok(())
    }

    fn set_run_states(&mut self, _at: Option<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn set_running(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}

/// Each interrupt ends the run of the guest that it is for, not only the first
/// since the last halt.
#[test]
fn every_interrupt_makes_a_running_vcpu_leave() {
    let ids = [ApicId(0), ApicId(1)];
    let (scheduler, mut parkers) = HaltScheduler::new(&ids).expect("two distinct IDs");
    let requests = [0, 1].map(|_| Arc::new(ExitRequest::polled()));
    let threads = VcpuThreads::new(requests.clone());
    let kicks = Kicks::new(scheduler.kicker(), None);
    let calls = Calls::new(kicks.clone(), &ids);
    let controllers = Controllers::new(&ids, kicks, threads).expect("two distinct IDs");
    let controllers = Arc::new(controllers);
    let apic = |id| {
        let shared = Arc::clone(&controllers);
        VcpuApic::new(shared, id, Features::default(), Arc::default()).expect("it is there")
    };
    let [own, mut sender] = ids.map(apic);
    assert!(sender.msr_write(0x1b, 0xfee0_0c00));
    assert!(sender.msr_write(0x80f, 0x1ff));
    let vectors = Arc::default();
    let target = Target {
        exit_request: Arc::clone(&requests[0]),
        sender,
        vectors: Arc::clone(&vectors),
        next: FIRST,
    };
    let none = Enforcement::NotEnforced;
    let vcpu = Vcpu::new(
        target,
        parkers.remove(0),
        calls,
        none,
        Arc::new(Bus::default()),
    );
    let ended = vcpu.with_apic(Some(own)).run(&());
    assert!(matches!(ended, Ended::ExitPort(0)), "{ended}");
    let vectors = vectors.lock().expect("not poisoned");
    assert_eq!(*vectors, (FIRST..=LAST).collect::<Vec<u8>>());
}
