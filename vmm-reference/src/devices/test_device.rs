//! The test device of other people's test suites (`run --test-device`): what QEMU
//! calls pc-testdev, as kvm-unit-tests drives it.
//!
//! | where | what |
//! |---|---|
//! | ports 0xe0 to 0xe3, again at 0xe8 to 0xeb | four bytes that read as they were written |
//! | ports 0x2000 to 0x2017 | a byte other than 0 asserts that GSI, 0 takes it back |
//! | 0xff000000, 64 KiB | reads as it was written, and every access leaves the guest |

use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const DATA: Range<u16> = 0xe0..0xe4;
const DATA_AGAIN: Range<u16> = 0xe8..0xec;
const LINES: Range<u16> = 0x2000..0x2018;
const MEMORY: u64 = 0xff00_0000;
const MEMORY_BYTES: usize = 0x1_0000;

/// The lines into the interrupt controllers: pins of the I/O APIC, by GSI.
pub trait GsiLines: std::fmt::Debug + Send + Sync {
    /// Asserts the line with this number, or takes that back.
    fn set(&self, gsi: u32, asserted: bool);
}

/// The device.
#[derive(Debug)]
pub struct TestDevice {
    lines: Arc<dyn GsiLines>,
    data: [AtomicU8; 4],
    memory: Mutex<Box<[u8]>>,
}

impl TestDevice {
    /// One that drives these lines.
    pub fn new(lines: Arc<dyn GsiLines>) -> Self {
        Self {
            lines,
            data: Default::default(),
            memory: Mutex::new(vec![0; MEMORY_BYTES].into()),
        }
    }

    /// `out` of `data` to `port`; whether that is one of its ports.
    pub(super) fn pio_write(&self, port: u16, data: &[u8]) -> bool {
        if let Some(at) = data_byte(port) {
            for (to, &byte) in self.data.iter().skip(at).zip(data) {
                // Relaxed, here and below: the bytes are all that there is to see.
                to.store(byte, Ordering::Relaxed);
            }
        } else if LINES.contains(&port) {
            if let [value] = *data {
                self.lines.set(u32::from(port - LINES.start), value != 0);
            }
        } else {
            return false;
        }
        true
    }

    /// `in` from `port`, of which `data` is all ones so far; whether that is one of
    /// its ports.
    pub(super) fn pio_read(&self, port: u16, data: &mut [u8]) -> bool {
        if let Some(at) = data_byte(port) {
            for (to, byte) in data.iter_mut().zip(self.data.iter().skip(at)) {
                *to = byte.load(Ordering::Relaxed);
            }
            return true;
        }
        LINES.contains(&port)
    }

    /// A store outside guest memory; whether it is in the device's.
    pub(super) fn mmio_write(&self, gpa: u64, data: &[u8]) -> bool {
        self.memory(gpa, data.len(), |memory| memory.copy_from_slice(data))
    }

    /// A load outside guest memory; whether it is from the device's.
    pub(super) fn mmio_read(&self, gpa: u64, data: &mut [u8]) -> bool {
        self.memory(gpa, data.len(), |memory| data.copy_from_slice(memory))
    }

    fn memory(&self, gpa: u64, bytes: usize, access: impl FnOnce(&mut [u8])) -> bool {
        let offset = gpa.checked_sub(MEMORY).map(usize::try_from);
        let Some(Ok(offset)) = offset else {
            return false;
        };
        // A thread that panicked inside left bytes, no invariant.
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let end = offset.saturating_add(bytes);
        memory.get_mut(offset..end).map(access).is_some()
    }
}

/// Which of the four bytes a port is.
fn data_byte(port: u16) -> Option<usize> {
    let ranges = [DATA, DATA_AGAIN];
    let range = ranges.iter().find(|range| range.contains(&port))?;
    Some(usize::from(port - range.start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Noted(Mutex<Vec<(u32, bool)>>);

    impl GsiLines for Noted {
        fn set(&self, gsi: u32, asserted: bool) {
            self.0.lock().unwrap().push((gsi, asserted));
        }
    }

    #[test]
    fn bytes_to_ports_are_lines() {
        let noted = Arc::new(Noted::default());
        let device = TestDevice::new(Arc::clone(&noted) as Arc<dyn GsiLines>);
        assert!(device.pio_write(0x2000, &[1]));
        assert!(device.pio_write(0x2017, &[0x80]));
        assert!(device.pio_write(0x2017, &[0]));
        assert!(!device.pio_write(0x2018, &[1]), "24 lines");
        assert!(!device.pio_write(0x1fff, &[1]));
        assert!(device.pio_write(0x2001, &[1, 0]), "a word: nothing happens");
        let all = noted.0.lock().unwrap().clone();
        assert_eq!(all, [(0, true), (23, true), (23, false)]);
    }

    /// By byte, word and dword, as `test_ioport_read` and `test_ioport_write` of
    /// QEMU's hw/misc/pc-testdev.c.
    #[test]
    fn ports_and_memory_read_as_they_were_written() {
        let device = TestDevice::new(Arc::new(Noted::default()));
        assert!(device.pio_write(0xe0, &0x1234_5678u32.to_le_bytes()));
        assert!(device.pio_write(0xe9, &[0xab]));
        let mut data = [0xff; 2];
        assert!(device.pio_read(0xe1, &mut data));
        assert_eq!(data, [0xab, 0x34]);
        assert!(!device.pio_read(0xe4, &mut data));
        assert!(device.mmio_write(0xff00_fffc, &[1, 2, 3, 4]));
        let mut data = [0xff; 8];
        assert!(!device.mmio_read(0xff00_fffc, &mut data), "half outside");
        assert!(device.mmio_read(0xff00_fff8, &mut data));
        assert_eq!(data, [0, 0, 0, 0, 1, 2, 3, 4]);
        assert!(!device.mmio_write(0xff01_0000, &[0]));
        assert!(!device.mmio_write(0xfeff_ffff, &[0, 0]));
    }
}
