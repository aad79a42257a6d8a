//! Bits of x86 control registers that start states are made of.

/// Protected mode.
pub(crate) const CR0_PE: u64 = 1 << 0;
/// Floating-point errors by exception.
pub(crate) const CR0_NE: u64 = 1 << 5;
/// Paging.
pub(crate) const CR0_PG: u64 = 1 << 31;
/// Page table entries of 64 bits.
pub(crate) const CR4_PAE: u64 = 1 << 5;
/// Long mode, once there is paging.
pub(crate) const EFER_LME: u64 = 1 << 8;
/// Long mode is active.
pub(crate) const EFER_LMA: u64 = 1 << 10;
/// Bit 1 of RFLAGS always reads as one; IF stays clear: a waiter of the seed's
/// protocol halts with interrupts off.
pub(crate) const RFLAGS_RESERVED: u64 = 1 << 1;
/// MSR: local APIC on or off, its mode, and its page.
pub(crate) const IA32_APIC_BASE: u32 = 0x1b;
/// In its value: x2APIC mode.
pub(crate) const APIC_BASE_X2APIC: u64 = 1 << 10;
