//! What a vCPU's thread needs.

use crate::jail::call::{Call, When, call, call_if};
use crate::jail::request;

/// The rows.
pub const CALLS: &[Call] = &[
    // First of all: it is looked at on every exit.
    call_if(
        libc::SYS_ioctl,
        When::Requests(&[request::KVM_RUN]),
        "runs the guest",
    ),
    call_if(
        libc::SYS_ioctl,
        When::Requests(&[request::KVM_INTERRUPT, request::KVM_NMI]),
        "`--halt userspace`: interrupts that its local APIC delivers",
    ),
    call_if(
        libc::SYS_ioctl,
        When::Requests(&[request::KVM_GET_REGS, request::KVM_GET_SREGS]),
        "registers for an error message; where a hypercall came from; INIT and SIPI",
    ),
    call_if(
        libc::SYS_ioctl,
        When::Requests(&[
            request::KVM_SET_REGS,
            request::KVM_SET_SREGS,
            request::KVM_GET_DEBUGREGS,
            request::KVM_SET_DEBUGREGS,
            request::KVM_GET_VCPU_EVENTS,
            request::KVM_SET_VCPU_EVENTS,
            request::KVM_GET_CPUID2,
        ]),
        "`--halt userspace`: INIT and SIPI, which are a new state of its registers",
    ),
    call_if(
        libc::SYS_ioctl,
        When::Requests(&[request::KVM_SET_MSRS]),
        "`--halt userspace`: the guest's writes of IA32_APIC_BASE, which change its CPUID",
    ),
    call_if(
        libc::SYS_ioctl,
        When::Requests(&[request::KVM_GET_LAPIC]),
        "halts in KVM: whether an interrupt waits for a vCPU that is held",
    ),
    call_if(
        libc::SYS_ioctl,
        When::Requests(&[request::KVM_SIGNAL_MSI]),
        "a kick by port or Xen intercept of a vCPU that halts in KVM",
    ),
    call_if(
        libc::SYS_ioctl,
        When::Requests(&[request::KVM_SET_GUEST_DEBUG]),
        "`--halt userspace`: KVM is kept from an exit of its own for an interrupt",
    ),
    call_if(
        libc::SYS_ioctl,
        When::Requests(&[request::KVM_XEN_VCPU_SET_ATTR]),
        "`--halt userspace`: where KVM records whether the vCPU runs, for its steal time",
    ),
    call_if(
        libc::SYS_ioctl,
        When::Requests(&[request::KVM_IRQ_LINE]),
        "`--test-device`: the guest sets interrupt lines of KVM's controllers",
    ),
    call(
        libc::SYS_pread64,
        "halts in KVM: whether KVM blocks it, from its statistics",
    ),
    call(
        libc::SYS_getcpu,
        "the pCPU on which it wakes another vCPU, where the vDSO can't tell it",
    ),
    call(
        libc::SYS_sched_getaffinity,
        "the scheduler puts a woken vCPU on the waker's pCPU ...",
    ),
    call(libc::SYS_sched_setaffinity, "... and lets it go again"),
    call(
        libc::SYS_timer_create,
        "`--halt userspace`: its local APIC's timer, at its first use",
    ),
    call(libc::SYS_timer_delete, "the same, at its end"),
];
