//! Interrupts into a vCPU for which KVM has no local APIC.
//!
//! KVM then takes one vector at a time, says in `kvm_run` whether it would, and
//! leaves the guest when it will, if it is asked to. INIT and SIPI are register
//! states; accesses to the local APIC's MSRs leave the guest, as invalid ones do.

#![expect(unsafe_code, reason = "an ioctl that kvm-ioctls does not wrap")]

use cpuid_features::msr::Msr;
use kvm_bindings::{
    KVM_CAP_X86_USER_SPACE_MSR, KVM_VCPUEVENT_VALID_NMI_PENDING, KVM_VCPUEVENT_VALID_SHADOW, Msrs,
    kvm_dtable, kvm_enable_cap, kvm_interrupt, kvm_msr_entry, kvm_regs, kvm_segment,
};
use kvm_ioctls::{
    MsrExitReason, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd,
};
use vmm_sys_util::errno;
use vmm_sys_util::ioctl::ioctl_with_ref;

use super::backend_error::{BackendError, ioctl};
use super::exit::Interruptible;
use super::kvm::KvmVcpu;
use super::x86::{IA32_APIC_BASE, RFLAGS_RESERVED};

/// The request's number, as a function of the macro's making.
mod request {
    use kvm_bindings::{KVMIO, kvm_interrupt};

    vmm_sys_util::ioctl_iow_nr!(KVM_INTERRUPT, KVMIO, 0x86, kvm_interrupt);
}

/// Has every access to the MSRs of the local APIC leave the guest, and to these of
/// KVM's own, which are served here; before the first vCPU.
///
/// Those of x2APIC mode are invalid to a KVM without a local APIC. Writes to
/// IA32_APIC_BASE are not, and KVM would do them itself; they are filtered. So are
/// those of KVM's own: it takes values for them, and does not act on them.
///
/// # Errors
/// This KVM can't.
pub fn exit_on_msrs(vm: &VmFd, served: &[Msr]) -> Result<(), BackendError> {
    let reasons = MsrExitReason::Inval | MsrExitReason::Filter;
    let mut cap = kvm_enable_cap {
        cap: KVM_CAP_X86_USER_SPACE_MSR,
        ..Default::default()
    };
    cap.args = [reasons.bits().into(), 0, 0, 0];
    vm.enable_cap(&cap)
        .map_err(ioctl("KVM_ENABLE_CAP(X86_USER_SPACE_MSR)"))?;
    // A bit that is 0: this access is not allowed.
    let writes_of_base = MsrFilterRange {
        flags: MsrFilterRangeFlags::WRITE,
        base: IA32_APIC_BASE,
        msr_count: 1,
        bitmap: &[0],
    };
    let all = |msr: &Msr| MsrFilterRange {
        flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
        base: msr.index,
        ..writes_of_base
    };
    let ranges: Vec<_> = served.iter().map(all).chain([writes_of_base]).collect();
    vm.set_msr_filter(MsrFilterDefaultAction::ALLOW, &ranges)
        .map_err(ioctl("KVM_X86_SET_MSR_FILTER"))
}

impl KvmVcpu {
    /// Does the guest's write to IA32_APIC_BASE, after which CPUID shows whether
    /// the local APIC is on.
    pub(super) fn set_apic_base(&self, value: u64) -> Result<(), BackendError> {
        let entry = kvm_msr_entry {
            index: IA32_APIC_BASE,
            data: value,
            ..Default::default()
        };
        let msrs = Msrs::from_entries(&[entry]).map_err(|_| BackendError::ApicBase(value))?;
        match self.fd().set_msrs(&msrs).map_err(ioctl("KVM_SET_MSRS"))? {
            0 => Err(BackendError::ApicBase(value)),
            _ => Ok(()),
        }
    }

    /// Turns the local APIC off, which KVM does not have but shows in CPUID as long
    /// as IA32_APIC_BASE says that it is on.
    ///
    /// # Errors
    /// KVM refused the value.
    pub fn disable_apic(&self) -> Result<(), BackendError> {
        const ENABLED: u64 = 1 << 11;
        let sregs = self.fd().get_sregs().map_err(ioctl("KVM_GET_SREGS"))?;
        self.set_apic_base(sregs.apic_base & !ENABLED)
    }

    /// The family, model and stepping that an INIT leaves in RDX.
    fn signature(&self) -> Result<u64, BackendError> {
        let cpuid = self.cpuid()?;
        let leaf = cpuid.as_slice().iter().find(|entry| entry.function == 1);
        Ok(leaf.map_or(0, |leaf| leaf.eax.into()))
    }

    /// Forgets what was queued.
    fn clear_events(&self) -> Result<(), BackendError> {
        let fd = self.fd();
        let mut events = fd.get_vcpu_events().map_err(ioctl("KVM_GET_VCPU_EVENTS"))?;
        events.exception = Default::default();
        events.interrupt = Default::default();
        events.nmi = Default::default();
        events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
        fd.set_vcpu_events(&events)
            .map_err(ioctl("KVM_SET_VCPU_EVENTS"))
    }
}

