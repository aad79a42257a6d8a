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

use super::backend_error::{BackendError, ioctl};
use super::exit::{Exit, Interruptible, PrivateIo, VcpuBackend};
use super::exit_request::ExitRequest;
use super::injection::Injection;
use super::registers::Registers;
use super::saved::SavedVcpu;
use super::{x86, xen};
use crate::devices::Bus;
use crate::memory::GuestMemory;
use crate::stats::{Event, VcpuCounts};

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

/// What an exit is counted as.
fn event(ran: &Result<VcpuExit<'_>, vmm_sys_util::errno::Error>) -> Event {
    match ran {
        Ok(VcpuExit::Hlt) => Event::ExitHlt,
        Ok(VcpuExit::IoIn(..) | VcpuExit::IoOut(..)) => Event::ExitPio,
        Ok(VcpuExit::MmioRead(..) | VcpuExit::MmioWrite(..)) => Event::ExitMmio,
        Ok(VcpuExit::X86Rdmsr(_) | VcpuExit::X86Wrmsr(_)) => Event::ExitMsr,
        Ok(VcpuExit::IrqWindowOpen) => Event::ExitWindow,
        Ok(VcpuExit::Hypercall(_)) => Event::ExitHypercall,
        Ok(VcpuExit::Unsupported(reason)) if xen::is_exit(*reason) => Event::ExitHypercall,
        Ok(VcpuExit::Intr) | Err(_) => Event::ExitSignal,
        Ok(_) => Event::ExitOther,
    }
}

/// Where the answer to a hypercall goes, by its transport.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// The doorbell: into RAX, by the synced registers.
    Rax,
    /// KVM_EXIT_XEN: into that exit's part of `kvm_run`.
    Xen,
    /// KVM_EXIT_HYPERCALL: likewise.
    Hypercall,
}

/// A vCPU of /dev/kvm.
#[derive(Debug)]
pub struct KvmVcpu {
    fd: VcpuFd,
    /// A dword to the doorbell port is a hypercall.
    doorbell: bool,
    /// Where the answer to the hypercall goes that the last exit was.
    answer: Answer,
    injection: Injection,
    exit_request: Arc<ExitRequest>,
    counts: Arc<VcpuCounts>,
    // Keeps the mapping that KVM uses alive.
    _memory: Arc<GuestMemory>,
}

impl KvmVcpu {
    /// A vCPU whose registers are still those of a reset. `memory` is what
    /// [`map_memory`] gave to its VM.
    ///
    /// # Errors
    /// `kvm_run` can't be mapped a second time.
    pub fn new(mut fd: VcpuFd, memory: Arc<GuestMemory>) -> Result<Self, BackendError> {
        // The registers of a hypercall come with every exit, in the page that
        // is mapped anyway: a kick takes no ioctl but KVM_RUN.
        fd.set_sync_valid_reg(SyncReg::Register);
        Ok(Self {
            exit_request: Arc::new(ExitRequest::of_vcpu(&fd)?),
            fd,
            doorbell: false,
            answer: Answer::Rax,
            injection: Injection::default(),
            counts: Arc::default(),
            _memory: memory,
        })
    }

    /// From now on a dword to the doorbell port is a hypercall. Mode and CPL of
    /// the caller come with every exit too; the other transports do without.
    pub fn open_doorbell(&mut self) {
        self.doorbell = true;
        self.fd.set_sync_valid_reg(SyncReg::SystemRegister);
    }

    /// The vCPU's ioctls, for its setup.
    pub fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// The vCPU's ioctls and `kvm_run`.
    pub(super) fn fd_mut(&mut self) -> &mut VcpuFd {
        &mut self.fd
    }

    /// From now on an interrupt costs no exit by itself, if this KVM can do that. For
    /// a vCPU without a local APIC in KVM.
    ///
    /// # Errors
    /// KVM_SET_GUEST_DEBUG failed.
    pub fn inject_without_exit(&mut self, vm: &VmFd) -> Result<(), BackendError> {
        self.injection = Injection::without_exit(vm, &self.fd)?;
        Ok(())
    }

    /// An interrupt is about to be queued.
    pub(super) fn before_interrupt(&mut self) -> Result<(), BackendError> {
        self.injection.before_interrupt(&self.fd)
    }

    /// An NMI is about to be queued.
    pub(super) fn before_nmi(&mut self) -> Result<(), BackendError> {
        self.injection.before_nmi(&self.fd)
    }

    /// Has KVM finish the instruction that the last exit was for, so that what is
    /// set afterwards stays.
    pub(super) fn complete(&mut self) {
        self.exit_request.set();
        // It can but return EINTR: the request is there.
        let _ = self.fd.run();
        self.exit_request.take();
    }

