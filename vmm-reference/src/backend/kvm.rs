//! The KVM backend: a vCPU of /dev/kvm.

#![expect(
    unsafe_code,
    reason = "kvm_run's union is read by exit reason, and guest memory is given to KVM"
)]

use std::sync::Arc;

use hypercall_abi::{Mode, RawHypercall, doorbell};
use kvm_bindings::{
    CpuId, KVM_INTERNAL_ERROR_DELIVERY_EV, KVM_INTERNAL_ERROR_EMULATION,
    KVM_INTERNAL_ERROR_SIMUL_EX, KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{SyncReg, VcpuExit, VcpuFd, VmFd};
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

use super::registers::Registers;
use super::{BackendError, Exit, VcpuBackend, Via, xen};
use crate::devices::Bus;
use crate::memory::GuestMemory;

/// For `map_err`: which ioctl it was.
pub fn ioctl(op: &'static str) -> impl FnOnce(vmm_sys_util::errno::Error) -> BackendError {
    move |source| BackendError::Ioctl { op, source }
}

/// Gives all of `memory` to the VM.
pub fn map_memory(vm: &VmFd, memory: &GuestMemory) -> Result<(), BackendError> {
    for (slot, region) in (0u32..).zip(memory.iter()) {
        let userspace_addr = region.as_ptr() as u64;
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr,
        };
        // SAFETY:
        // - `userspace_addr` is the start of a live mapping of `memory_size`
        //   bytes, owned by `memory`;
        // - it outlives the VM's use of it: whoever calls holds `memory` in an
        //   `Arc` for as long as a vCPU of the VM exists (`KvmVcpu::memory`);
        // - regions of `memory` do not overlap, and each has its own slot.
        unsafe { vm.set_user_memory_region(region) }
            .map_err(ioctl("KVM_SET_USER_MEMORY_REGION"))?;
    }
    Ok(())
}

/// A vCPU of /dev/kvm.
#[derive(Debug)]
pub struct KvmVcpu {
    fd: VcpuFd,
    /// The doorbell port is one.
    port: bool,
    /// How the hypercall came that is not yet answered.
    via: Via,
    // Keeps the mapping that KVM uses alive.
    _memory: Arc<GuestMemory>,
}

impl KvmVcpu {
    /// A vCPU whose registers are still those of a reset. `memory` is what
    /// [`map_memory`] gave to its VM.
    pub fn new(mut fd: VcpuFd, memory: Arc<GuestMemory>) -> Self {
        // The registers of a hypercall come with every exit, in the page that
        // is mapped anyway: no ioctl on the way of a kick.
        fd.set_sync_valid_reg(SyncReg::Register);
        Self {
            fd,
            port: false,
            via: Via::Port,
            _memory: memory,
        }
    }

    /// From now on a dword to the doorbell port is a hypercall. Mode and CPL of
    /// the caller come with every exit too; the other doors do without.
    pub fn open_port(&mut self) {
        self.port = true;
        self.fd.set_sync_valid_reg(SyncReg::SystemRegister);
    }

    /// The vCPU's ioctls, for its setup.
    pub fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// Sets the CPUID that the guest sees.
    pub fn set_cpuid(&self, cpuid: &CpuId) -> Result<(), BackendError> {
        self.fd.set_cpuid2(cpuid).map_err(ioctl("KVM_SET_CPUID2"))
    }

