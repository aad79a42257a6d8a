//! ioctl requests by name. The numbers follow from the kernel's headers:
//! `include/uapi/linux/kvm.h` for KVM's.

use core::mem::size_of;

use kvm_bindings::{
    KVMIO, kvm_clock_data, kvm_cpuid2, kvm_debugregs, kvm_guest_debug, kvm_interrupt,
    kvm_irq_level, kvm_irqchip, kvm_lapic_state, kvm_mp_state, kvm_msi, kvm_msrs, kvm_pit_state2,
    kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xen_vcpu_attr,
};
use vmm_sys_util::ioctl::{_IOC_NONE, _IOC_READ, _IOC_WRITE, ioctl_expr};

/// A request, or a family of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its name in the kernel's headers.
    pub name: &'static str,
    /// The bits of the number that tell.
    pub mask: u32,
    /// The value of these bits.
    pub number: u32,
}

const fn request(name: &'static str, number: u64) -> Request {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a request has 32 bits: the kernel takes an unsigned int"
    )]
    let number = number as u32;
    Request {
        name,
        mask: u32::MAX,
        number,
    }
}

const fn kvm(name: &'static str, direction: u32, number: u32, size: usize) -> Request {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the size of a structure that has 14 bits of the request"
    )]
    let size = size as u32;
    request(name, ioctl_expr(direction, KVMIO, number, size))
}

/// Any request of KVM.
pub const ANY_OF_KVM: Request = Request {
    name: "KVM_*",
    mask: 0xff00,
    number: KVMIO << 8,
};
/// Any request of perf events.
pub const ANY_OF_PERF: Request = Request {
    name: "PERF_EVENT_IOC_*",
    mask: 0xff00,
    number: (b'$' as u32) << 8,
};

