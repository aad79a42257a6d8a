//! A start that fails half way, for the system gives no more threads. Alone in
//! its process: it limits the address space.

#![expect(
    clippy::unwrap_used,
    reason = "a test's helper that fails is a test that fails"
)]

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use vmm_reference::demo::lock_vm::LockVm;
use vmm_reference::halt_mode::HaltMode;
use vmm_reference::payload::layout::{issue, mode};
use vmm_reference::payload::lock::LockProgram;
use vmm_reference::transport::{HaltKick, Transport};
use vmm_reference::vm::VmSpec;

/// Bytes of address space in use.
fn mapped() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
    pages * 4096
}

/// Names of the vCPU threads that there are.
fn vcpu_threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.map(|task| fs::read_to_string(task?.path().join("comm")));
    let names = names.flatten().filter(|name| name.starts_with("vcpu"));
    names.collect()
}

/// A thread gives itself its name, a moment after it was started; one that has
/// been joined is in /proc for another moment.
fn assert_there_are(n: usize) {
    let limit = Instant::now() + Duration::from_secs(20);
    while vcpu_threads().len() != n {
        assert!(Instant::now() < limit, "not {n}: {:?}", vcpu_threads());
        std::thread::yield_now();
    }
}

#[test]
fn no_thread_is_left_behind() {
    let program = LockProgram {
        mode: mode::PV,
        issue: issue::DOORBELL,
        threshold: 4,
        hold: 3,
        think: 3,
    };
    let spec = VmSpec::bare(
        500,
        HaltKick {
            halt: HaltMode::Userspace,
            transport: Transport::Hosted,
        },
    );
    let before = getrlimit(Resource::As);
    // Room for the guest and some of the stacks of its threads, 2 MiB each.
    let limit = Rlimit {
        current: Some(mapped() + (500 << 20)),
        ..before
    };
    setrlimit(Resource::As, limit).unwrap();
    let result = LockVm::start(&spec, None, &program);
    setrlimit(Resource::As, before).unwrap();
    let error = result.unwrap_err().to_string();
    assert!(error.starts_with("can't start a vCPU thread"), "{error}");
    assert_there_are(0);
    // And the next one is none the worse for it.
    let vm = LockVm::start(&spec, None, &program).unwrap();
    assert_there_are(500);
    vm.running.stop().unwrap();
    assert_there_are(0);
}
