//! A complete VMM, kvm-ioctls and this crate: one vCPU halts with interrupts
//! off, the other one kicks it through a port.
#![expect(unsafe_code, reason = "a guest needs memory")]

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd};
use pv_lock_host::{ApicId, HaltScheduler, Kicker, VcpuParker};

#[repr(align(4096))]
struct Page([u8; 4096]);

/// Runs one vCPU until the VM ends; gives the status if this one ended it.
fn vcpu_loop(mut vcpu: VcpuFd, mut parker: VcpuParker, kicker: &Kicker) -> Option<u8> {
    loop {
        let reason = match parker.enter() {
            Err(why) => why.into(),
            Ok(()) => match vcpu.run() {
                Ok(VcpuExit::Hlt) => parker.halt(),
                Ok(VcpuExit::IoOut(0x10, &[id])) => {
                    parker.kick_by_guest(ApicId(id.into()));
                    continue;
                }
                Ok(VcpuExit::IoOut(_, data)) => {
                    kicker.stop_all();
                    return data.first().copied();
                }
                Err(e) if e.errno() == libc::EINTR => continue, // a signal: look at enter()
                other => {
                    eprintln!("{:?}: {other:?}", parker.apic_id());
                    kicker.stop_all();
                    return None;
                }
            },
        };
        if !parker.go_on(reason) {
            return None;
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ids = [ApicId(0), ApicId(1)];
    let (scheduler, parkers) = HaltScheduler::new(&ids)?;
    let page = Box::leak(Box::new(Page([0; 4096])));
    // 0: mov al, 1; out 0x10, al; hlt   8: cli; hlt; mov al, 42; out 0xf4, al
    page.0[..14].copy_from_slice(b"\xb0\x01\xe6\x10\xf4\0\0\0\xfa\xf4\xb0\x2a\xe6\xf4");
    let vm = Kvm::new()?.create_vm()?;
    let mut region = kvm_userspace_memory_region::default();
    (region.memory_size, region.userspace_addr) = (4096, page.0.as_ptr() as u64);
    // SAFETY: the page is leaked, so it outlives the VM, and only the guest uses it.
    unsafe { vm.set_user_memory_region(region)? };
    std::thread::scope(|scope| {
        for (parker, rip) in parkers.into_iter().zip([0, 8]) {
            let vcpu = vm.create_vcpu(parker.apic_id().0.into())?;
            let (mut sregs, mut regs) = (vcpu.get_sregs()?, vcpu.get_regs()?);
            (sregs.cs.base, sregs.cs.selector, regs.rip, regs.rflags) = (0, 0, rip, 2);
            vcpu.set_sregs(&sregs)?;
            vcpu.set_regs(&regs)?;
            let kicker = scheduler.kicker();
            scope.spawn(move || vcpu_loop(vcpu, parker, &kicker).map(|s| println!("status {s}")));
        }
        Ok(())
    })
}
