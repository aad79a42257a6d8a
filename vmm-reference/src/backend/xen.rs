//! The Xen intercept: `KVM_XEN_HVM_CONFIG` and `KVM_EXIT_XEN`, which kvm-ioctls does
//! not wrap.
//!
//! With the intercept on, **every** VMCALL and VMMCALL of the guest exits, at
//! any CPL, those few apart that KVM serves for Xen guests at CPL 0
//! (`kvm_xen_hypercall` in `arch/x86/kvm/xen.c`). None of them has the number of
//! a KVM hypercall.

#![expect(
    unsafe_code,
    reason = "an ioctl without a wrapper, and kvm_run's union is read by exit reason"
)]

use hypercall_abi::RawHypercall;
use kvm_bindings::{
    KVM_CAP_XEN_HVM, KVM_EXIT_XEN, KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL, kvm_regs, kvm_run,
    kvm_xen_hvm_config,
};
use kvm_ioctls::{Kvm, VmFd};
use vmm_sys_util::errno;
use vmm_sys_util::ioctl::ioctl_with_ref;

use super::backend_error::{BackendError, ioctl};

/// The request's number, as a function of the macro's making.
mod request {
    use kvm_bindings::{KVMIO, kvm_xen_hvm_config};

    vmm_sys_util::ioctl_iow_nr!(KVM_XEN_HVM_CONFIG, KVMIO, 0x7a, kvm_xen_hvm_config);
}

/// The MSR by which a Xen guest has its hypercall page installed. It has to be
/// one: the intercept works only while some VM of the host has a non-zero MSR.
/// From 2025 on KVM takes 0x40000000 to 0x4fffffff alone; Xen itself uses the
/// first of them.
const HYPERCALL_PAGE_MSR: u32 = 0x4000_0000;

/// `kvm_run.xen.type`.
const KVM_EXIT_XEN_HCALL: u32 = 1;

/// Whether this host's KVM offers the intercept. Whether it works is for a
/// guest to show.
pub fn offered(kvm: &Kvm) -> bool {
    u32::try_from(kvm.check_extension_raw(u64::from(KVM_CAP_XEN_HVM)))
        .is_ok_and(|flags| flags & KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL != 0)
}

/// Makes every hypercall of the VM's guest exit.
///
/// It costs the guest KVM's steal time: with a non-zero MSR KVM keeps Xen's [run
/// states](super::run_states) in its place.
pub fn intercept(vm: &VmFd) -> Result<(), BackendError> {
    let config = kvm_xen_hvm_config {
        flags: KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL,
        msr: HYPERCALL_PAGE_MSR,
        // With the intercept there is no page for KVM to fill.
        ..Default::default()
    };
    // SAFETY: the descriptor is a VM's, and the kernel reads the structure that
    // the request's number gives the size of, for the time of the call.
    let ret = unsafe { ioctl_with_ref(vm, request::KVM_XEN_HVM_CONFIG(), &config) };
    if ret == 0 {
        Ok(())
    } else {
        Err(ioctl("KVM_XEN_HVM_CONFIG")(errno::Error::last()))
    }
}

/// Whether this exit reason is `KVM_EXIT_XEN`.
pub(super) fn is_exit(reason: u32) -> bool {
    reason == KVM_EXIT_XEN
}

/// The hypercall of a `KVM_EXIT_XEN`, with the arguments from the registers: in
/// 64-bit mode the exit has Xen's, which are others than KVM's. None for what
/// is no hypercall.
pub(super) fn hypercall(run: &kvm_run, regs: &kvm_regs) -> Option<RawHypercall> {
    if run.exit_reason != KVM_EXIT_XEN {
        return None;
    }
    // SAFETY: for this exit reason KVM fills this member of the union; all its
    // fields are integers, for which any bits are valid.
    let exit = unsafe { run.__bindgen_anon_1.xen };
    if exit.type_ != KVM_EXIT_XEN_HCALL {
        return None;
    }
    // SAFETY: `hcall` is the union's only member, of integers.
    let call = unsafe { exit.u.hcall };
    Some(RawHypercall::from_xen_exit(&call, regs))
}

/// Answers it: KVM puts `rax` into RAX and steps over the instruction when the
/// vCPU runs again.
pub(super) fn set_result(run: &mut kvm_run, rax: u64) {
    // A write to a union's member of integers: whatever the exit was, the
    // structure lies within it, and KVM reads it for this exit alone.
    run.__bindgen_anon_1.xen.u.hcall.result = rax;
}
