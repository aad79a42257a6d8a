//! Conversions from and to `kvm-bindings`' register and exit structures.

use kvm_bindings::{kvm_regs, kvm_xen_exit__bindgen_ty_1__bindgen_ty_1 as kvm_xen_hcall};

use crate::raw::{Mode, RawHypercall};

impl RawHypercall {
    /// The hypercall that the registers of a stopped vCPU hold: for a
    /// [`doorbell`](crate::doorbell), and for a `KVM_EXIT_XEN`.
    ///
    /// `mode` and `cpl` are the vCPU's, from `kvm_sregs`: 64 bits with
    /// EFER.LMA and `cs.l`, the CPL in `ss.dpl`.
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
#[inline]
pub const fn write_result(regs: &mut kvm_regs, rax: u64) {
    regs.rax = rax;
}
