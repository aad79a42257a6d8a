//! The KVM backend on this machine's /dev/kvm. Where there is none, each test
//! says so; the lab of ci/lab runs them all the same.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helper that fails is a test that fails"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use cpuid_features::Selection;
use hypercall_abi::{Enforcement, HypercallHandler, RawHypercall, dispatch};
use vmm_reference::backend::kvm::KvmVcpu;
use vmm_reference::backend::{Exit, VcpuBackend as _};
use vmm_reference::cpuid::{self, ApicFeatures};
use vmm_reference::demo::cell::{Cell, calibrate};
use vmm_reference::demo::lock_vm::{LockResults, LockVm};
use vmm_reference::demo::{Backend, BackendKind, Mode, Workload};
use vmm_reference::devices::{Bus, BusEvent};
use vmm_reference::halt_mode::HaltMode;
use vmm_reference::host::KvmHost;
use vmm_reference::memory;
use vmm_reference::payload::image::{CODE, LOCK_PAGE, PARAM_PAGE, WAITERS, result_page};
use vmm_reference::payload::layout::{issue, lock, mode, param, result};
use vmm_reference::payload::lock::{LockImage, LockProgram};
use vmm_reference::transport::{HaltKick, Transport};
use vmm_reference::vm::{Vm, VmSpec, Waited};

/// This host's KVM, or a line that says what is missing.
fn host() -> Option<KvmHost> {
    match KvmHost::open() {
        Ok(host) => Some(host),
        Err(e) => {
            println!("not run here: {e}");
            None
        }
    }
}

fn backend() -> Option<Backend> {
    host()?;
    let (backend, _) = Backend::choose(Some(BackendKind::Kvm)).expect("KVM opened just now");
    Some(backend)
}

/// Halts in this process, kicks by the doorbell port.
fn spec(vcpus: u32) -> VmSpec {
    VmSpec::bare(
        vcpus,
        HaltKick {
            halt: HaltMode::Userspace,
            transport: Transport::Port,
        },
    )
}

const PROGRAM: LockProgram = LockProgram {
    mode: mode::PV,
    issue: issue::DOORBELL,
    threshold: 4,
    hold: 3,
    think: 3,
};

