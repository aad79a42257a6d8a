//! Run states: what KVM records of a vCPU for a Xen guest, in guest memory.
//!
//! With the [Xen intercept](super::xen) on, KVM keeps Xen's record of a vCPU in the
//! place of its own steal time: whether the vCPU runs or the host has preempted it,
//! and how long each state has lasted. It writes them wherever it is told to, each
//! time that the vCPU enters the guest, and when the host preempts it there:
//! `kvm_xen_update_runstate` in `arch/x86/kvm/xen.c`, since Linux 5.12.
//!
//! ```text
//! struct vcpu_runstate_info (include/xen/interface/vcpu.h), of a 64-bit guest
//!  0  u32     state: 0 running, 1 runnable (2 blocked, 3 offline)
//!  4          padding
//!  8  u64     when that state began, ns of the guest's clock
//! 16  u64[4]  ns in each state, in the order of the states
//! 48
//! ```
//!
//! A vCPU that has left KVM_RUN counts as running; of what its thread waits for a
//! pCPU then, the time is counted as runnable when it runs again. One that the host
//! preempts on its way out of KVM_RUN (a signal and the end of its time slice in one)
//! counts as runnable until it runs again, unless KVM is told that it is running.

#![expect(unsafe_code, reason = "ioctls without a wrapper")]

use kvm_bindings::{
    KVM_CAP_XEN_HVM, KVM_XEN_ATTR_TYPE_LONG_MODE, KVM_XEN_HVM_CONFIG_RUNSTATE,
    KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT,
    kvm_xen_hvm_attr, kvm_xen_hvm_attr__bindgen_ty_1, kvm_xen_vcpu_attr,
    kvm_xen_vcpu_attr__bindgen_ty_1,
};
use kvm_ioctls::{Kvm, VmFd};
use vmm_sys_util::errno;
use vmm_sys_util::ioctl::ioctl_with_ref;

use super::backend_error::{BackendError, ioctl};
use super::kvm::KvmVcpu;

/// Bytes of the record.
pub const BYTES: u64 = 48;
/// Where in it the state is, a dword.
pub const STATE: u64 = 0;
/// The state of a vCPU that could run and does not.
pub const RUNNABLE: u8 = 1;
/// Where in it the nanoseconds of that state are, a quadword.
pub const RUNNABLE_NS: u64 = 24;

/// The state of a vCPU that runs.
const RUNNING: u64 = 0;
/// `KVM_XEN_INVALID_GPA`: nowhere.
const NOWHERE: u64 = u64::MAX;

/// The requests' numbers, as functions of the macro's making.
mod request {
    use kvm_bindings::{KVMIO, kvm_xen_hvm_attr, kvm_xen_vcpu_attr};

    vmm_sys_util::ioctl_iow_nr!(KVM_XEN_HVM_SET_ATTR, KVMIO, 0xc9, kvm_xen_hvm_attr);
    vmm_sys_util::ioctl_iow_nr!(KVM_XEN_VCPU_SET_ATTR, KVMIO, 0xcb, kvm_xen_vcpu_attr);
}

/// Whether this host's KVM records them.
pub fn offered(kvm: &Kvm) -> bool {
    u32::try_from(kvm.check_extension_raw(u64::from(KVM_CAP_XEN_HVM)))
        .is_ok_and(|flags| flags & KVM_XEN_HVM_CONFIG_RUNSTATE != 0)
}

/// The VM's records are those of a 64-bit guest from now on.
///
/// # Errors
/// KVM_XEN_HVM_SET_ATTR failed.
pub fn of_64_bits(vm: &VmFd) -> Result<(), BackendError> {
    // All bytes of the union are written: the kernel reads them all.
    let mut value = kvm_xen_hvm_attr__bindgen_ty_1 { pad: [0; 8] };
    value.long_mode = 1;
    let attr = kvm_xen_hvm_attr {
        type_: attribute(KVM_XEN_ATTR_TYPE_LONG_MODE),
        pad: [0; 3],
        u: value,
    };
    // SAFETY: the descriptor is a VM's, and the kernel reads the structure that
    // the request's number gives the size of, for the time of the call.
    let ret = unsafe { ioctl_with_ref(vm, request::KVM_XEN_HVM_SET_ATTR(), &attr) };
    match ret {
        0 => Ok(()),
        _ => Err(ioctl("KVM_XEN_HVM_SET_ATTR")(errno::Error::last())),
    }
}

impl KvmVcpu {
    /// KVM writes this vCPU's record there from now on, or nowhere.
    pub(super) fn record_run_states(&self, at: Option<u64>) -> Result<(), BackendError> {
        let gpa = at.unwrap_or(NOWHERE);
        self.set_attribute(KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR, gpa)
    }

    /// KVM takes this vCPU as running from now on.
    pub(super) fn record_running(&self) -> Result<(), BackendError> {
        self.set_attribute(KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT, RUNNING)
    }

    /// Sets an attribute whose value is a quadword, the first of the union.
    fn set_attribute(&self, number: u32, value: u64) -> Result<(), BackendError> {
        // All bytes of the union are written: the kernel reads them all.
        let mut pad = [0; 8];
        pad[0] = value;
        let attr = kvm_xen_vcpu_attr {
            type_: attribute(number),
            pad: [0; 3],
            u: kvm_xen_vcpu_attr__bindgen_ty_1 { pad },
        };
        // SAFETY: as above, and the descriptor is a vCPU's. KVM writes to guest
        // memory only, by its GPA, as the guest itself does.
        let ret = unsafe { ioctl_with_ref(self.fd(), request::KVM_XEN_VCPU_SET_ATTR(), &attr) };
        match ret {
            0 => Ok(()),
            _ => Err(ioctl("KVM_XEN_VCPU_SET_ATTR")(errno::Error::last())),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the kernel's types are small numbers, in a field of 16 bits"
)]
const fn attribute(number: u32) -> u16 {
    number as u16
}