impl Interruptible for KvmVcpu {
    fn interrupts_enabled(&mut self) -> bool {
        self.fd_mut().get_kvm_run().if_flag != 0
    }

    fn accepts_interrupt(&mut self) -> bool {
        let run = self.fd_mut().get_kvm_run();
        run.if_flag != 0 && run.ready_for_interrupt_injection != 0
    }

    fn interrupt(&mut self, vector: u8) -> Result<(), BackendError> {
        self.before_interrupt()?;
        let request = kvm_interrupt { irq: vector.into() };
        // SAFETY: the descriptor is a vCPU's, and the kernel reads the structure
        // that the request's number gives the size of, for the time of the call.
        let ret = unsafe { ioctl_with_ref(self.fd(), request::KVM_INTERRUPT(), &request) };
        if ret != 0 {
            return Err(ioctl("KVM_INTERRUPT")(errno::Error::last()));
        }
        // Of the last exit; KVM says it again at the next.
        self.fd_mut().get_kvm_run().ready_for_interrupt_injection = 0;
        Ok(())
    }

    fn want_window(&mut self, wanted: bool) {
        self.fd_mut().get_kvm_run().request_interrupt_window = wanted.into();
    }

    fn nmi(&mut self) -> Result<(), BackendError> {
        self.before_nmi()?;
        self.fd().nmi().map_err(ioctl("KVM_NMI"))
    }

    fn cr8(&mut self) -> u8 {
        let [cr8, ..] = self.fd_mut().get_kvm_run().cr8.to_le_bytes();
        cr8
    }

    fn set_cr8(&mut self, cr8: u8) {
        self.fd_mut().get_kvm_run().cr8 = cr8.into();
    }

    /// SDM volume 3, table "IA-32 and Intel 64 Processor States Following
    /// Power-up, Reset, or INIT"; `kvm_vcpu_reset` in `arch/x86/kvm/x86.c`.
    fn init(&mut self) -> Result<(), BackendError> {
        self.complete();
        let fd = self.fd();
        let mut sregs = fd.get_sregs().map_err(ioctl("KVM_GET_SREGS"))?;
        let data = segment(0, 0, 0b0011, 1);
        sregs.cs = segment(0xf000, 0xffff_0000, 0b1011, 1);
        (sregs.ds, sregs.es, sregs.ss, sregs.fs, sregs.gs) = (data, data, data, data, data);
        sregs.tr = segment(0, 0, 0b1011, 0);
        sregs.ldt = segment(0, 0, 0b0010, 0);
        let table = kvm_dtable {
            limit: 0xffff,
            ..Default::default()
        };
        (sregs.gdt, sregs.idt) = (table, table);
        // Cache disable and not-write-through stay; ET is always set.
        sregs.cr0 = sregs.cr0 & 0x6000_0000 | 0x10;
        (sregs.cr2, sregs.cr3, sregs.cr4, sregs.efer, sregs.cr8) = (0, 0, 0, 0, 0);
        sregs.interrupt_bitmap = Default::default();
        fd.set_sregs(&sregs).map_err(ioctl("KVM_SET_SREGS"))?;
        let regs = kvm_regs {
            rip: 0xfff0,
            rflags: RFLAGS_RESERVED,
            rdx: self.signature()?,
            ..Default::default()
        };
        fd.set_regs(&regs).map_err(ioctl("KVM_SET_REGS"))?;
        let mut debug = fd.get_debug_regs().map_err(ioctl("KVM_GET_DEBUGREGS"))?;
        (debug.db, debug.dr6, debug.dr7) = ([0; 4], 0xffff_0ff0, 0x400);
        fd.set_debug_regs(&debug)
            .map_err(ioctl("KVM_SET_DEBUGREGS"))?;
        self.clear_events()?;
        // Of the guest before.
        let run = self.fd_mut().get_kvm_run();
        (run.if_flag, run.ready_for_interrupt_injection, run.cr8) = (0, 0, 0);
        Ok(())
    }

    fn startup(&mut self, page: u8) -> Result<(), BackendError> {
        let fd = self.fd();
        let mut sregs = fd.get_sregs().map_err(ioctl("KVM_GET_SREGS"))?;
        sregs.cs.selector = u16::from(page) << 8;
        sregs.cs.base = u64::from(page) << 12;
        fd.set_sregs(&sregs).map_err(ioctl("KVM_SET_SREGS"))?;
        let mut regs = fd.get_regs().map_err(ioctl("KVM_GET_REGS"))?;
        regs.rip = 0;
        fd.set_regs(&regs).map_err(ioctl("KVM_SET_REGS"))
    }

    fn set_run_states(&mut self, at: Option<u64>) -> Result<(), BackendError> {
        self.record_run_states(at)
    }

    fn set_running(&mut self) -> Result<(), BackendError> {
        self.record_running()
    }
}

/// A segment of real mode.
fn segment(selector: u16, base: u64, type_: u8, s: u8) -> kvm_segment {
    kvm_segment {
        selector,
        base,
        limit: 0xffff,
        type_,
        present: 1,
        s,
        ..Default::default()
    }
}