    /// Its exits, counted.
    pub fn counts(&self) -> &Arc<VcpuCounts> {
        &self.counts
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

    /// TSC ticks a second, if KVM knows them.
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

    fn hypercall(&mut self, call: RawHypercall, answer: Answer) -> Exit {
        self.answer = answer;
        Exit::Hypercall(call)
    }

    /// The hypercall in the registers of the last exit.
    fn doorbell_call(&self) -> RawHypercall {
        let sync = self.fd.sync_regs();
        let long = sync.sregs.efer & x86::EFER_LMA != 0 && sync.sregs.cs.l != 0;
        let mode = if long { Mode::Bits64 } else { Mode::Bits32 };
        RawHypercall::from_regs(&sync.regs, mode, sync.sregs.ss.dpl)
    }

    /// Bytes of each element of the port I/O that the last exit was: `rep ins` and
    /// `rep outs` bring many at once, and all of them are for the one port.
    fn element_size(&mut self) -> usize {
        let run = self.fd.get_kvm_run();
        // SAFETY: the exit reason is KVM_EXIT_IO, for which KVM fills this member of
        // the union; a u8 has no invalid value.
        let size = unsafe { run.__bindgen_anon_1.io.size };
        usize::from(size.max(1))
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
    fn has_interrupt(&self) -> bool {
        /// Where the IRR begins in the page of a local APIC: eight words of 32
        /// bits, 16 bytes apart (SDM volume 3, local APIC register address map).
        const IRR: usize = 0x200;
        // It fails only without a local APIC in KVM, and then nothing waits there.
        let Ok(lapic) = self.fd.get_lapic() else {
            return false;
        };
        let word = |n: usize| lapic.regs.get(IRR + n * 16..IRR + n * 16 + 4);
        (0..8).filter_map(word).flatten().any(|&byte| byte != 0)
    }

    fn run(&mut self, bus: &Bus, own: &mut dyn PrivateIo) -> Result<Exit, BackendError> {
        let ran = self.fd.run();
        self.counts.count(event(&ran));
        let unexpected = match ran {
            Ok(VcpuExit::Hlt) => return Ok(Exit::Halt),
            Ok(VcpuExit::IoOut(port, data)) => {
                let data: *const [u8] = data;
                let size = self.element_size();
                // SAFETY: the data of an exit for port I/O stay where they are, in
                // a page of `kvm_run` behind the struct, until the vCPU runs
                // again; nothing of it is written meanwhile.
                let data = unsafe { &*data };
                if self.doorbell
                    && port == u16::from(doorbell::PORT)
                    && data.len() == doorbell::ACCESS_SIZE
                {
                    return Ok(self.hypercall(self.doorbell_call(), Answer::Rax));
                }
                let event = bus.pio_write_string(port, size, data);
                return Ok(event.map_or(Exit::Interrupted, Exit::Bus));
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                let data: *mut [u8] = data;
                let size = self.element_size();
                // SAFETY: as above; and nobody else reads them meanwhile.
                let data = unsafe { &mut *data };
                bus.pio_read_string(port, size, data);
                return Ok(Exit::Interrupted);
            }
            Ok(VcpuExit::MmioRead(gpa, data)) => {
                if !own.mmio_read(gpa, data) {
                    bus.mmio_read(gpa, data);
                }
                return Ok(Exit::Interrupted);
            }
            Ok(VcpuExit::MmioWrite(gpa, data)) => {
                if !own.mmio_write(gpa, data) {
                    bus.mmio_write(gpa, data);
                }
                return Ok(Exit::Interrupted);
            }
            Ok(VcpuExit::X86Rdmsr(exit)) => {
                let value = own.msr_read(exit.index);
                *exit.data = value.unwrap_or(0);
                *exit.error = u8::from(value.is_none());
                return Ok(Exit::Interrupted);
            }
            Ok(VcpuExit::X86Wrmsr(exit)) => {
                let (index, value) = (exit.index, exit.data);
                let taken = own.msr_write(index, value);
                *exit.error = u8::from(!taken);
                if taken && index == x86::IA32_APIC_BASE {
                    self.set_apic_base(value)?;
                }
                return Ok(Exit::Interrupted);
            }
            // Interrupts and CR8 are looked at before each run anyway.
            Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen | VcpuExit::SetTpr) => {
                return Ok(Exit::Interrupted);
            }
            Ok(VcpuExit::Shutdown) => return Ok(Exit::Shutdown),
            Ok(VcpuExit::Hypercall(exit)) => {
                let longmode = u64::from(exit.longmode);
                let call = RawHypercall::from_hypercall_exit(exit.nr, &exit.args, longmode);
                return Ok(self.hypercall(call, Answer::Hypercall));
            }
            Ok(VcpuExit::Unsupported(reason)) if xen::is_exit(reason) => {
                let regs = self.fd.sync_regs().regs;
                match xen::hypercall(self.fd.get_kvm_run(), &regs) {
                    Some(call) => return Ok(self.hypercall(call, Answer::Xen)),
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
            // EINTR: an exit request or a signal. EAGAIN: the vCPU is not runnable yet.
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

    fn interruptible(&mut self) -> Option<&mut dyn Interruptible> {
        Some(self)
    }

    fn set_result(&mut self, rax: u64) {
        match self.answer {
            Answer::Rax => {
                self.fd.sync_regs_mut().regs.rax = rax;
                self.fd.set_sync_dirty_reg(SyncReg::Register);
            }
            Answer::Xen => xen::set_result(self.fd.get_kvm_run(), rax),
            // KVM copies `ret` to RAX when the vCPU runs again.
            Answer::Hypercall => self.fd.get_kvm_run().__bindgen_anon_1.hypercall.ret = rax,
        }
    }

    fn exit_request(&self) -> Arc<ExitRequest> {
        Arc::clone(&self.exit_request)
    }

    fn save(&mut self, msrs: &[u32]) -> Result<SavedVcpu, BackendError> {
        self.complete();
        SavedVcpu::of(&self.fd, msrs)
    }

    fn restore(&mut self, saved: &SavedVcpu) -> Result<(), BackendError> {
        saved.put_into(&self.fd)?;
        if saved.has_nmi() {
            self.injection.before_nmi(&self.fd)?;
        }
        // KVM takes CR8 from here at each run, and says here what the last exit
        // left: whether interrupts are on, for one.
        self.fd.get_kvm_run().cr8 = saved.cr8();
        self.complete();
        Ok(())
    }

    fn registers(&self) -> Option<Registers> {
        let (regs, sregs) = (self.fd.get_regs().ok()?, self.fd.get_sregs().ok()?);
        Some(Registers { regs, sregs })
    }
}