    /// What KVM keeps as this vCPU's CPUID.
    pub fn cpuid(&self) -> Result<CpuId, BackendError> {
        self.fd
            .get_cpuid2(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
            .map_err(ioctl("KVM_GET_CPUID2"))
    }

    /// TSC ticks a second, if KVM tells.
    pub fn tsc_hz(&self) -> Option<u64> {
        self.fd
            .get_tsc_khz()
            .ok()
            .filter(|&khz| khz != 0)
            .map(|khz| u64::from(khz) * 1000)
    }

    /// RAX as of the last exit.
    pub fn rax(&self) -> u64 {
        self.fd.sync_regs().regs.rax
    }

    fn came(&mut self, via: Via, call: RawHypercall) -> Exit {
        self.via = via;
        Exit::Hypercall(call, via)
    }

    /// The hypercall in the registers of the last exit.
    fn doorbell(&self) -> RawHypercall {
        let sync = self.fd.sync_regs();
        let long = sync.sregs.efer & super::state::EFER_LMA != 0 && sync.sregs.cs.l != 0;
        let mode = if long { Mode::Bits64 } else { Mode::Bits32 };
        RawHypercall::from_regs(&sync.regs, mode, sync.sregs.ss.dpl)
    }

    fn rip(&self) -> u64 {
        self.fd.get_regs().map_or(0, |regs| regs.rip)
    }

    fn internal_error(&mut self) -> BackendError {
        let run = self.fd.get_kvm_run();
        // SAFETY: the exit reason is KVM_EXIT_INTERNAL_ERROR, for which KVM
        // fills this member of the union; a u32 has no invalid value.
        let suberror = unsafe { run.__bindgen_anon_1.internal.suberror };
        let meaning = match suberror {
            KVM_INTERNAL_ERROR_EMULATION => "an instruction that KVM can't emulate",
            KVM_INTERNAL_ERROR_SIMUL_EX => "an exception while delivering an exception",
            KVM_INTERNAL_ERROR_DELIVERY_EV => "an exit while delivering an event",
            KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON => "an exit that KVM does not know",
            _ => "not a documented one",
        };
        BackendError::Internal {
            suberror,
            meaning,
            rip: self.rip(),
        }
    }
}

impl VcpuBackend for KvmVcpu {
    fn run(&mut self, bus: &Bus) -> Result<Exit, BackendError> {
        let unexpected = match self.fd.run() {
            Ok(VcpuExit::Hlt) => return Ok(Exit::Halt),
            Ok(VcpuExit::IoOut(port, data)) => {
                if self.port
                    && port == u16::from(doorbell::PORT)
                    && data.len() == doorbell::ACCESS_SIZE
                {
                    return Ok(self.came(Via::Port, self.doorbell()));
                }
                return Ok(bus
                    .pio_write(port, data)
                    .map_or(Exit::Interrupted, Exit::Bus));
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                bus.pio_read(port, data);
                return Ok(Exit::Interrupted);
            }
            Ok(VcpuExit::MmioRead(gpa, data)) => {
                bus.mmio_read(gpa, data);
                return Ok(Exit::Interrupted);
            }
            Ok(VcpuExit::MmioWrite(gpa, data)) => {
                bus.mmio_write(gpa, data);
                return Ok(Exit::Interrupted);
            }
            Ok(VcpuExit::Intr) => return Ok(Exit::Interrupted),
            Ok(VcpuExit::Shutdown) => return Ok(Exit::Shutdown),
            Ok(VcpuExit::Hypercall(exit)) => {
                let longmode = u64::from(exit.longmode);
                let call = RawHypercall::from_hypercall_exit(exit.nr, &exit.args, longmode);
                return Ok(self.came(Via::Kvm, call));
            }
            Ok(VcpuExit::Unsupported(reason)) if xen::is_exit(reason) => {
                let regs = self.fd.sync_regs().regs;
                match xen::hypercall(self.fd.get_kvm_run(), &regs) {
                    Some(call) => return Ok(self.came(Via::Xen, call)),
                    None => Some("Xen(not a hypercall)".to_string()),
                }
            }
            Ok(VcpuExit::InternalError) => None,
            Ok(VcpuExit::FailEntry(reason, _)) => {
                return Err(BackendError::FailEntry {
                    reason,
                    rip: self.rip(),
                });
            }
            Ok(other) => Some(format!("{other:?}")),
            // EINTR: a signal. EAGAIN: the vCPU is not runnable yet.
            Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => {
                return Ok(Exit::Interrupted);
            }
            Err(e) => return Err(ioctl("KVM_RUN")(e)),
        };
        Err(match unexpected {
            None => self.internal_error(),
            Some(exit) => BackendError::Unexpected {
                exit,
                rip: self.rip(),
            },
        })
    }

    fn set_result(&mut self, rax: u64) {
        match self.via {
            Via::Port => {
                self.fd.sync_regs_mut().regs.rax = rax;
                self.fd.set_sync_dirty_reg(SyncReg::Register);
            }
            Via::Xen => xen::set_result(self.fd.get_kvm_run(), rax),
            // KVM copies `ret` to RAX when the vCPU runs again.
            Via::Kvm => self.fd.get_kvm_run().__bindgen_anon_1.hypercall.ret = rax,
            // No such vCPU is KVM's.
            Via::Hosted => {}
        }
    }

    fn registers(&self) -> Option<Registers> {
        let (regs, sregs) = (self.fd.get_regs().ok()?, self.fd.get_sregs().ok()?);
        Some(Registers { regs, sregs })
    }
}