#[test]
fn contended_pv_cells_keep_the_lock_and_all_counts() {
    let Some(backend) = backend() else { return };
    let speed = calibrate(&backend, &spec(1)).expect("calibration");
    for (mode, vcpus) in [(Mode::Spin, 2), (Mode::Pv, 2), (Mode::Pv, 5)] {
        let cell = Cell {
            mode,
            spec: spec(vcpus),
            vms: 1,
        };
        let work = Workload {
            hold: 5,
            think: 5,
            spin: Duration::from_micros(5),
        };
        let (rows, interrupted) = cell
            .run(&backend, &work, speed, Duration::from_millis(300))
            .expect("the lock holds");
        assert!(!interrupted);
        let [row] = rows.as_slice() else {
            panic!("one VM is one row: {rows:?}");
        };
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
    let Some(host) = host() else { return };
    let mut vm = LockVm::start(&spec(3), Some(&host), &PROGRAM).expect("guest starts");
    let deadline = Instant::now() + Duration::from_millis(200);
    assert_eq!(vm.running.wait(deadline).expect("wait"), Waited::Deadline);
    vm.ask_to_leave().expect("flag is in guest memory");
    let limit = Instant::now() + Duration::from_secs(20);
    assert_eq!(vm.running.wait(limit).expect("wait"), Waited::AllEnded);
    let results = LockResults::read(vm.memory(), 3).expect("results are in guest memory");
    assert_eq!(results.histogram.iter().sum::<u64>(), results.acquisitions);
    assert_eq!(results.violations, 0);
    vm.running.stop().expect("all have ended");
}

/// A guest that never leaves by itself: the ticket it waits for never comes.
#[test]
fn a_guest_that_never_exits_is_stopped() {
    let Some(host) = host() else { return };
    for mode in [mode::SPIN, mode::PV] {
        let program = LockProgram { mode, ..PROGRAM };
        let vm = LockVm::start(&spec(2), Some(&host), &program).expect("starts");
        // Far beyond any ticket that is drawn meanwhile.
        memory::write_word(vm.memory(), LOCK_PAGE + lock::SERVING, 1 << 60).expect("lock page");
        std::thread::sleep(Duration::from_millis(50));
        let ends = vm.running.stop().expect("stop is bounded");
        assert_eq!(ends.len(), 2);
    }
}

/// One vCPU on this thread, driven by hand.
fn vcpu(host: &KvmHost, program: &LockProgram) -> (KvmVcpu, Arc<memory::GuestMemory>) {
    let image = LockImage::new(program, 1).expect("memory");
    let vm = Vm::build(&spec(1), Some(host), &image).expect("VM");
    let memory = Arc::clone(&vm.parts().memory);
    (vm.into_kvm_vcpus().remove(0), memory)
}

/// Runs the guest to its doorbell.
fn call(vcpu: &mut KvmVcpu) -> RawHypercall {
    match vcpu.run(&Bus::default(), &mut ()) {
        Ok(Exit::Hypercall(call)) => call,
        other => panic!("the doorbell, not {other:?}"),
    }
}

/// The check of the check: a lock that is broken must be seen as broken.
#[test]
fn the_guest_sees_a_second_owner() {
    let Some(host) = host() else { return };
    let (mut vcpu, memory) = vcpu(&host, &PROGRAM);
    memory::write_word(&memory, LOCK_PAGE + lock::OWNER, 99).expect("lock page");
    // The next ticket "sleeps": the unlock rings the doorbell, so the guest
    // comes back by itself.
    let entry = WAITERS;
    memory::write_word(&memory, entry, 2).expect("waiter table");
    memory::write_word(&memory, entry + 8, 7).expect("waiter table");
    call(&mut vcpu);
    let violations = memory::read_word(&memory, result_page(0) + result::VIOLATIONS);
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
    let Some(host) = host() else { return };
    let (mut vcpu, memory) = vcpu(&host, &PROGRAM);
    memory::write_word(&memory, WAITERS, 2).expect("waiter table");
    memory::write_word(&memory, WAITERS + 8, 0xabcd_1234).expect("waiter table");
    let call = call(&mut vcpu);
    let mut kicks = Kicks::default();
    let rax = dispatch(&call, Enforcement::NotEnforced, &mut kicks);
    assert_eq!((rax, kicks.0), (0, vec![0xabcd_1234]));
    // An answer that is not 0 is counted by the guest before its next exit.
    vcpu.set_result(u64::MAX);
    memory::write_word(&memory, PARAM_PAGE + param::STOP, 1).expect("parameter page");
    assert_eq!(
        vcpu.run(&Bus::default(), &mut ()).expect("run"),
        Exit::Bus(BusEvent::Exit(0))
    );
    let page = result_page(0);
    let read = |offset| memory::read_word(&memory, page + offset).expect("result page");
    assert_eq!((read(result::KICKS), read(result::KICK_ERRORS)), (1, 1));
}

/// "Guest checks this feature bit before enabling paravirtualized spinlocks."
#[test]
fn a_guest_without_the_feature_gives_up() {
    let Some(host) = host() else { return };
    let (mut vcpu, _memory) = vcpu(&host, &PROGRAM);
    let want: Selection = "-pv-unhalt".parse().expect("a selection");
    let without = VmSpec {
        pv: want,
        ..spec(1)
    };
    let offered = without
        .negotiate(Some(&host))
        .expect("a bit can be left out");
    let guest = cpuid::for_vcpu(&host.cpuid, &offered, 0, ApicFeatures::None).expect("CPUID");
    vcpu.set_cpuid(&guest).expect("the vCPU has not run yet");
    assert_eq!(
        vcpu.run(&Bus::default(), &mut ()).expect("run"),
        Exit::Bus(BusEvent::Exit(1))
    );
}

/// What is not there is not shown: CPUID.1, EDX bit 9 and ECX bits 21 and 24 as
/// KVM keeps them, and IA32_APIC_BASE bit 11.
#[test]
fn without_interrupt_controllers_the_guest_sees_no_apic() {
    let Some(host) = host() else { return };
    let (vcpu, _memory) = vcpu(&host, &PROGRAM);
    let kept = vcpu.cpuid().expect("KVM has a CPUID of it");
    let leaf = kept.as_slice().iter().find(|entry| entry.function == 1);
    let leaf = leaf.expect("the basic leaf");
    assert_eq!(leaf.edx >> 9 & 1, 0, "APIC");
    assert_eq!(leaf.ecx >> 21 & 1, 0, "x2APIC");
    assert_eq!(leaf.ecx >> 24 & 1, 0, "TSC-deadline");
    let sregs = vcpu.fd().get_sregs().expect("KVM_GET_SREGS");
    assert_eq!(sregs.apic_base >> 11 & 1, 0);
}

/// An instruction that KVM can't run, or a triple fault: an error or an end,
/// with the guest's RIP, never a hang.
#[test]
fn rubbish_code_ends() {
    let Some(host) = host() else { return };
    let (mut vcpu, memory) = vcpu(&host, &PROGRAM);
    use vm_memory::{Bytes as _, GuestAddress};
    // UD2 without an IDT.
    memory
        .write_slice(&[0x0f, 0x0b], GuestAddress(CODE))
        .expect("code");
    match vcpu.run(&Bus::default(), &mut ()) {
        Ok(Exit::Shutdown) => {}
        Err(e) => assert!(e.to_string().contains("0x10000"), "{e}"),
        Ok(other) => panic!("{other:?}"),
    }
}
