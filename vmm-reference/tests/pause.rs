//! Pause and resume of a VM whose vCPUs halt and kick all the time: nothing
//! moves in a pause, and none of them loses a kick. On the hosted backend, and
//! on /dev/kvm where there is one.
//!
//! `PAUSES=100000 cargo test --release -p vmm-reference --test pause` is the long
//! version (`ci/pauses`).

#![expect(
    clippy::expect_used,
    reason = "a test's helper that fails is a test that fails"
)]

use std::time::{Duration, Instant};

use vmm_reference::demo::lock_vm::{LockResults, LockVm};
use vmm_reference::halt_mode::HaltMode;
use vmm_reference::host::KvmHost;
use vmm_reference::payload::layout::{issue, mode};
use vmm_reference::payload::lock::LockProgram;
use vmm_reference::transport::{HaltKick, Transport};
use vmm_reference::vm::{VmSpec, Waited};

const VCPUS: u32 = 5;
/// A guest that does not move for so long has lost a kick.
const LIMIT: Duration = Duration::from_secs(20);

/// The lock program, with sections so short that its vCPUs halt and kick most of
/// the time; None if there is no KVM here.
fn start(transport: Transport) -> Option<LockVm> {
    let program = LockProgram {
        mode: mode::PV,
        issue: issue::DOORBELL,
        threshold: 4,
        hold: 3,
        think: 3,
    };
    let spec = VmSpec::bare(
        VCPUS,
        HaltKick {
            halt: HaltMode::Userspace,
            transport,
        },
    );
    let host = match (transport, KvmHost::open()) {
        (Transport::Hosted, _) => None,
        (_, Ok(host)) => Some(host),
        (_, Err(e)) => {
            println!("not run here: {e}");
            return None;
        }
    };
    Some(LockVm::start(&spec, host.as_ref(), &program).expect("starts"))
}

/// Everything that the guest's vCPUs count.
fn counts(vm: &LockVm) -> (u64, LockResults) {
    let results = LockResults::read(vm.memory(), VCPUS).expect("results");
    (vm.counter().expect("lock page"), results)
}

/// Waits until the lock has been taken `more` times.
fn moves(vm: &LockVm, more: u64) {
    let (from, begin) = (vm.counter().expect("lock page"), Instant::now());
    while vm.counter().expect("lock page") < from + more {
        assert!(begin.elapsed() < LIMIT, "the guest stands still: {vm:?}");
        std::thread::yield_now();
    }
}

fn stands_still_while_paused(transport: Transport) {
    let Some(vm) = start(transport) else { return };
    let handle = vm.running.handle();
    for _ in 0..100 {
        moves(&vm, 10);
        handle.pause().expect("pauses");
        assert_eq!(handle.states(), ["paused"; VCPUS as usize]);
        let before = counts(&vm);
        std::thread::sleep(Duration::from_micros(300));
        assert_eq!(counts(&vm), before, "something moved in a pause");
        handle.resume();
    }
    moves(&vm, 10);
    vm.running.stop().expect("stops");
}

#[test]
fn a_hosted_vm_stands_still_while_paused() {
    stands_still_while_paused(Transport::Hosted);
}

#[test]
fn a_vm_of_kvm_stands_still_while_paused() {
    stands_still_while_paused(Transport::Port);
}

fn loses_no_kick(transport: Transport) {
    let pauses = std::env::var("PAUSES").map_or(2_000, |n| n.parse().expect("PAUSES: a number"));
    let Some(mut vm) = start(transport) else {
        return;
    };
    let handle = vm.running.handle();
    for turn in 1..=pauses {
        handle.pause().expect("pauses");
        handle.resume();
        // Its lock is first come, first served: one vCPU that was not woken, and
        // all of them stand still. Often at once, so that pauses hit every state.
        if turn % 16 == 0 {
            moves(&vm, u64::from(VCPUS) * 2);
        }
    }
    // Before anybody is asked to leave: that would wake who slept on.
    moves(&vm, u64::from(VCPUS) * 10);
    vm.ask_to_leave().expect("the flag is in guest memory");
    let waited = vm.running.wait(Instant::now() + LIMIT).expect("wait");
    assert_eq!(waited, Waited::AllEnded);
    let (counter, results) = counts(&vm);
    assert_eq!((results.acquisitions, results.violations), (counter, 0));
    assert!(results.kicks > 0, "{results:?}");
    println!("{pauses} pauses, {} kicks, none lost", results.kicks);
    vm.running.stop().expect("all have ended");
}

#[test]
fn pauses_lose_no_kick_hosted() {
    loses_no_kick(Transport::Hosted);
}

#[test]
fn pauses_lose_no_kick_on_kvm() {
    loses_no_kick(Transport::Port);
}
