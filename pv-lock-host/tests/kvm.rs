//! Kicks from the host into a real KVM: `cli; hlt` in a real guest.
//!
//! They run wherever /dev/kvm does, hosts without hardware virtualization
//! included: no hypercall is made. Where it does not, they say so and pass.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics is a test that fails"
)]
#![expect(unsafe_code, reason = "a guest needs memory")]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use kvm_bindings::{
    KVM_MP_STATE_RUNNABLE, KvmIrqRouting, kvm_mp_state, kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use pv_lock_host::{ApicId, ImmediateExit, KvmKick, KvmKickError};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

/// Far more than a wake-up takes, and still an end.
const LONG: Duration = Duration::from_secs(20);
/// Long enough for a guest that is not halted to show it.
const A_WHILE: Duration = Duration::from_millis(150);

/// Where the code is, in real mode.
const CODE: usize = 0x1000;
/// cli; hlt; out 0x10, al; hlt; out 0x11, al; hlt; and, not reached, jmp $
const PROGRAM: &[u8] = &[0xfa, 0xf4, 0xe6, 0x10, 0xf4, 0xe6, 0x11, 0xf4, 0xeb, 0xfe];
/// Where that endless loop is.
const LOOP: usize = CODE + 8;

/// A VM with an in-kernel local APIC; `None`, and a word why, without KVM.
fn vm() -> Option<Arc<VmFd>> {
    let kvm = match Kvm::new() {
        Ok(kvm) => kvm,
        Err(error) => {
            println!("SKIPPED: /dev/kvm: {error}");
            return None;
        }
    };
    let vm = kvm.create_vm().unwrap();
    vm.create_irq_chip().unwrap();
    let size = 0x2000;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new anonymous mapping, which overlaps nothing.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), size, protection, flags, -1, 0) };
    assert_ne!(memory, libc::MAP_FAILED);
    // SAFETY: the mapping is `size` bytes and writable, and CODE and the
    // program behind it end before that; nobody else has it yet.
    let memory = unsafe { std::slice::from_raw_parts_mut(memory.cast::<u8>(), size) };
    memory[CODE..][..PROGRAM.len()].copy_from_slice(PROGRAM);
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 0,
        guest_phys_addr: 0,
        memory_size: size as u64,
        userspace_addr: memory.as_ptr() as u64,
    };
    // SAFETY: the mapping is never unmapped, so it outlives the VM, and from
    // here on only the guest uses it.
    unsafe { vm.set_user_memory_region(region) }.unwrap();
    Some(Arc::new(vm))
}

/// A vCPU at the start of the program, its local APIC as a guest leaves it:
/// until it is programmed, KVM does not have it on its map.
fn vcpu(vm: &VmFd, id: u32) -> VcpuFd {
    let vcpu = vm.create_vcpu(id.into()).unwrap();
    // All but the first one wait for a SIPI otherwise.
    let running = kvm_mp_state {
        mp_state: KVM_MP_STATE_RUNNABLE,
    };
    vcpu.set_mp_state(running).unwrap();
    let mut sregs = vcpu.get_sregs().unwrap();
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vcpu.set_sregs(&sregs).unwrap();
    let mut regs = vcpu.get_regs().unwrap();
    (regs.rip, regs.rflags) = (CODE as u64, 2);
    vcpu.set_regs(&regs).unwrap();
    vcpu
}

fn program_lapic(vcpu: &VcpuFd) {
    // The spurious interrupt vector register: vector 0xff, APIC enabled.
    const SPIV: usize = 0xf0;
    let mut lapic = vcpu.get_lapic().unwrap();
    for (byte, value) in lapic.regs[SPIV..][..4]
        .iter_mut()
        .zip(0x1ff_u32.to_le_bytes())
    {
        *byte = value.cast_signed();
    }
    vcpu.set_lapic(&lapic).unwrap();
}

/// Runs the guest on a thread of its own; gives the ports it writes to. It is
/// left behind, halted, when the test ends.
fn run(mut vcpu: VcpuFd) -> Receiver<u16> {
    let (ports, seen) = channel();
    thread::spawn(move || {
        loop {
            match vcpu.run() {
                Ok(VcpuExit::IoOut(port, _)) if ports.send(port).is_ok() => {}
                other => panic!("{other:?}"),
            }
        }
    });
    seen
}

