//! A kick that waits for a running vCPU goes with a snapshot, with halts in this
//! process and in KVM; and what is lost where it does not: the words' latch when it
//! is taken out of a state, KVM's always.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test's helper that fails is a test that fails"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pv_lock_host::ApicId;
use vm_memory::{Bytes as _, GuestAddress};
use vmm_reference::backend::kvm::KvmVcpu;
use vmm_reference::backend::{Exit, VcpuBackend as _};
use vmm_reference::demo::lock_vm::LockVm;
use vmm_reference::devices::output::Output;
use vmm_reference::devices::{Bus, BusEvent};
use vmm_reference::halt_mode::HaltMode;
use vmm_reference::host::KvmHost;
use vmm_reference::memory::GuestMemory;
use vmm_reference::payload::image::{CodeImage, PARAM_PAGE};
use vmm_reference::payload::layout::{issue, mode};
use vmm_reference::payload::lock::LockProgram;
use vmm_reference::policy::Policy;
use vmm_reference::snapshot::{self, SavedVm, Snapshot};
use vmm_reference::transport::{HaltKick, Transport};
use vmm_reference::vcpu::Ended;
use vmm_reference::vm::{Restore, RunningVm, Vm, VmParts, VmSpec, Waited};
use vmm_sys_util::signal::Killable as _;

mod common;

/// What does not come within this time does not come.
const LIMIT: Duration = Duration::from_secs(20);

/// Says that it is there, waits in a loop for the word at RSI, halts, and writes 5
/// to the exit port.
///
/// ```text
///     mov qword ptr [rsi + 8], 1
/// 1:  cmp qword ptr [rsi], 0
///     je 1b
///     hlt
///     mov al, 5
///     out 0xf4, al
/// ```
const LOOPS_THEN_HALTS: &[u8] = &[
    0x48, 0xc7, 0x46, 0x08, 1, 0, 0, 0, 0x48, 0x83, 0x3e, 0x00, 0x74, 0xfa, 0xf4, 0xb0, 5, 0xe6,
    0xf4,
];

fn spec(halt: HaltMode, vcpus: u32) -> VmSpec {
    let transport = Transport::Port;
    VmSpec::bare(vcpus, HaltKick { halt, transport })
}

fn host() -> Option<KvmHost> {
    common::kvm().then(|| KvmHost::open().expect("KVM"))
}

fn restored(path: &Path, host: &KvmHost) -> (RunningVm, VmParts) {
    let how = Restore {
        policy: Policy::default(),
        output: Output::default(),
        trace: None,
    };
    let snapshot = Snapshot::open(path).expect("opens");
    let vm = Vm::restore(&snapshot, host, how).expect("restores");
    vm.start().expect("starts")
}

/// Lets the guest's loop end.
fn let_halt(memory: &GuestMemory) {
    memory.write_obj(1u64, GuestAddress(PARAM_PAGE)).unwrap();
}

/// Waits until the guest's loop has begun.
fn loops(memory: &GuestMemory) {
    let begin = Instant::now();
    while memory
        .read_obj::<u64>(GuestAddress(PARAM_PAGE + 8))
        .unwrap()
        == 0
    {
        assert!(begin.elapsed() < LIMIT, "the guest does not begin");
        std::thread::yield_now();
    }
}

/// The guest in its loop, kicked there or not, saved to `path`.
fn saved_in_its_loop(halt: HaltMode, kicked: bool, host: &KvmHost, path: &Path) {
    let image = CodeImage::new(1, LOOPS_THEN_HALTS).unwrap();
    let vm = Vm::build(&spec(halt, 1), Some(host), &image).expect("builds");
    let (running, parts) = vm.start().expect("starts");
    loops(&parts.memory);
    if kicked {
        assert!(parts.kicks.kick(ApicId(0)), "somebody took it");
    }
    let handle = running.handle();
    handle.pause().expect("pauses");
    let saved = parts.save(&handle).expect("saves");
    assert!(saved.vcpus[0].kvm.ran(), "it runs");
    snapshot::write(path, &saved, &parts.memory, &|| false).expect("is written");
    running.stop().expect("stops");
}

fn its_halt_ends(halt: HaltMode) {
    let Some(host) = host() else { return };
    let scratch = common::Scratch::new(&format!("latch-{}", halt.name()));
    let path = scratch.path("vm");
    saved_in_its_loop(halt, true, &host, &path);
    let (mut running, parts) = restored(&path, &host);
    let_halt(&parts.memory);
    running.handle().resume();
    let waited = running.wait(Instant::now() + LIMIT).expect("wait");
    assert_eq!(waited, Waited::AllEnded, "its halt did not end");
    let ended = running.stop().expect("stops");
    assert!(matches!(ended[0], Ended::ExitPort(5)), "{ended:?}");
}

#[test]
fn a_kick_of_a_running_vcpu_ends_its_halt_after_a_restore() {
    its_halt_ends(HaltMode::Userspace);
}

#[test]
fn a_kick_of_a_running_vcpu_ends_its_halt_in_kvm_after_a_restore() {
    its_halt_ends(HaltMode::Kernel);
}

