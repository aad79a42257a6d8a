//! Interrupts of a VM whose interrupt controllers are this process's: the models
//! of [`irqchip::userspace`](crate::irqchip::userspace), connected.
//!
//! - [`Controllers`]: what the vCPUs share, the bus between APICs and the I/O
//!   APIC, and how a vCPU is told;
//! - [`VcpuApic`]: a vCPU's local APIC, on its thread;
//! - `line`: COM1's interrupt; `timer`: the local APIC's timer while its vCPU runs;
//!   `pv_eoi`: the paravirtual end of an interrupt; `steal_time`: what was stolen
//!   from a vCPU.

mod apic;
mod controllers;
mod line;
#[cfg(test)]
mod noted;
mod pv_eoi;
mod steal_time;
mod timer;

pub use apic::{Readiness, SavedApic, VcpuApic, WhileHalted};
pub use controllers::Controllers;
pub use line::IoApicLine;
