//! A hypercall by port I/O, for hosts on which no hypercall instruction
//! reaches the VMM.
//!
//! KVM answers [`KVM_HC_KICK_CPU`](crate::KVM_HC_KICK_CPU) itself and forwards
//! it to no one; on hosts without hardware virtualization VMCALL does not even
//! complete. A port write always reaches the VMM, as a `KVM_EXIT_IO`. The
//! guest loads the registers as for VMCALL, that is the number in rax and the
//! arguments in rbx, rcx, rdx and rsi, and executes
//!
//! ```text
//! out 0xe5, eax
//! ```
//!
//! The VMM reads the five registers, and writes the result to rax before it
//! runs the vCPU again. The form with an immediate port is part of the
//! convention: the other form names the port in dx, which is an argument here.
//!
//! Unlike VMCALL the instruction is privileged by itself: at CPL 3 without
//! I/O permission it faults in the guest. Where the guest kernel does grant
//! the port, [`dispatch`](crate::dispatch) refuses the call by its CPL.
//!
//! This is a convention of this crate, not of KVM.

/// The I/O port that the guest writes to.
pub const PORT: u8 = 0xe5;

/// Width of the access in bytes, that of eax. An access of any other width is
/// not a hypercall.
pub const ACCESS_SIZE: usize = 4;