/// Waits until the words say that all vCPUs are halted for nobody; what the words
/// are.
fn sleeps_for_ever(running: &RunningVm, parts: &VmParts) -> SavedVm {
    let begin = Instant::now();
    loop {
        let handle = running.handle();
        handle.pause().expect("pauses");
        let saved = parts.save(&handle).expect("saves");
        handle.resume();
        let words = &saved.scheduler.vcpus;
        if words.iter().all(|vcpu| vcpu.halted && !vcpu.kicked) {
            return saved;
        }
        assert!(begin.elapsed() < LIMIT, "it goes on: {words:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The opposite: without a kick the same guest halts, and a kick ends that.
#[test]
fn without_a_kick_it_sleeps_after_a_restore() {
    let Some(host) = host() else { return };
    let scratch = common::Scratch::new("latch-none");
    let path = scratch.path("vm");
    saved_in_its_loop(HaltMode::Userspace, false, &host, &path);
    let (mut running, parts) = restored(&path, &host);
    let_halt(&parts.memory);
    running.handle().resume();
    let saved = sleeps_for_ever(&running, &parts);
    // And once more: what is saved halted is halted when it is restored.
    snapshot::write(&path, &saved, &parts.memory, &|| false).expect("is written");
    running.stop().expect("stops");
    drop(parts);
    let parts;
    (running, parts) = restored(&path, &host);
    running.handle().resume();
    sleeps_for_ever(&running, &parts);
    assert!(parts.kicks.kick(ApicId(0)), "somebody took it");
    let waited = running.wait(Instant::now() + LIMIT).expect("wait");
    assert_eq!(waited, Waited::AllEnded);
    running.stop().expect("stops");
}

/// One run of a vCPU by hand, for this time at most.
fn run_for(mut vcpu: KvmVcpu, time: Duration) -> (Exit, KvmVcpu) {
    vmm_reference::signals::install().unwrap();
    let request = vcpu.exit_request();
    let (done, wait) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let exit = vcpu.run(&Bus::default(), &mut ()).expect("runs");
        let _ = done.send(());
        vcpu.exit_request().take();
        (exit, vcpu)
    });
    let _ = wait.recv_timeout(time);
    request.set();
    // It may have ended.
    let _ = thread.kill(vmm_reference::signals::vcpu_signal());
    thread.join().unwrap()
}

/// What KVM's own state loses: a vCPU of it that is kicked while it runs does not
/// halt, and one that has its whole state, as KVM gives it, does.
#[test]
fn kvms_own_state_loses_the_kick() {
    let Some(host) = host() else { return };
    let vcpu = |kicked: bool| {
        let image = CodeImage::new(1, LOOPS_THEN_HALTS).unwrap();
        let vm = Vm::build(&spec(HaltMode::Kernel, 1), Some(&host), &image).expect("builds");
        let_halt(&vm.parts().memory);
        if kicked {
            assert!(vm.parts().kicks.kick(ApicId(0)), "somebody took it");
        }
        vm.into_kvm_vcpus().remove(0)
    };
    let msrs = host.msrs().unwrap();
    let mut kicked = vcpu(true);
    let state = kicked.save(&msrs).expect("saves");
    let mut other = vcpu(false);
    other.restore(&state).expect("restores");
    // The kicked one passes its HLT ...
    let (exit, _) = run_for(kicked, LIMIT);
    assert_eq!(exit, Exit::Bus(BusEvent::Exit(5)));
    // ... and the one with its state gets there, and KVM says that it is halted.
    let begin = Instant::now();
    loop {
        let exit;
        (exit, other) = run_for(other, Duration::from_millis(50));
        assert_eq!(exit, Exit::Interrupted, "it passed its HLT");
        if !other.save(&msrs).expect("saves").ran() {
            break;
        }
        assert!(begin.elapsed() < LIMIT, "it does not get to its HLT");
    }
}

/// And in a guest that is at work: a state from which one latch was taken out stands
/// still.
#[test]
fn a_state_without_its_latch_stands_still() {
    let Some(host) = host() else { return };
    let scratch = common::Scratch::new("latch-out");
    let path = scratch.path("vm");
    let program = LockProgram {
        mode: mode::PV,
        issue: issue::DOORBELL,
        threshold: 4,
        hold: 3,
        think: 3,
    };
    let vm = LockVm::start(&spec(HaltMode::Userspace, 4), Some(&host), &program).expect("starts");
    let (mut running, mut parts) = (vm.running, vm.parts);
    let begin = Instant::now();
    loop {
        assert!(begin.elapsed() < 3 * LIMIT, "no latch was worth anything");
        std::thread::sleep(Duration::from_millis(2));
        let handle = running.handle();
        handle.pause().expect("pauses");
        let mut saved = parts.save(&handle).expect("saves");
        let latched = saved.scheduler.vcpus.iter().any(|vcpu| vcpu.kicked);
        if !latched {
            handle.resume();
            continue;
        }
        for vcpu in &mut saved.scheduler.vcpus {
            vcpu.kicked = false;
        }
        snapshot::write(&path, &saved, &parts.memory, &|| false).expect("is written");
        running.stop().expect("stops");
        drop(parts);
        (running, parts) = restored(&path, &host);
        running.handle().resume();
        if stands_still(&running, &parts) {
            break;
        }
    }
    running.stop().expect("stops");
}

/// Whether all its vCPUs are halted for nobody, which nothing in the guest ends;
/// else that it has taken its lock some more times.
fn stands_still(running: &RunningVm, parts: &VmParts) -> bool {
    let memory = Arc::clone(&parts.memory);
    let counter = || {
        use vmm_reference::payload::{image::LOCK_PAGE, layout::lock};
        vmm_reference::memory::read_word(&memory, LOCK_PAGE + lock::COUNTER).unwrap()
    };
    let (from, begin) = (counter(), Instant::now());
    loop {
        let handle = running.handle();
        handle.pause().expect("pauses");
        let words = parts.save(&handle).expect("saves").scheduler.vcpus;
        handle.resume();
        if words.iter().all(|vcpu| vcpu.halted && !vcpu.kicked) {
            return true;
        }
        if counter() > from + 20 {
            return false;
        }
        assert!(begin.elapsed() < LIMIT, "neither: {words:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