#[test]
fn cli_hlt_is_woken_by_a_kick() {
    let Some(vm) = vm() else { return };
    let kick = KvmKick::new(Arc::clone(&vm));
    let vcpu = vcpu(&vm, 0);
    program_lapic(&vcpu);
    let ports = run(vcpu);
    for port in [0x10, 0x11] {
        ports.recv_timeout(A_WHILE).expect_err("it halts");
        assert_eq!(kick.kick(ApicId(0)), Ok(true));
        assert_eq!(ports.recv_timeout(LONG), Ok(port));
    }
    assert_eq!((kick.delivered(), kick.undelivered()), (2, 0));
}

#[test]
fn a_kick_before_the_halt_is_kept_and_coalesces() {
    let Some(vm) = vm() else { return };
    let kick = KvmKick::new(Arc::clone(&vm));
    let vcpu = vcpu(&vm, 0);
    program_lapic(&vcpu);
    assert_eq!(kick.kick(ApicId(0)), Ok(true));
    assert_eq!(kick.kick(ApicId(0)), Ok(true));
    let ports = run(vcpu);
    assert_eq!(ports.recv_timeout(LONG), Ok(0x10));
    ports.recv_timeout(A_WHILE).expect_err("two kicks were one");
}

#[test]
fn an_absent_id_is_counted() {
    let Some(vm) = vm() else { return };
    let kick = KvmKick::new(Arc::clone(&vm));
    let vcpu = vcpu(&vm, 0);
    assert_eq!(kick.kick(ApicId(0)), Ok(false), "not programmed yet");
    program_lapic(&vcpu);
    assert_eq!(kick.kick(ApicId(0)), Ok(true));
    for absent in [1, 254] {
        assert_eq!(kick.kick(ApicId(absent)), Ok(false));
    }
    assert_eq!((kick.delivered(), kick.undelivered()), (1, 3));
    for id in [255, 256, u32::MAX] {
        assert_eq!(
            kick.kick(ApicId(id)),
            Err(KvmKickError::OutOfReach(ApicId(id)))
        );
    }
}

#[test]
fn an_irqfd_kicks() {
    let Some(vm) = vm() else { return };
    const GSI: u32 = 5;
    let kick = KvmKick::new(Arc::clone(&vm));
    let vcpu = vcpu(&vm, 0);
    program_lapic(&vcpu);
    let entry = kick.routing_entry(GSI, ApicId(0)).unwrap();
    let routing = KvmIrqRouting::from_entries(&[entry]).unwrap();
    vm.set_gsi_routing(&routing).unwrap();
    let fd = kick.irqfd(GSI).unwrap();
    let ports = run(vcpu);
    for port in [0x10, 0x11] {
        ports.recv_timeout(A_WHILE).expect_err("it halts");
        fd.kick().unwrap();
        assert_eq!(ports.recv_timeout(LONG), Ok(port));
    }
}

#[test]
fn ids_above_255_are_kicked() {
    let Some(vm) = vm() else { return };
    let kick = match KvmKick::with_32bit_ids(Arc::clone(&vm)) {
        Ok(kick) => kick,
        Err(error) => return println!("SKIPPED: {error}"),
    };
    let ids = [0x12c, 0x12e];
    let ports = ids.map(|id| {
        let vcpu = vcpu(&vm, id);
        program_lapic(&vcpu);
        run(vcpu)
    });
    for (id, ports) in ids.iter().zip(&ports) {
        assert_eq!(kick.kick(ApicId(*id)), Ok(true), "{id:#x}");
        assert_eq!(ports.recv_timeout(LONG), Ok(0x10), "{id:#x}");
    }
    for absent in [0x12b, 0x12d, 0x1_012c, 0xfe] {
        assert_eq!(kick.kick(ApicId(absent)), Ok(false), "{absent:#x}");
    }
    for ports in &ports {
        ports
            .recv_timeout(A_WHILE)
            .expect_err("nobody else was kicked");
    }
    assert_eq!(
        kick.kick(ApicId(u32::MAX)),
        Err(KvmKickError::OutOfReach(ApicId(u32::MAX)))
    );
}

