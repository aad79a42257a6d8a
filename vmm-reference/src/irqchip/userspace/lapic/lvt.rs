//! The local vector table.

use serde::{Deserialize, Serialize};

use super::registers;

/// Entries, in the order of their registers.
pub(super) const TIMER: usize = 0;
pub(super) const ERROR: usize = 5;

/// The entry does not interrupt.
pub(super) const MASKED: u32 = 1 << 16;
/// Timer: it goes on after each interrupt.
pub(super) const PERIODIC: u32 = 1 << 17;

/// Delivery status, which is never seen pending; LINT: remote IRR.
const READ_ONLY: u32 = 1 << 12;
const LINT_READ_ONLY: u32 = READ_ONLY | 1 << 14;

/// What can be written to each: timer (no TSC deadline), thermal sensor,
/// performance counters, LINT0, LINT1, error.
const WRITABLE: [u32; 6] = [0x3_00ff, 0x1_07ff, 0x1_07ff, 0x1_a7ff, 0x1_a7ff, 0x1_00ff];

/// All entries. Of the sources only the timer and errors exist here; the others
/// keep what is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Table([u32; 6]);

impl Default for Table {
    /// As of reset: masked.
    fn default() -> Self {
        Self([MASKED; 6])
    }
}

impl Table {
    /// Which entry a register is.
    pub(super) fn index(register: u32) -> Option<usize> {
        let index = register.checked_sub(registers::LVT)?;
        usize::try_from(index).ok()
    }

    pub(super) fn get(&self, index: usize) -> u32 {
        self.0.get(index).copied().unwrap_or(MASKED)
    }

    /// Writes an entry; the reserved bits are left out.
    pub(super) fn set(&mut self, index: usize, value: u32) {
        if let Some((entry, writable)) = self.0.get_mut(index).zip(WRITABLE.get(index)) {
            *entry = value & writable;
        }
    }

    /// Whether `value` has a bit that is reserved in this entry.
    pub(super) fn is_reserved(index: usize, value: u32) -> bool {
        let read_only = match index {
            3 | 4 => LINT_READ_ONLY,
            _ => READ_ONLY,
        };
        let writable = WRITABLE.get(index).copied().unwrap_or(0);
        value & !(writable | read_only) != 0
    }

    /// Software has disabled the APIC.
    pub(super) fn mask_all(&mut self) {
        for entry in &mut self.0 {
            *entry |= MASKED;
        }
    }

    /// The vector of an entry that is not masked.
    pub(super) fn vector(&self, index: usize) -> Option<u8> {
        let entry = self.get(index);
        let [vector, ..] = entry.to_le_bytes();
        (entry & MASKED == 0).then_some(vector)
    }

    /// Whether every entry is one that could have been written.
    pub(super) fn is_valid(&self) -> bool {
        self.0
            .iter()
            .zip(WRITABLE)
            .all(|(entry, writable)| entry & !writable == 0)
    }
}
