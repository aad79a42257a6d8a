//! The keyboard controller, as far as a PC without a keyboard has one: the
//! command that resets the machine.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};

use vm_superio::{I8042Device, Trigger};

/// Port of the status (read) and of commands (write).
pub const COMMAND: u16 = 0x64;
/// Port of the data.
pub const DATA: u16 = 0x60;
/// The command that pulses the processor's reset line.
pub const RESET: u8 = 0xfe;

/// The reset line.
#[derive(Debug, Default)]
struct ResetLine(AtomicBool);

impl Trigger for &ResetLine {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        // Relaxed: read again by the same thread.
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// Writes `value` to the port; says whether that resets the machine.
pub fn write(port: u16, value: u8) -> bool {
    let line = ResetLine::default();
    let offset = u8::try_from(port.saturating_sub(DATA)).unwrap_or(u8::MAX);
    let Ok(()) = I8042Device::new(&line).write(offset, value);
    line.0.into_inner()
}

/// Reads 0 from both ports: "nothing to read, ready for a command", so that a
/// guest which waits for that before it resets does not wait in vain.
pub fn read() -> u8 {
    I8042Device::new(&ResetLine::default()).read(0)
}
