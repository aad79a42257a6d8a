//! Snapshots of the embedded guests on /dev/kvm: through a file and on, with halts
//! in this process and in KVM.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test's helper that fails is a test that fails"
)]

use std::time::{Duration, Instant};

use vmm_reference::demo::lock_vm::{LockResults, LockVm};
use vmm_reference::devices::output::Output;
use vmm_reference::halt_mode::HaltMode;
use vmm_reference::host::KvmHost;
use vmm_reference::payload::layout::{issue, mode};
use vmm_reference::payload::lock::LockProgram;
use vmm_reference::policy::Policy;
use vmm_reference::snapshot::{self, Snapshot};
use vmm_reference::transport::{HaltKick, Transport};
use vmm_reference::vm::{Restore, Vm, VmSpec, Waited};

mod common;

const VCPUS: u32 = 4;
/// A guest that does not move for so long has lost a kick.
const LIMIT: Duration = Duration::from_secs(20);

fn spec(halt: HaltMode) -> VmSpec {
    let transport = Transport::Port;
    VmSpec::bare(VCPUS, HaltKick { halt, transport })
}

fn program() -> LockProgram {
    LockProgram {
        mode: mode::PV,
        issue: issue::DOORBELL,
        threshold: 4,
        hold: 3,
        think: 3,
    }
}

fn restored(path: &std::path::Path, host: &KvmHost) -> LockVm {
    let snapshot = Snapshot::open(path).expect("opens");
    snapshot.check_memory(&|| false).expect("intact");
    let how = Restore {
        policy: Policy::default(),
        output: Output::default(),
        trace: None,
    };
    let vm = Vm::restore(&snapshot, host, how).unwrap_or_else(|e| panic!("restores: {e}"));
    let (running, parts) = vm.start().expect("starts");
    running.handle().resume();
    LockVm { running, parts }
}

/// Waits until the lock has been taken `more` times.
fn moves(vm: &LockVm, more: u64) {
    let (from, begin) = (vm.counter().expect("lock page"), Instant::now());
    while vm.counter().expect("lock page") < from + more {
        assert!(begin.elapsed() < LIMIT, "the guest stands still: {vm:?}");
        std::thread::sleep(Duration::from_micros(100));
    }
}

fn through_files(halt: HaltMode) {
    if !common::kvm() {
        return;
    }
    let host = KvmHost::open().expect("KVM");
    let scratch = common::Scratch::new(&format!("snapshot-{}", halt.name()));
    let path = scratch.path("vm");
    let mut vm = LockVm::start(&spec(halt), Some(&host), &program()).expect("starts");
    for turn in 0..10 {
        moves(&vm, 50 + turn);
        let handle = vm.running.handle();
        handle.pause().expect("pauses");
        let saved = vm.parts.save(&handle).expect("saves");
        snapshot::write(&path, &saved, vm.memory(), &|| false).expect("is written");
        let counter = vm.counter().expect("lock page");
        vm.running.stop().expect("stops");
        vm = restored(&path, &host);
        assert!(vm.counter().expect("lock page") >= counter);
    }
    moves(&vm, 50);
    vm.ask_to_leave().expect("the flag is in guest memory");
    let waited = vm.running.wait(Instant::now() + LIMIT).expect("wait");
    assert_eq!(waited, Waited::AllEnded);
    let counter = vm.counter().expect("lock page");
    let results = LockResults::read(vm.memory(), VCPUS).expect("results");
    assert_eq!((results.acquisitions, results.violations), (counter, 0));
    assert!(results.kicks > 0, "{results:?}");
    let counted = vm.parts.vmm_stats.sums();
    // Each kick is a write to the doorbell, and each vCPU has written to the exit
    // port: counted by eleven VMs, one after the other, none twice and none not.
    let writes = results.kicks + u64::from(VCPUS);
    assert_eq!(counted["exit_pio"], writes, "{counted:?} {results:?}");
    vm.running.stop().expect("all have ended");
}

#[test]
fn a_guest_goes_on_with_halts_in_this_process() {
    through_files(HaltMode::Userspace);
}

#[test]
fn a_guest_goes_on_with_halts_in_kvm() {
    through_files(HaltMode::Kernel);
}
