//! ACPI power management ports, by which a guest turns itself off.
//!
//! ACPI 6.5, 4.8.3: PM1a event block (status and enable, which no event ever
//! sets), PM1a control block, and the power management timer; 4.8.3.7: the sleep
//! registers that hardware-reduced ACPI has in their place.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// PM1a_EVT_BLK: status, then enable, a word each.
pub const EVENT: u16 = 0x600;
/// Its length in bytes.
pub const EVENT_LEN: u8 = 4;
/// PM1a_CNT_BLK.
pub const CONTROL: u16 = 0x604;
/// Its length in bytes.
pub const CONTROL_LEN: u8 = 2;
/// PM_TMR_BLK.
pub const TIMER: u16 = 0x608;
/// Its length in bytes.
pub const TIMER_LEN: u8 = 4;
/// SLEEP_CONTROL_REG of hardware-reduced ACPI, a byte.
pub const SLEEP_CONTROL: u16 = 0x60c;
/// SLEEP_STATUS_REG, a byte.
pub const SLEEP_STATUS: u16 = 0x60d;
/// Interrupt of the events that never come.
pub const SCI_GSI: u16 = 9;
/// SLP_TYP of `\_S5`.
pub const SLEEP_TYPE_OFF: u8 = 5;

const ENABLE: u16 = EVENT + 2;
const LAST: u16 = SLEEP_STATUS;
const SCI_ENABLED: u16 = 1 << 0;
const SLEEP_TYPE_SHIFT: u16 = 10;
const SLEEP_ENABLE: u16 = 1 << 13;
/// The same in the sleep control register.
const REDUCED_TYPE_SHIFT: u8 = 2;
const REDUCED_ENABLE: u8 = 1 << 5;
/// Ticks a second of the timer.
const TIMER_HZ: u128 = 3_579_545;

/// The ports' state.
#[derive(Debug)]
pub struct PowerManagement {
    enable: AtomicU16,
    started: Instant,
    /// What the timer had counted before, in ns.
    before: AtomicU64,
}

/// The state of [`PowerManagement`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedPm {
    enable: u16,
    /// What the timer has counted, in ns.
    elapsed: u64,
}

impl PowerManagement {
    /// As after a reset.
    pub fn new() -> Self {
        Self {
            enable: AtomicU16::new(0),
            started: Instant::now(),
            before: AtomicU64::new(0),
        }
    }

    /// Its state.
    pub fn save(&self) -> SavedPm {
        SavedPm {
            // Relaxed: as below.
            enable: self.enable.load(Ordering::Relaxed),
            elapsed: self.elapsed(),
        }
    }

    /// Puts a saved state in, before the guest runs: the timer goes on from there.
    pub fn restore(&self, saved: &SavedPm) {
        // Relaxed: registers that nothing else depends on, set before the vCPUs'
        // threads are there.
        self.enable.store(saved.enable, Ordering::Relaxed);
        let since = self.elapsed_here();
        let before = saved.elapsed.wrapping_sub(since);
        self.before.store(before, Ordering::Relaxed);
    }

    fn elapsed_here(&self) -> u64 {
        // 64 bits of ns last for centuries.
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Relaxed: `before` is set before the vCPUs' threads are there.
    fn elapsed(&self) -> u64 {
        (self.elapsed_here()).wrapping_add(self.before.load(Ordering::Relaxed))
    }

    /// Whether `port` is one of them.
    pub fn claims(port: u16) -> bool {
        (EVENT..=LAST).contains(&port)
    }

    /// Reads up to four bytes.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        let (base, value) = match port {
            // Relaxed: a register that nothing else depends on.
            EVENT..CONTROL => (EVENT, u32::from(self.enable.load(Ordering::Relaxed)) << 16),
            CONTROL..TIMER => (CONTROL, u32::from(SCI_ENABLED)),
            TIMER..SLEEP_CONTROL => (TIMER, self.ticks()),
            // No sleep has ended yet.
            _ => (SLEEP_CONTROL, 0),
        };
        let bytes = value.to_le_bytes();
        let from = usize::from(port - base);
        for (i, to) in data.iter_mut().enumerate() {
            *to = bytes.get(from + i).copied().unwrap_or(0xff);
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the timer has 32 bits and wraps"
    )]
    fn ticks(&self) -> u32 {
        (u128::from(self.elapsed()) * TIMER_HZ / 1_000_000_000) as u32
    }

    /// Writes; says whether that turns the machine off.
    pub fn write(&self, port: u16, data: &[u8]) -> bool {
        let word = match *data {
            [low, high, ..] => u16::from_le_bytes([low, high]),
            [low] => u16::from(low),
            [] => return false,
        };
        match port {
            ENABLE => {
                // Relaxed: as above.
                self.enable.store(word, Ordering::Relaxed);
                false
            }
            CONTROL => {
                word & SLEEP_ENABLE != 0
                    && (word >> SLEEP_TYPE_SHIFT) & 7 == u16::from(SLEEP_TYPE_OFF)
            }
            SLEEP_CONTROL => {
                let [byte, _] = word.to_le_bytes();
                byte & REDUCED_ENABLE != 0 && (byte >> REDUCED_TYPE_SHIFT) & 7 == SLEEP_TYPE_OFF
            }
            _ => false,
        }
    }
}

impl Default for PowerManagement {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_s5_with_sleep_enable_turns_off() {
        let pm = PowerManagement::new();
        let off: Vec<u16> = (0..=u16::MAX)
            .filter(|word| pm.write(0x604, &word.to_le_bytes()))
            .map(|word| word & 0x3c00)
            .collect();
        // SLP_EN is bit 13, SLP_TYP bits 10 to 12, 5 is 101.
        assert!(off.iter().all(|word| *word == 0x3400), "{off:x?}");
        assert_eq!(off.len(), 0x1_0000 / 16);
    }

    #[test]
    fn no_event_is_ever_pending_and_acpi_mode_is_on() {
        let pm = PowerManagement::new();
        let mut data = [0xff; 4];
        assert!(!pm.write(0x602, &[0x20, 0x01]));
        pm.read(0x600, &mut data);
        assert_eq!(data, [0, 0, 0x20, 0x01], "status, then what was enabled");
        let mut data = [0xff; 2];
        pm.read(0x604, &mut data);
        assert_eq!(data, [1, 0]);
    }

    #[test]
    fn the_timer_goes_on_where_it_was_saved() {
        let pm = PowerManagement::new();
        let hour = 3_600_000_000_000;
        let saved = SavedPm {
            enable: 0x120,
            elapsed: hour,
        };
        pm.restore(&saved);
        let again = pm.save();
        assert_eq!(again.enable, 0x120);
        assert!(again.elapsed >= hour);
        let mut data = [0; 4];
        pm.read(0x608, &mut data);
        // 3,579,545 ticks a second (ACPI 6.5, 4.8.3.3), an hour of them.
        assert!(u64::from(u32::from_le_bytes(data)) >= 3_579_545 * 3600 % (1 << 32));
    }

    #[test]
    fn every_access_is_answered() {
        let pm = PowerManagement::new();
        for port in 0x600..=0x60b {
            for len in 0..=4 {
                let mut data = vec![0xaa; len];
                pm.read(port, &mut data);
                pm.write(port, &data);
            }
        }
    }
}
