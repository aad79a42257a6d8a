//! Interrupt controllers.
//!
//! - [`kernel`]: local APICs, I/O APIC and PIC in KVM, which a VM has exactly if
//!   KVM halts its vCPUs: HLT does not leave the kernel then;
//! - [`KernelSignals`]: kicks and interrupts for the vCPUs of such a VM.

pub mod kernel;
mod kick;
pub mod userspace;

pub use kernel::KernelLines;
pub use kick::KernelSignals;
