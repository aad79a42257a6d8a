//! Run states as KVM records them, which `run --halt userspace` makes steal time of:
//! with a guest of a few bytes in real mode. Where there is no KVM, or it records
//! none, each test says so.
//!
//! Expected: kvm_xen_update_runstate and kvm_arch_vcpu_put in arch/x86/kvm, struct
//! vcpu_runstate_info in include/xen/interface/vcpu.h.

#![expect(
    clippy::unwrap_used,
    reason = "a test's helper that fails is a test that fails"
)]

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use kvm_bindings::kvm_regs;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use vm_memory::{Bytes as _, GuestAddress};
use vmm_reference::backend::kvm::{KvmVcpu, map_memory};
use vmm_reference::backend::{Exit, Interruptible as _, VcpuBackend as _, run_states, xen};
use vmm_reference::devices::{Bus, BusEvent};
use vmm_reference::host::KvmHost;
use vmm_reference::memory::{self, GuestMemory};

const CODE: u64 = 0x1000;
/// The end of a page is where the record is hardest to place.
const RECORD: u64 = 0x2fd0;
const FLAG: u64 = 0x4000;
const LIMIT: Duration = Duration::from_secs(60);

/// A vCPU in real mode at `code`, interrupts off, and its memory.
fn vcpu(code: &[u8]) -> Option<(KvmVcpu, Arc<GuestMemory>)> {
    let host = match KvmHost::open() {
        Ok(host) => host,
        Err(e) => {
            println!("not run here: {e}");
            return None;
        }
    };
    if !xen::offered(&host.kvm) || !run_states::offered(&host.kvm) {
        println!("not run here: this KVM records no run states");
        return None;
    }
    let memory = Arc::new(memory::allocate(&[(0, 0x10000)]).unwrap());
    let vm = host.kvm.create_vm().unwrap();
    map_memory(&vm, &memory).unwrap();
    xen::intercept(&vm).unwrap();
    run_states::of_64_bits(&vm).unwrap();
    memory.write_slice(code, GuestAddress(CODE)).unwrap();
    let vcpu = KvmVcpu::new(vm.create_vcpu(0).unwrap(), Arc::clone(&memory)).unwrap();
    vcpu.set_cpuid(&host.cpuid).unwrap();
    let mut sregs = vcpu.fd().get_sregs().unwrap();
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vcpu.fd().set_sregs(&sregs).unwrap();
    let regs = kvm_regs {
        rip: CODE,
        rflags: 2,
        ..Default::default()
    };
    vcpu.fd().set_regs(&regs).unwrap();
    Some((vcpu, memory))
}

/// Runs on through exits that need nothing.
fn run(vcpu: &mut KvmVcpu) -> Exit {
    loop {
        match vcpu.run(&Bus::default(), &mut ()).unwrap() {
            Exit::Interrupted => {}
            exit => return exit,
        }
    }
}

fn low16(gpa: u64) -> [u8; 2] {
    u16::try_from(gpa).unwrap().to_le_bytes()
}

#[test]
fn a_guest_that_looks_finds_itself_running() {
    let [low, high] = low16(RECORD);
    // mov al, [RECORD]; out 0xf4, al; jmp to the first
    let code = [0xa0, low, high, 0xe6, 0xf4, 0xeb, 0xf9];
    let Some((mut vcpu, memory)) = vcpu(&code) else {
        return;
    };
    let (state, record) = (GuestAddress(RECORD), RECORD..RECORD + run_states::BYTES);
    let seen = |value| Exit::Bus(BusEvent::Exit(value));
    memory.write_obj(7_u8, state).unwrap();
    assert_eq!(run(&mut vcpu), seen(7), "KVM was not told yet");
    vcpu.set_run_states(Some(RECORD)).unwrap();
    memory.write_obj(run_states::RUNNABLE, state).unwrap();
    assert_eq!(run(&mut vcpu), seen(0));
    // How long it ran is there, behind the state and when that began.
    assert_ne!(
        memory.read_obj::<u64>(GuestAddress(RECORD + 16)).unwrap(),
        0
    );
    // Nothing but its 48 bytes.
    for gpa in (RECORD - 64..RECORD).chain(record.end..record.end + 64) {
        assert_eq!(
            memory.read_obj::<u8>(GuestAddress(gpa)).unwrap(),
            0,
            "{gpa:#x}"
        );
    }
    // And when it is said to run.
    memory.write_obj(run_states::RUNNABLE, state).unwrap();
    vcpu.set_running().unwrap();
    assert_eq!(memory.read_obj::<u8>(state).unwrap(), 0);
    vcpu.set_run_states(None).unwrap();
    memory.write_obj(9_u8, state).unwrap();
    assert_eq!(run(&mut vcpu), seen(9));
}

/// Whoever runs on the pCPU of a vCPU that wants to run finds it preempted.
#[test]
fn a_guest_that_is_preempted_says_so_itself() {
    let [low, high] = low16(FLAG);
    // cmp byte [FLAG], 0; je to the first; hlt
    let code = [0x80, 0x3e, low, high, 0, 0x74, 0xf9, 0xf4];
    let Some((mut vcpu, memory)) = vcpu(&code) else {
        return;
    };
    vcpu.set_run_states(Some(RECORD)).unwrap();
    let allowed = sched_getaffinity(None).unwrap();
    let pcpu = (0..CpuSet::MAX_CPU).find(|&n| allowed.is_set(n)).unwrap();
    let mut one = CpuSet::new();
    one.set(pcpu);
    let preempted = std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            sched_setaffinity(None, &one).unwrap();
            run(&mut vcpu)
        });
        let watching = scope.spawn(|| {
            sched_setaffinity(None, &one).unwrap();
            let end = Instant::now() + LIMIT;
            let state = || memory.load::<u8>(GuestAddress(RECORD), Relaxed).unwrap();
            while state() != run_states::RUNNABLE && Instant::now() < end {}
            let preempted = state();
            memory.store(1_u8, GuestAddress(FLAG), Relaxed).unwrap();
            preempted
        });
        let preempted = watching.join().unwrap();
        assert_eq!(running.join().unwrap(), Exit::Halt);
        preempted
    });
    assert_eq!(preempted, run_states::RUNNABLE);
    let waited = GuestAddress(RECORD + run_states::RUNNABLE_NS);
    assert_ne!(memory.read_obj::<u64>(waited).unwrap(), 0);
}
