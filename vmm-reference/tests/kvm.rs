//! The KVM backend on this machine's /dev/kvm. Where there is none, each test
//! says so; the lab of ci/lab runs them all the same.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helper that fails is a test that fails"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use hypercall_abi::{Enforcement, HypercallHandler, RawHypercall, dispatch};
use kvm_ioctls::Kvm;
use vmm_reference::backend::kvm::KvmVcpu;
use vmm_reference::backend::{Exit, VcpuBackend as _, Via, state};
use vmm_reference::demo::cell::{Cell, calibrate};
use vmm_reference::demo::guest::{Guest, Results};
use vmm_reference::demo::{Backend, BackendChoice, Mode, Policy, Workload};
use vmm_reference::devices::{Bus, BusEvent};
use vmm_reference::memory::{self, CODE, LOCK_PAGE, LockProgram, PAGE_TABLES, PARAM_PAGE};
use vmm_reference::payload::code;
use vmm_reference::payload::layout::{lock, mode, result, transport};
use vmm_reference::vm::{KvmVm, VmSetup};
use vmm_reference::vmm::Waited;
use vmm_reference::way::{DoorKind, Halt, Way};
use vmm_reference::{cpuid, host};

/// This host's KVM, or a line that says what is missing.
fn kvm() -> Option<Kvm> {
    match host::open_kvm() {
        Ok(kvm) => Some(kvm),
        Err(e) => {
            println!("not run here: {e}");
            None
        }
    }
}

fn backend() -> Option<Backend> {
    kvm()?;
    Some(
        Backend::choose(BackendChoice::Kvm)
            .expect("KVM opened just now")
            .0,
    )
}

fn offered(backend: &Backend, vcpus: u32) -> cpuid_features::Negotiated {
    let Backend::Kvm { features, .. } = backend else {
        unreachable!("chosen above")
    };
    cpuid::offer(
        *features,
        &cpuid::userspace_halts(vcpus),
        &Default::default(),
    )
    .expect("the default selection can be had")
}

const WAY: Way = Way {
    halt: Halt::Userspace,
    door: DoorKind::Port,
};

const PROGRAM: LockProgram = LockProgram {
    mode: mode::PV,
    transport: transport::DOORBELL,
    threshold: 4,
    hold: 3,
    think: 3,
};

#[test]
fn contended_pv_cells_keep_the_lock_and_all_counts() {
    let Some(backend) = backend() else { return };
    let speed = calibrate(&backend, WAY, &offered(&backend, 1)).expect("calibration");
    for (mode, vcpus) in [(Mode::Spin, 2), (Mode::Pv, 2), (Mode::Pv, 5)] {
        let cell = Cell {
            mode,
            vcpus,
            way: WAY,
            offered: offered(&backend, vcpus),
        };
        let work = Workload {
            hold: 5,
            think: 5,
            spin: Duration::from_micros(5),
        };
        let (row, interrupted) = cell
            .run(
                &backend,
                &work,
                Policy::default(),
                speed,
                Duration::from_millis(300),
            )
            .expect("the lock holds");
        assert!(!interrupted);
        assert_eq!(row.acquisitions, row.expected);
        assert!(row.acquisitions > 0, "{row:?}");
        if mode == Mode::Pv && vcpus == 5 {
            assert!(
                row.halts > 0 && row.kicks > 0,
                "waiters halt and are kicked: {row:?}"
            );
        }
    }
}

#[test]
fn every_wait_is_booked() {
    let Some(backend) = backend() else { return };
    let mut guest = Guest::start(
        &backend,
        WAY,
        &PROGRAM,
        3,
        &offered(&backend, 3),
        Policy::default(),
    )
    .expect("guest starts");
    let deadline = Instant::now() + Duration::from_millis(200);
    assert_eq!(guest.vmm.wait(deadline).expect("wait"), Waited::Deadline);
    guest.ask_to_leave().expect("flag is in guest memory");
    let limit = Instant::now() + Duration::from_secs(20);
    assert_eq!(guest.vmm.wait(limit).expect("wait"), Waited::AllEnded);
    let results = Results::read(&guest.memory, 3).expect("results are in guest memory");
    assert_eq!(results.histogram.iter().sum::<u64>(), results.acquisitions);
    assert_eq!(results.violations, 0);
    guest.vmm.stop().expect("all have ended");
}

/// A guest that never leaves by itself: the ticket it waits for never comes.
#[test]
fn a_guest_that_never_exits_is_stopped() {
    let Some(backend) = backend() else { return };
    for mode in [mode::SPIN, mode::PV] {
        let program = LockProgram { mode, ..PROGRAM };
        let guest = Guest::start(
            &backend,
            WAY,
            &program,
            2,
            &offered(&backend, 2),
            Policy::default(),
        )
        .expect("starts");
        // Far beyond any ticket that is drawn meanwhile.
        memory::write_word(&guest.memory, LOCK_PAGE + lock::SERVING, 1 << 60).expect("lock page");
        std::thread::sleep(Duration::from_millis(50));
        let ends = guest.vmm.stop().expect("stop is bounded");
        assert_eq!(ends.len(), 2);
    }
}

