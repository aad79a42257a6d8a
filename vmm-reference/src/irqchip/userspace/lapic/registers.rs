//! The registers by number: the offset in the xAPIC page divided by 16, and the
//! MSR minus 0x800 (SDM, "Local APIC Register Address Map").

pub(super) const ID: u32 = 0x02;
pub(super) const VERSION: u32 = 0x03;
pub(super) const TPR: u32 = 0x08;
/// Arbitration priority: unused since the Pentium 4, and not in x2APIC mode.
pub(super) const APR: u32 = 0x09;
pub(super) const PPR: u32 = 0x0a;
pub(super) const EOI: u32 = 0x0b;
/// Remote read: as [`APR`].
pub(super) const RRD: u32 = 0x0c;
pub(super) const LDR: u32 = 0x0d;
pub(super) const DFR: u32 = 0x0e;
pub(super) const SVR: u32 = 0x0f;
pub(super) const ISR: u32 = 0x10;
pub(super) const ISR_LAST: u32 = ISR + 7;
pub(super) const TMR: u32 = 0x18;
pub(super) const TMR_LAST: u32 = TMR + 7;
pub(super) const IRR: u32 = 0x20;
pub(super) const IRR_LAST: u32 = IRR + 7;
pub(super) const ESR: u32 = 0x28;
pub(super) const ICR: u32 = 0x30;
pub(super) const ICR_HIGH: u32 = 0x31;
pub(super) const LVT: u32 = 0x32;
pub(super) const LVT_LAST: u32 = 0x37;
pub(super) const INITIAL_COUNT: u32 = 0x38;
pub(super) const CURRENT_COUNT: u32 = 0x39;
pub(super) const DIVIDE: u32 = 0x3e;
pub(super) const SELF_IPI: u32 = 0x3f;

/// Version 0x14, six LVT entries, no suppression of EOI broadcasts.
pub(super) const VERSION_VALUE: u32 = 0x0005_0014;
/// The first x2APIC MSR, and how many there are.
pub(super) const MSR_BASE: u32 = 0x800;
pub(super) const MSR_COUNT: u32 = 0x100;
/// A register each 16 bytes.
pub(super) const STRIDE: u64 = 16;

/// Registers that a caller may want to tell apart: those that are written often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// End of interrupt.
    Eoi,
    /// Interrupt command, the half that sends.
    Icr,
    /// The timer's initial count.
    InitialCount,
}

impl Register {
    /// At this offset of the page.
    pub fn at(offset: u64) -> Option<Self> {
        u32::try_from(offset / STRIDE).ok().and_then(Self::of)
    }

    /// Of this MSR.
    pub fn of_msr(index: u32) -> Option<Self> {
        index.checked_sub(MSR_BASE).and_then(Self::of)
    }

    fn of(register: u32) -> Option<Self> {
        match register {
            EOI => Some(Self::Eoi),
            ICR => Some(Self::Icr),
            INITIAL_COUNT => Some(Self::InitialCount),
            _ => None,
        }
    }
}

/// Spurious interrupt vector register.
pub(super) mod svr {
    /// Vector of a spurious interrupt; as of reset.
    pub(crate) const VECTOR: u32 = 0xff;
    pub(crate) const SOFTWARE_ENABLED: u32 = 1 << 8;
    /// Without meaning since the Pentium 4, but old code sets it.
    pub(crate) const FOCUS_DISABLED: u32 = 1 << 9;
    pub(crate) const WRITABLE: u32 = VECTOR | SOFTWARE_ENABLED | FOCUS_DISABLED;
}

/// Error status register.
pub(super) mod esr {
    pub(crate) const SEND_ILLEGAL_VECTOR: u8 = 1 << 5;
    pub(crate) const RECEIVE_ILLEGAL_VECTOR: u8 = 1 << 6;
    pub(crate) const ILLEGAL_REGISTER: u8 = 1 << 7;
}
