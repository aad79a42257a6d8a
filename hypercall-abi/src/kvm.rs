//! Conversions from and to `kvm-bindings`' register and exit structures.

use kvm_bindings::{
    kvm_regs, kvm_sregs, kvm_xen_exit__bindgen_ty_1__bindgen_ty_1 as kvm_xen_hcall,
};

use crate::raw::{Mode, RawHypercall};

/// CR0.PE: out of real mode.
const CR0_PE: u64 = 1;
/// RFLAGS.VM: virtual-8086 mode.
const RFLAGS_VM: u64 = 1 << 17;
/// EFER.LMA: long mode is active.
const EFER_LMA: u64 = 1 << 10;

impl Mode {
    /// The mode of the code that a vCPU with these registers runs: 64 bits with
    /// EFER.LMA and `cs.l`. A guest whose state is protected (SEV-ES, SEV-SNP,
    /// TDX) always calls in 64 bits, and the VMM cannot read its registers.
    ///
    /// ```
    /// use hypercall_abi::Mode;
    /// use kvm_bindings::kvm_sregs;
    ///
    /// assert_eq!(Mode::from_sregs(&kvm_sregs::default()), Mode::Bits32);
    /// ```
    #[inline]
    #[must_use]
    pub const fn from_sregs(sregs: &kvm_sregs) -> Self {
        if sregs.efer & EFER_LMA != 0 && sregs.cs.l != 0 {
            Self::Bits64
        } else {
            Self::Bits32
        }
    }
}

impl RawHypercall {
    /// The hypercall that the registers of a stopped vCPU hold, mode and CPL
    /// included: for a [`doorbell`](crate::doorbell).
    ///
    /// The CPL is what KVM goes by (`get_cpl`): 0 in real mode, 3 in
    /// virtual-8086 mode, else the privilege level of `ss`.
    ///
    /// ```
    /// use hypercall_abi::{Hypercall, KVM_HC_KICK_CPU, KickCpu, Mode, RawHypercall};
    /// use kvm_bindings::{kvm_regs, kvm_sregs};
    ///
    /// let mut sregs = kvm_sregs { cr0: 0x8000_0001, efer: 0x500, ..kvm_sregs::default() };
    /// sregs.cs.l = 1;
    /// let regs = kvm_regs { rax: KVM_HC_KICK_CPU, rcx: 3, ..kvm_regs::default() };
    /// let call = RawHypercall::from_vcpu(&regs, &sregs);
    /// assert_eq!((call.mode, call.cpl), (Mode::Bits64, 0));
    /// assert_eq!(call.decode(), Hypercall::KickCpu(KickCpu::new(3)));
    /// ```
    #[inline]
    #[must_use]
    pub const fn from_vcpu(regs: &kvm_regs, sregs: &kvm_sregs) -> Self {
        let cpl = if sregs.cr0 & CR0_PE == 0 {
            0
        } else if regs.rflags & RFLAGS_VM != 0 {
            3
        } else {
            // Two bits, whatever a VMM wrote there.
            sregs.ss.dpl & 3
        };
        Self::from_regs(regs, Mode::from_sregs(sregs), cpl)
    }

    /// The hypercall that the registers of a stopped vCPU hold: for a
    /// [`doorbell`](crate::doorbell), and for a `KVM_EXIT_XEN`.
    ///
    /// `mode` and `cpl` are the vCPU's; [`from_vcpu`](Self::from_vcpu), where
    /// there is an example, works them out.
    #[inline]
    #[must_use]
    pub const fn from_regs(regs: &kvm_regs, mode: Mode, cpl: u8) -> Self {
        Self {
            nr: regs.rax,
            args: [regs.rbx, regs.rcx, regs.rdx, regs.rsi],
            mode,
            cpl,
        }
    }

    /// Writes the registers that issue this call: the inverse of
    /// [`from_regs`](Self::from_regs).
    ///
    /// ```
    /// use hypercall_abi::{Hypercall, KickCpu, Mode, RawHypercall};
    ///
    /// let mut regs = kvm_bindings::kvm_regs::default();
    /// let call = Hypercall::KickCpu(KickCpu::new(3)).encode(Mode::Bits64, 0);
    /// call.write_to_regs(&mut regs);
    /// assert_eq!((regs.rax, regs.rcx), (5, 3));
    /// assert_eq!(RawHypercall::from_regs(&regs, Mode::Bits64, 0), call);
    /// ```
    #[inline]
    pub const fn write_to_regs(&self, regs: &mut kvm_regs) {
        let [rbx, rcx, rdx, rsi] = self.args;
        regs.rax = self.nr;
        regs.rbx = rbx;
        regs.rcx = rcx;
        regs.rdx = rdx;
        regs.rsi = rsi;
    }

    /// The hypercall of a `KVM_EXIT_XEN`, which carries mode and CPL, but not
    /// rbx nor rcx in 64-bit mode: the arguments are the registers'.
    ///
    /// KVM has not checked the CPL. The answer goes to the exit's `result`.
    ///
    /// ```
    /// use hypercall_abi::RawHypercall;
    /// use kvm_bindings::{kvm_regs, kvm_xen_exit__bindgen_ty_1__bindgen_ty_1};
    ///
    /// let exit = kvm_xen_exit__bindgen_ty_1__bindgen_ty_1 {
    ///     input: 5, longmode: 1, cpl: 3, ..Default::default()
    /// };
    /// let regs = kvm_regs { rcx: 3, ..kvm_regs::default() };
    /// let call = RawHypercall::from_xen_exit(&exit, &regs);
    /// assert_eq!((call.nr, call.args[1], call.cpl), (5, 3, 3));
    /// ```
    #[inline]
    #[must_use]
    pub const fn from_xen_exit(exit: &kvm_xen_hcall, regs: &kvm_regs) -> Self {
        // 0 to 3; whatever else a VMM invents must not read as 0.
        let cpl = match exit.cpl {
            0 => 0,
            1 => 1,
            2 => 2,
            _ => 3,
        };
        Self {
            nr: exit.input,
            args: [regs.rbx, regs.rcx, regs.rdx, regs.rsi],
            mode: Mode::from_longmode(exit.longmode as u64),
            cpl,
        }
    }
}

/// Writes a hypercall's result, from [`dispatch`](crate::dispatch), where the
/// guest looks for it.
///
/// ```
/// let mut regs = kvm_bindings::kvm_regs::default();
/// hypercall_abi::write_result(&mut regs, 7);
/// assert_eq!(regs.rax, 7);
/// ```
#[inline]
pub const fn write_result(regs: &mut kvm_regs, rax: u64) {
    regs.rax = rax;
}
