//! Where a VM's interrupts come from, and with them who halts its vCPUs.
//!
//! - none: HLT exits, this process parks the vCPU ([`pv_lock_host`]);
//! - [`kernel`]: local APICs, I/O APIC and PIC in KVM, HLT stays there.

pub mod kernel;
mod kick;

pub use kick::KernelSignals;

/// Where a VM's interrupts come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Irqchip {
    /// Nowhere: the embedded guests run with interrupts off.
    None,
    /// KVM's interrupt controllers.
    Kernel,
}
