//! The I/O APIC: lines of devices become messages.

use serde::{Deserialize, Serialize};

use super::message::{Delivery, Destination, Message};

/// Lines, of which the redirection table has an entry each.
pub const PINS: usize = 24;

/// Offsets in its page.
mod offset {
    /// IOREGSEL.
    pub(super) const SELECT: u64 = 0x00;
    /// IOWIN.
    pub(super) const WINDOW: u64 = 0x10;
    /// EOIR, of version 0x20.
    pub(super) const EOI: u64 = 0x40;
}

/// Indirect registers.
mod register {
    pub(super) const ID: u8 = 0;
    pub(super) const VERSION: u8 = 1;
    pub(super) const ARBITRATION: u8 = 2;
    pub(super) const TABLE: u8 = 0x10;
}

/// Version 0x20, which has the EOI register, and the greatest entry's number.
const VERSION: u32 = 0x0017_0020;
const ID: u32 = 0x0f00_0000;

/// Bits of a redirection entry.
mod entry {
    pub(super) const LOGICAL: u64 = 1 << 11;
    /// Level: a message was accepted and its EOI has not come. Read-only.
    pub(super) const REMOTE_IRR: u64 = 1 << 14;
    pub(super) const LEVEL: u64 = 1 << 15;
    pub(super) const MASKED: u64 = 1 << 16;
    /// Vector, delivery mode, destination mode, polarity, trigger mode, mask,
    /// destination. Bit 12, the delivery status, is never seen pending.
    pub(super) const WRITABLE: u64 = 0xff00_0000_0001_afff;
}

/// One line and its redirection entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pin {
    entry: u64,
    /// The device asserts it. What that is electrically does not matter here, so
    /// the entry's polarity has no effect, as in KVM.
    asserted: bool,
}

/// An I/O APIC; all of its state is saved by serde.
///
/// ```
/// use vmm_reference::irqchip::userspace::IoApic;
///
/// let mut ioapic = IoApic::new();
/// ioapic.write(0x00, &0x18u32.to_le_bytes()); // entry of pin 4, low half
/// ioapic.write(0x10, &0x31u32.to_le_bytes()); // vector 0x31, edge, not masked
/// let message = ioapic.set_line(4, true).unwrap();
/// assert_eq!(message.vector, 0x31);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoApic {
    id: u32,
    select: u8,
    pins: [Pin; PINS],
}

impl Default for IoApic {
    fn default() -> Self {
        Self::new()
    }
}

impl IoApic {
    /// As of power-up: every entry masked, every line at rest.
    pub const fn new() -> Self {
        let pin = Pin {
            entry: entry::MASKED,
            asserted: false,
        };
        Self {
            id: 0,
            select: 0,
            pins: [pin; PINS],
        }
    }

    /// Reads `data.len()` bytes at `offset` of the page. What is no register
    /// reads as 0.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        let value = match offset {
            offset::SELECT => self.select.into(),
            offset::WINDOW => self.read_register(),
            _ => 0,
        };
        data.fill(0);
        let bytes = value.to_le_bytes();
        data.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    }

    fn read_register(&self) -> u32 {
        match self.select {
            register::ID | register::ARBITRATION => self.id,
            register::VERSION => VERSION,
            select => match table_place(select) {
                Some((pin, high)) => {
                    let entry = self.pins.get(pin).map_or(0, |pin| pin.entry);
                    let half = if high { entry >> 32 } else { entry };
                    let [a, b, c, d, ..] = half.to_le_bytes();
                    u32::from_le_bytes([a, b, c, d])
                }
                None => 0,
            },
        }
    }

    /// Writes `data`, of 32 bits, at `offset` of the page; other sizes have no
    /// effect but at the register select, of which the lowest byte counts. An
    /// entry that is unmasked while its line is asserted sends, if it is
    /// level-triggered; an edge that came while it was masked is lost.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Option<Message> {
        if offset == offset::SELECT {
            self.select = *data.first()?;
            return None;
        }
        let &[a, b, c, d] = data else {
            return None;
        };
        let value = u32::from_le_bytes([a, b, c, d]);
        match offset {
            offset::WINDOW => self.write_register(value),
            offset::EOI => self.eoi(a).into_iter().next(),
            _ => None,
        }
    }

    fn write_register(&mut self, value: u32) -> Option<Message> {
        if self.select == register::ID {
            self.id = value & ID;
        }
        let (pin, high) = table_place(self.select)?;
        let pin = self.pins.get_mut(pin)?;
        let value = u64::from(value);
        let (keep, new) = match high {
            true => (0xffff_ffff, value << 32),
            false => (!0xffff_ffff, value),
        };
        let writable = (pin.entry & keep) | (new & entry::WRITABLE);
        pin.entry = (writable & !entry::REMOTE_IRR) | (pin.entry & entry::REMOTE_IRR);
        if pin.entry & entry::LEVEL == 0 {
            // By way of edge a guest clears what no EOI will.
            pin.entry &= !entry::REMOTE_IRR;
        }
        pin.level()
    }

    /// A device asserts its line, or takes that back. The message, if there is
    /// one: at the edge, or while the level lasts and none is under way. A pin
    /// that does not exist has no effect.
    pub fn set_line(&mut self, pin: usize, asserted: bool) -> Option<Message> {
        let pin = self.pins.get_mut(pin)?;
        let before = std::mem::replace(&mut pin.asserted, asserted);
        match pin.entry & entry::LEVEL {
            0 => (asserted && !before).then(|| pin.send())?,
            _ => pin.level(),
        }
    }

    /// A local APIC says that the interrupt with this vector is over
    /// ([`Effect::Eoi`](super::Effect::Eoi)). The messages of those entries whose
    /// lines are asserted still.
    pub fn eoi(&mut self, vector: u8) -> Vec<Message> {
        let mut again = Vec::new();
        for pin in &mut self.pins {
            let [own, ..] = pin.entry.to_le_bytes();
            if own == vector && pin.entry & entry::REMOTE_IRR != 0 {
                pin.entry &= !entry::REMOTE_IRR;
                again.extend(pin.level());
            }
        }
        again
    }
}

impl Pin {
    /// The message of an entry that is not masked.
    fn send(&self) -> Option<Message> {
        let [vector, delivery, _, _, _, _, _, destination] = self.entry.to_le_bytes();
        (self.entry & entry::MASKED == 0).then(|| Message {
            destination: Destination::from_8_bits(destination, self.entry & entry::LOGICAL != 0),
            delivery: Delivery::from_bits(delivery.into()),
            vector,
            level: self.entry & entry::LEVEL != 0,
        })
    }

    /// The message of a level-triggered entry, if it is due.
    fn level(&mut self) -> Option<Message> {
        let idle = self.entry & (entry::LEVEL | entry::REMOTE_IRR) == entry::LEVEL;
        let message = (idle && self.asserted).then(|| self.send())??;
        // Only what has an EOI has a remote IRR: an NMI would be the last one.
        if matches!(message.delivery, Delivery::Fixed | Delivery::LowestPriority) {
            self.entry |= entry::REMOTE_IRR;
        }
        Some(message)
    }
}

/// Which entry a register is, and whether its high half.
fn table_place(select: u8) -> Option<(usize, bool)> {
    let place = usize::from(select.checked_sub(register::TABLE)?);
    (place < 2 * PINS).then_some((place / 2, place % 2 == 1))
}

#[cfg(test)]
mod tests;
