//! IA32_APIC_BASE: on, off, and in which mode.

use serde::{Deserialize, Serialize};

use super::{Features, GeneralProtection};

/// IA32_APIC_BASE bit 8: this is the bootstrap processor.
pub(super) const BSP: u64 = 1 << 8;
/// Bit 10: x2APIC mode.
pub(super) const X2APIC: u64 = 1 << 10;
/// Bit 11: on.
pub(super) const ENABLED: u64 = 1 << 11;
/// Where the page is after a reset.
pub(super) const RESET_PAGE: u64 = 0xfee0_0000;
const RESERVED: u64 = 0x2ff;
const PAGE_SHIFT: u32 = 12;

/// How the registers are reached, by bits 11 and 10.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Mode {
    /// Not at all: off.
    Disabled,
    /// By the page.
    XApic,
    /// By MSRs.
    X2Apic,
}

impl Mode {
    /// Of a value of IA32_APIC_BASE; that of x2APIC without "on" does not exist.
    pub(super) const fn of(base: u64) -> Option<Self> {
        match (base & ENABLED != 0, base & X2APIC != 0) {
            (false, false) => Some(Self::Disabled),
            (true, false) => Some(Self::XApic),
            (true, true) => Some(Self::X2Apic),
            (false, true) => None,
        }
    }
}

/// What a write to IA32_APIC_BASE does to the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// Off, or on again: they are as after a reset.
    Reset,
    /// xAPIC to x2APIC: they stay, but for those that differ.
    ToX2Apic,
}

/// Checks a write of `new` over `old` (SDM, "x2APIC State Transitions").
pub(super) fn change(old: u64, new: u64, features: &Features) -> Result<Change, GeneralProtection> {
    let beyond = u64::MAX
        .checked_shl(features.physical_address_bits.into())
        .unwrap_or(0);
    if new & (RESERVED | beyond) != 0 {
        return Err(GeneralProtection);
    }
    let before = Mode::of(old).unwrap_or(Mode::Disabled);
    let after = Mode::of(new).ok_or(GeneralProtection)?;
    if after == Mode::X2Apic && !features.x2apic {
        return Err(GeneralProtection);
    }
    match (before, after) {
        (Mode::Disabled, Mode::Disabled)
        | (Mode::XApic, Mode::XApic)
        | (Mode::X2Apic, Mode::X2Apic) => Ok(Change::None),
        (Mode::XApic, Mode::X2Apic) => Ok(Change::ToX2Apic),
        (Mode::XApic | Mode::X2Apic, Mode::Disabled) | (Mode::Disabled, Mode::XApic) => {
            Ok(Change::Reset)
        }
        (Mode::X2Apic, Mode::XApic) | (Mode::Disabled, Mode::X2Apic) => Err(GeneralProtection),
    }
}

/// The page of a value of IA32_APIC_BASE.
pub(super) const fn page(base: u64) -> u64 {
    base >> PAGE_SHIFT << PAGE_SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figure "Local x2APIC State Transitions with IA32_APIC_BASE, INIT, and
    /// Reset" of the SDM, all 16 edges.
    #[test]
    fn every_transition() {
        const OFF: u64 = RESET_PAGE;
        const XAPIC: u64 = RESET_PAGE | ENABLED;
        const X2: u64 = RESET_PAGE | ENABLED | X2APIC;
        const INVALID: u64 = RESET_PAGE | X2APIC;
        let gp = Err(GeneralProtection);
        let features = Features::default();
        for (from, to, wanted) in [
            (OFF, OFF, Ok(Change::None)),
            (OFF, XAPIC, Ok(Change::Reset)),
            (OFF, X2, gp),
            (OFF, INVALID, gp),
            (XAPIC, OFF, Ok(Change::Reset)),
            (XAPIC, XAPIC, Ok(Change::None)),
            (XAPIC, X2, Ok(Change::ToX2Apic)),
            (XAPIC, INVALID, gp),
            (X2, OFF, Ok(Change::Reset)),
            (X2, XAPIC, gp),
            (X2, X2, Ok(Change::None)),
            (X2, INVALID, gp),
        ] {
            assert_eq!(change(from, to, &features), wanted, "{from:#x} to {to:#x}");
        }
        let without = Features {
            x2apic: false,
            ..features
        };
        assert_eq!(change(XAPIC, X2, &without), gp);
    }

    #[test]
    fn reserved_bits() {
        let features = Features {
            physical_address_bits: 40,
            ..Features::default()
        };
        let base = RESET_PAGE | ENABLED;
        for bit in 0..64 {
            let legal = matches!(bit, 8 | 10 | 11 | 12..40);
            let new = base | 1 << bit;
            assert_eq!(change(base, new, &features).is_ok(), legal, "bit {bit}");
        }
        let wide = Features {
            physical_address_bits: 64,
            ..features
        };
        assert!(change(base, base | 1 << 63, &wide).is_ok());
    }
}
