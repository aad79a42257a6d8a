//! A VMM whose vCPUs halt in its own process: their threads, parked by
//! pv-lock-host, made to leave the guest for a pause and a stop. Built with the
//! oldest and with the newest kvm-ioctls.

use std::error::Error;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use kvm_ioctls::{VcpuExit, VcpuFd};
use pv_lock_host::{ApicId, HaltScheduler, ImmediateExit, Kicker, VcpuParker};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

/// The port by which a guest kicks: it writes an APIC ID.
pub const KICK: u16 = 0x10;

/// The rest of the VMM, which serves all other exits.
pub type Devices = fn(ApicId, VcpuExit<'_>);

// ANCHOR: loop
/// Runs one vCPU until the VM is stopped.
fn run(mut vcpu: VcpuFd, mut parker: VcpuParker, exit: &ImmediateExit, devices: Devices) {
    loop {
        exit.take();
        let reason = match parker.enter() {
            Err(why) => why.into(),
            Ok(()) => match vcpu.run() {
                Ok(VcpuExit::Hlt) => parker.halt(),
                Ok(VcpuExit::IoOut(KICK, &[id])) => {
                    parker.kick_by_guest(ApicId(id.into()));
                    continue;
                }
                Ok(other) => {
                    devices(parker.apic_id(), other);
                    continue;
                }
                Err(error) if error.errno() == libc::EINTR => continue, // enter() says why
                Err(error) => return eprintln!("vCPU {}: {error}", parker.apic_id()),
            },
        };
        if !parker.go_on(reason) {
            return;
        }
    }
}
// ANCHOR_END: loop

// ANCHOR: threads
/// The vCPUs of a VM: one thread each, and what makes it leave the guest.
pub struct Vcpus {
    /// For device threads: kicks, and `notify` for an interrupt.
    pub kicker: Kicker,
    threads: Vec<(Arc<ImmediateExit>, JoinHandle<()>)>,
}

extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

impl Vcpus {
    /// Starts the vCPUs, whose APIC IDs are their numbers.
    ///
    /// # Errors
    /// No vCPU, or the system refused something.
    pub fn start(vcpus: Vec<VcpuFd>, devices: Devices) -> Result<Self, Box<dyn Error>> {
        register_signal_handler(SIGRTMIN(), nothing)?;
        let ids: Vec<ApicId> = (0..).map(ApicId).take(vcpus.len()).collect();
        let (scheduler, parkers) = HaltScheduler::new(&ids)?;
        let kicker = scheduler.kicker();
        let mut threads = Vec::new();
        for (vcpu, parker) in vcpus.into_iter().zip(parkers) {
            let exit = Arc::new(ImmediateExit::of_vcpu(&vcpu)?);
            let own = Arc::clone(&exit);
            threads.push((
                exit,
                thread::spawn(move || run(vcpu, parker, &own, devices)),
            ));
        }
        Ok(Self { kicker, threads })
    }

    /// To be called after `kicker.pause_all()` or `kicker.stop_all()`.
    pub fn leave_guest(&self) {
        for (exit, thread) in &self.threads {
            exit.set();
            let _ = thread.kill(SIGRTMIN()); // it fails for a thread that has ended
        }
    }
}
// ANCHOR_END: threads

impl Vcpus {
    /// Stops the VM and waits for its threads.
    ///
    /// # Errors
    /// A thread panicked.
    pub fn stop(self) -> thread::Result<()> {
        self.kicker.stop_all();
        self.leave_guest();
        self.threads
            .into_iter()
            .try_for_each(|(_, thread)| thread.join())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, Instant};

    use kvm_bindings::kvm_userspace_memory_region;
    use kvm_ioctls::Kvm;

    use super::*;

    /// Writes of 42 to port 0xf4 by vCPU 1.
    static WRITTEN: AtomicU32 = AtomicU32::new(0);

    #[repr(align(4096))]
    struct Page([u8; 4096]);

    fn devices(vcpu: ApicId, exit: VcpuExit<'_>) {
        assert_eq!(vcpu, ApicId(1));
        assert!(matches!(exit, VcpuExit::IoOut(0xf4, &[42])), "{exit:?}");
        WRITTEN.fetch_add(1, Ordering::SeqCst);
    }

    #[test]
    fn a_guest_halts_is_kicked_and_made_to_leave() {
        let Ok(kvm) = Kvm::new() else {
            return println!("SKIPPED: no /dev/kvm");
        };
        let vm = kvm.create_vm().unwrap();
        let page = Box::leak(Box::new(Page([0; 4096])));
        // 0: mov al, 1; out 0x10, al; jmp $   (kicks the other one, then spins)
        // 8: cli; hlt; mov al, 42; out 0xf4, al; hlt   (halts twice; one kick)
        page.0[..15].copy_from_slice(b"\xb0\x01\xe6\x10\xeb\xfe\0\0\xfa\xf4\xb0\x2a\xe6\xf4\xf4");
        let region = kvm_userspace_memory_region {
            memory_size: 4096,
            userspace_addr: page.0.as_ptr() as u64,
            ..Default::default()
        };
        // SAFETY: the page is leaked, so it outlives the VM, and only the guest uses it.
        unsafe { vm.set_user_memory_region(region) }.unwrap();
        let vcpus = [0, 8].map(|rip| {
            let vcpu = vm.create_vcpu(rip / 8).unwrap();
            let (mut sregs, mut regs) = (vcpu.get_sregs().unwrap(), vcpu.get_regs().unwrap());
            (sregs.cs.base, sregs.cs.selector, regs.rip, regs.rflags) = (0, 0, rip, 2);
            vcpu.set_sregs(&sregs).unwrap();
            vcpu.set_regs(&regs).unwrap();
            vcpu
        });
        let vcpus = Vcpus::start(vcpus.into(), devices).unwrap();
        let begin = Instant::now();
        while WRITTEN.load(Ordering::SeqCst) == 0 {
            assert!(begin.elapsed() < Duration::from_secs(20), "a kick was lost");
            thread::sleep(Duration::from_millis(1));
        }
        // vCPU 0 spins in the guest, vCPU 1 halts: both come out and go on.
        vcpus.kicker.pause_all();
        vcpus.leave_guest();
        vcpus.kicker.resume_all();
        vcpus.stop().unwrap();
        assert_eq!(WRITTEN.load(Ordering::SeqCst), 1);
    }
}