/// One vCPU on this thread, driven by hand.
fn vcpu(kvm: &Kvm, program: &LockProgram) -> (KvmVcpu, Arc<memory::GuestMemory>, impl Sized) {
    let memory = Arc::new(memory::build(1, code::lock()).expect("memory"));
    program.install(&memory, &[0]).expect("program fits");
    let vm = KvmVm::new(kvm, Arc::clone(&memory), VmSetup::new(WAY)).expect("VM");
    let (host, features) = cpuid::supported(kvm).expect("CPUID");
    let offered = cpuid::offer(features, &cpuid::userspace_halts(1), &Default::default());
    let guest = cpuid::for_vcpu(&host, &offered.expect("offer"), 0).expect("CPUID");
    let vcpu = vm.vcpu(0, &guest).expect("vCPU");
    state::long_mode(&vcpu, PAGE_TABLES, CODE, memory::result_page(0), PARAM_PAGE).expect("state");
    (vcpu, memory, vm)
}

/// Runs the guest to its doorbell.
fn call(vcpu: &mut KvmVcpu) -> RawHypercall {
    match vcpu.run(&Bus::default()) {
        Ok(Exit::Hypercall(call, Via::Port)) => call,
        other => panic!("the doorbell, not {other:?}"),
    }
}

/// The check of the check: a lock that is broken must be seen as broken.
#[test]
fn the_guest_sees_a_second_owner() {
    let Some(kvm) = kvm() else { return };
    let (mut vcpu, memory, _vm) = vcpu(&kvm, &PROGRAM);
    memory::write_word(&memory, LOCK_PAGE + lock::OWNER, 99).expect("lock page");
    // The next ticket "sleeps": the unlock rings the doorbell, so the guest
    // comes back by itself.
    let entry = memory::WAITERS;
    memory::write_word(&memory, entry, 2).expect("waiter table");
    memory::write_word(&memory, entry + 8, 7).expect("waiter table");
    call(&mut vcpu);
    let violations = memory::read_word(&memory, memory::result_page(0) + result::VIOLATIONS);
    assert_eq!(violations.expect("result page"), 1);
}

#[test]
fn the_doorbell_brings_the_registers_and_takes_the_result() {
    #[derive(Default)]
    struct Kicks(Vec<u32>);
    impl HypercallHandler for Kicks {
        fn kick_cpu(&mut self, call: hypercall_abi::KickCpu) -> hypercall_abi::HypercallResult {
            self.0.push(call.destination());
            Ok(0)
        }
    }
    let Some(kvm) = kvm() else { return };
    let (mut vcpu, memory, _vm) = vcpu(&kvm, &PROGRAM);
    memory::write_word(&memory, memory::WAITERS, 2).expect("waiter table");
    memory::write_word(&memory, memory::WAITERS + 8, 0xabcd_1234).expect("waiter table");
    let call = call(&mut vcpu);
    let mut kicks = Kicks::default();
    let rax = dispatch(&call, Enforcement::NotEnforced, &mut kicks);
    assert_eq!((rax, kicks.0), (0, vec![0xabcd_1234]));
    // An answer that is not 0 is counted by the guest before its next exit.
    vcpu.set_result(u64::MAX);
    memory::write_word(
        &memory,
        PARAM_PAGE + vmm_reference::payload::layout::param::STOP,
        1,
    )
    .expect("parameter page");
    assert_eq!(
        vcpu.run(&Bus::default()).expect("run"),
        Exit::Bus(BusEvent::Exit(0))
    );
    let page = memory::result_page(0);
    let read = |offset| memory::read_word(&memory, page + offset).expect("result page");
    assert_eq!((read(result::KICKS), read(result::KICK_ERRORS)), (1, 1));
}

/// "Guest checks this feature bit before enabling paravirtualized spinlocks."
#[test]
fn a_guest_without_the_feature_gives_up() {
    let Some(kvm) = kvm() else { return };
    let (mut vcpu, _memory, _vm) = vcpu(&kvm, &PROGRAM);
    let (host, _) = cpuid::supported(&kvm).expect("CPUID");
    let none = cpuid::offer(
        cpuid_features::KvmFeatures::empty(),
        &cpuid::userspace_halts(1),
        &"-pv-unhalt".parse().expect("a selection"),
    );
    let guest = cpuid::for_vcpu(&host, &none.expect("offer"), 0).expect("CPUID");
    vcpu.set_cpuid(&guest).expect("the vCPU has not run yet");
    assert_eq!(
        vcpu.run(&Bus::default()).expect("run"),
        Exit::Bus(BusEvent::Exit(1))
    );
}

/// An instruction that KVM can't run, or a triple fault: an error or an end,
/// with the guest's RIP, never a hang.
#[test]
fn rubbish_code_ends() {
    let Some(kvm) = kvm() else { return };
    let (mut vcpu, memory, _vm) = vcpu(&kvm, &PROGRAM);
    use vm_memory::{Bytes as _, GuestAddress};
    // UD2 without an IDT.
    memory
        .write_slice(&[0x0f, 0x0b], GuestAddress(CODE))
        .expect("code");
    match vcpu.run(&Bus::default()) {
        Ok(Exit::Shutdown) => {}
        Err(e) => assert!(e.to_string().contains("0x10000"), "{e}"),
        Ok(other) => panic!("{other:?}"),
    }
}
