//! What a guest reaches by port I/O and MMIO.
//!
//! A guest can touch any port and any hole in its memory: what nothing answers
//! reads as all ones, swallows writes and is counted, never an error.

use std::sync::atomic::{AtomicU64, Ordering};

/// Writing value `v` here ends the VM with status `(v << 1) | 1`, as QEMU's
/// isa-debug-exit does.
pub const EXIT_PORT: u8 = 0xf4;

/// What a guest's write asks of the VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusEvent {
    /// A write of this value to [`EXIT_PORT`].
    Exit(u8),
}

/// All devices of a VM; shared by its vCPUs.
#[derive(Debug, Default)]
pub struct Bus {
    unclaimed: AtomicU64,
}

impl Bus {
    /// `out` of `data` to `port`.
    pub fn pio_write(&self, port: u16, data: &[u8]) -> Option<BusEvent> {
        match (port, data.first()) {
            (p, Some(&value)) if p == u16::from(EXIT_PORT) => Some(BusEvent::Exit(value)),
            _ => {
                self.unclaimed();
                None
            }
        }
    }

    /// `in` from `port`.
    pub fn pio_read(&self, _port: u16, data: &mut [u8]) {
        self.unclaimed();
        data.fill(0xff);
    }

    /// A store outside guest memory.
    pub fn mmio_write(&self, _gpa: u64, _data: &[u8]) {
        self.unclaimed();
    }

    /// A load outside guest memory.
    pub fn mmio_read(&self, _gpa: u64, data: &mut [u8]) {
        self.unclaimed();
        data.fill(0xff);
    }

    fn unclaimed(&self) {
        // Relaxed: a statistic; no other memory is ordered by it.
        self.unclaimed.fetch_add(1, Ordering::Relaxed);
    }

    /// Accesses that no device answered.
    pub fn unclaimed_accesses(&self) -> u64 {
        // Relaxed: as above.
        self.unclaimed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exit_port_asks_for_anything() {
        let bus = Bus::default();
        for port in 0..=u16::MAX {
            let event = bus.pio_write(port, &[7, 8, 9, 10]);
            assert_eq!(event.is_some(), port == 0xf4, "port {port:#x}");
        }
        assert_eq!(bus.pio_write(0xf4, &[]), None, "no byte, no exit");
        assert_eq!(bus.unclaimed_accesses(), 0x1_0000);
    }

    #[test]
    fn nothing_reads_as_all_ones() {
        let bus = Bus::default();
        let mut data = [0; 8];
        bus.pio_read(0x3f8, &mut data);
        assert_eq!(data, [0xff; 8]);
        data.fill(0);
        bus.mmio_read(0xfee0_0000, &mut data);
        assert_eq!(data, [0xff; 8]);
    }
}
