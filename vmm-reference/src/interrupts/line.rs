//! A device's line to a pin of the I/O APIC.

use std::io;
use std::sync::Arc;

use super::controllers::Controllers;
use crate::devices::serial::InterruptLine;
use crate::devices::test_device::GsiLines;

/// A pin of the I/O APIC. Each interrupt is one edge.
#[derive(Clone, Debug)]
pub struct IoApicLine {
    controllers: Arc<Controllers>,
    pin: usize,
}

impl IoApicLine {
    /// To this pin.
    pub fn new(controllers: Arc<Controllers>, pin: usize) -> Self {
        Self { controllers, pin }
    }
}

/// All pins, by number.
impl GsiLines for Controllers {
    fn set(&self, gsi: u32, asserted: bool) {
        self.set_line(gsi as usize, asserted);
    }
}

impl InterruptLine for IoApicLine {
    fn interrupt(&self) -> io::Result<()> {
        self.controllers.set_line(self.pin, true);
        self.controllers.set_line(self.pin, false);
        Ok(())
    }
}