macro_rules! requests {
    ($($(#[$about:meta])* $name:ident: $direction:expr, $number:literal, $size:expr;)+) => {
        $(
            $(#[$about])*
            pub const $name: Request = kvm(stringify!($name), $direction, $number, $size);
        )+
    };
}

requests! {
    /// Runs the guest.
    KVM_RUN: _IOC_NONE, 0x80, 0;
    /// Reads the general registers.
    KVM_GET_REGS: _IOC_READ, 0x81, size_of::<kvm_regs>();
    /// Sets the general registers.
    KVM_SET_REGS: _IOC_WRITE, 0x82, size_of::<kvm_regs>();
    /// Reads segments and control registers.
    KVM_GET_SREGS: _IOC_READ, 0x83, size_of::<kvm_sregs>();
    /// Sets segments and control registers.
    KVM_SET_SREGS: _IOC_WRITE, 0x84, size_of::<kvm_sregs>();
    /// Queues an interrupt.
    KVM_INTERRUPT: _IOC_WRITE, 0x86, size_of::<kvm_interrupt>();
    /// Sets MSRs.
    KVM_SET_MSRS: _IOC_WRITE, 0x89, size_of::<kvm_msrs>();
    /// Reads KVM's local APIC.
    KVM_GET_LAPIC: _IOC_READ, 0x8e, size_of::<kvm_lapic_state>();
    /// Reads the guest's CPUID.
    KVM_GET_CPUID2: _IOC_READ | _IOC_WRITE, 0x91, size_of::<kvm_cpuid2>();
    /// Sets an interrupt line.
    KVM_IRQ_LINE: _IOC_WRITE, 0x61, size_of::<kvm_irq_level>();
    /// Ends a run of the guest at a debug event.
    KVM_SET_GUEST_DEBUG: _IOC_WRITE, 0x9b, size_of::<kvm_guest_debug>();
    /// Queues an NMI.
    KVM_NMI: _IOC_NONE, 0x9a, 0;
    /// Reads what is queued.
    KVM_GET_VCPU_EVENTS: _IOC_READ, 0x9f, size_of::<kvm_vcpu_events>();
    /// Sets what is queued.
    KVM_SET_VCPU_EVENTS: _IOC_WRITE, 0xa0, size_of::<kvm_vcpu_events>();
    /// Reads the debug registers.
    KVM_GET_DEBUGREGS: _IOC_READ, 0xa1, size_of::<kvm_debugregs>();
    /// Sets the debug registers.
    KVM_SET_DEBUGREGS: _IOC_WRITE, 0xa2, size_of::<kvm_debugregs>();
    /// Reads the paravirtual clock of a VM.
    KVM_GET_CLOCK: _IOC_READ, 0x7c, size_of::<kvm_clock_data>();
    /// Reads one of KVM's interrupt controllers.
    KVM_GET_IRQCHIP: _IOC_READ | _IOC_WRITE, 0x62, size_of::<kvm_irqchip>();
    /// Reads KVM's timer of a PC.
    KVM_GET_PIT2: _IOC_READ, 0x9f, size_of::<kvm_pit_state2>();
    /// Reads whether a vCPU is halted.
    KVM_GET_MP_STATE: _IOC_READ, 0x98, size_of::<kvm_mp_state>();
    /// Reads MSRs.
    KVM_GET_MSRS: _IOC_READ | _IOC_WRITE, 0x88, size_of::<kvm_msrs>();
    /// Reads how fast a TSC is.
    KVM_GET_TSC_KHZ: _IOC_NONE, 0xa3, 0;
    /// Reads registers of the FPU and of vectors: 4 KiB of them.
    KVM_GET_XSAVE: _IOC_READ, 0xa4, 4096;
    /// Reads extended control registers.
    KVM_GET_XCRS: _IOC_READ, 0xa6, size_of::<kvm_xcrs>();
    /// Sends a message-signalled interrupt.
    KVM_SIGNAL_MSI: _IOC_WRITE, 0xa5, size_of::<kvm_msi>();
    /// Sets what KVM does for a vCPU of a Xen guest.
    KVM_XEN_VCPU_SET_ATTR: _IOC_WRITE, 0xcb, size_of::<kvm_xen_vcpu_attr>();
}

/// Sets a terminal's modes.
pub const TCSETS2: Request = request("TCSETS2", libc::TCSETS2);
/// Reads a terminal's modes.
pub const TCGETS: Request = request("TCGETS", libc::TCGETS);
/// Reads a terminal's modes.
pub const TCGETS2: Request = request("TCGETS2", libc::TCGETS2);
/// Reads a terminal's size.
pub const TIOCGWINSZ: Request = request("TIOCGWINSZ", libc::TIOCGWINSZ);
/// Makes a descriptor non-blocking.
pub const FIONBIO: Request = request("FIONBIO", libc::FIONBIO);

#[cfg(test)]
mod tests {
    use super::*;

    /// As strace(1) and the kernel's headers have them on x86-64.
    #[test]
    fn numbers() {
        for (request, number) in [
            (KVM_RUN, 0xae80),
            (KVM_GET_REGS, 0x8090_ae81),
            (KVM_SET_REGS, 0x4090_ae82),
            (KVM_GET_SREGS, 0x8138_ae83),
            (KVM_SET_SREGS, 0x4138_ae84),
            (KVM_INTERRUPT, 0x4004_ae86),
            (KVM_SET_MSRS, 0x4008_ae89),
            (KVM_GET_LAPIC, 0x8400_ae8e),
            (KVM_GET_CPUID2, 0xc008_ae91),
            (KVM_NMI, 0xae9a),
            (KVM_IRQ_LINE, 0x4008_ae61),
            (KVM_SET_GUEST_DEBUG, 0x4048_ae9b),
            (KVM_GET_VCPU_EVENTS, 0x8040_ae9f),
            (KVM_SET_VCPU_EVENTS, 0x4040_aea0),
            (KVM_GET_DEBUGREGS, 0x8080_aea1),
            (KVM_SET_DEBUGREGS, 0x4080_aea2),
            (KVM_SIGNAL_MSI, 0x4020_aea5),
            (KVM_GET_CLOCK, 0x8030_ae7c),
            (KVM_GET_IRQCHIP, 0xc208_ae62),
            (KVM_GET_PIT2, 0x8070_ae9f),
            (KVM_GET_MP_STATE, 0x8004_ae98),
            (KVM_GET_MSRS, 0xc008_ae88),
            (KVM_GET_TSC_KHZ, 0xaea3),
            (KVM_GET_XSAVE, 0x9000_aea4),
            (KVM_GET_XCRS, 0x8188_aea6),
            (KVM_XEN_VCPU_SET_ATTR, 0x4048_aecb),
            (TCSETS2, 0x402c_542b),
            (TCGETS2, 0x802c_542a),
            (FIONBIO, 0x5421),
        ] {
            assert_eq!(request.number, number, "{}", request.name);
        }
        assert_eq!(KVM_RUN.number & ANY_OF_KVM.mask, ANY_OF_KVM.number);
    }
}