#[test]
fn a_broadcast_kicks_all() {
    let Some(vm) = vm() else { return };
    let kick = KvmKick::new(Arc::clone(&vm));
    let ports = [0, 1].map(|id| {
        let vcpu = vcpu(&vm, id);
        program_lapic(&vcpu);
        run(vcpu)
    });
    assert_eq!(kick.kick_all(), Ok(2));
    for ports in &ports {
        assert_eq!(ports.recv_timeout(LONG), Ok(0x10));
    }
}

#[test]
fn a_vm_without_a_vcpu_has_nobody_to_kick() {
    let Some(vm) = vm() else { return };
    let kick = KvmKick::new(vm);
    assert_eq!((kick.kick(ApicId(0)), kick.kick_all()), (Ok(false), Ok(0)));
    assert_eq!((kick.delivered(), kick.undelivered()), (0, 2));
}

#[test]
fn without_an_in_kernel_apic_there_is_nobody_to_kick() {
    let Ok(kvm) = Kvm::new() else {
        return println!("SKIPPED: no /dev/kvm");
    };
    let vm = kvm.create_vm().unwrap();
    match KvmKick::new(Arc::new(vm)).kick(ApicId(0)) {
        Err(KvmKickError::Ioctl { name, errno }) => {
            assert_eq!((name, errno), ("KVM_SIGNAL_MSI", libc::EINVAL));
        }
        other => panic!("{other:?}"),
    }
}

extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

#[test]
fn a_vcpu_leaves_its_guest_whenever_it_is_asked() {
    let Some(vm) = vm() else { return };
    register_signal_handler(SIGRTMIN(), nothing).unwrap();
    let mut vcpu = vcpu(&vm, 0);
    let mut regs = vcpu.get_regs().unwrap();
    regs.rip = LOOP as u64;
    vcpu.set_regs(&regs).unwrap();
    let exit = Arc::new(ImmediateExit::of_vcpu(&vcpu).unwrap());
    let own = Arc::clone(&exit);
    let (left, leaves) = channel();
    let thread = thread::spawn(move || {
        // Without an exit the loop would run for ever.
        while let Err(error) = vcpu.run() {
            let asked = own.take();
            if left.send((error.errno(), asked)).is_err() {
                return;
            }
        }
        panic!("the loop has no exits of its own");
    });
    // At any moment: before the run, on its way into it, in the guest.
    for pause in (0..50).map(|n| Duration::from_micros(n * 20)) {
        thread::sleep(pause);
        exit.set();
        thread.kill(SIGRTMIN()).unwrap();
        // The byte may have ended one run and the signal the next.
        let leaves = std::iter::repeat_with(|| leaves.recv_timeout(LONG).unwrap());
        let mut asked = leaves.inspect(|(errno, _)| assert_eq!(*errno, libc::EINTR));
        assert!(asked.any(|(_, asked)| asked));
    }
    drop(leaves);
    exit.set();
    thread.kill(SIGRTMIN()).unwrap();
    thread.join().unwrap();
}

/// A file can be mapped, and its bytes be set: it is no vCPU all the same.
#[test]
fn a_file_is_no_vcpu() {
    let path = std::env::temp_dir().join(format!("pv-lock-host-{}", std::process::id()));
    std::fs::write(&path, [0; 4096]).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(&path);
    let refused = ImmediateExit::of_vcpu(&file.unwrap()).map(drop);
    std::fs::remove_file(path).unwrap();
    assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::ENODEV));
    let device = std::fs::File::open("/dev/zero").unwrap();
    assert!(ImmediateExit::of_vcpu(&device).is_err());
}

#[test]
fn a_descriptor_that_is_none_is_refused() {
    // A number of a descriptor is one that anybody may have made up.
    let error = ImmediateExit::of_vcpu(&-1).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EBADF));
    match KvmKick::new(-1).kick(ApicId(0)) {
        Err(error @ KvmKickError::Ioctl { name, errno }) => {
            assert_eq!((name, errno), ("KVM_SIGNAL_MSI", libc::EBADF));
            assert!(
                error
                    .to_string()
                    .starts_with("KVM_SIGNAL_MSI: Bad file descriptor")
            );
        }
        other => panic!("{other:?}"),
    }
    // Neither a VM's nor a vCPU's.
    let file = std::fs::File::open("/dev/null").unwrap();
    match KvmKick::new(file).kick_all() {
        Err(KvmKickError::Ioctl { errno, .. }) => assert_eq!(errno, libc::ENOTTY),
        other => panic!("{other:?}"),
    }
}
