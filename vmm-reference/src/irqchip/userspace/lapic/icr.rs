//! The interrupt command register: what a guest asks for becomes a message.

use super::super::FIRST_VECTOR;
use super::super::message::{Delivery, Destination, Message};

const VECTOR: u64 = 0xff;
const DELIVERY_SHIFT: u32 = 8;
const LOGICAL: u64 = 1 << 11;
/// Delivery status: a message is under way. Never here; read-only.
const PENDING: u64 = 1 << 12;
const ASSERT: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const SHORTHAND_SHIFT: u32 = 18;
const DESTINATION_SHIFT: u32 = 32;
const XAPIC_DESTINATION_SHIFT: u32 = 56;
/// What the low half keeps.
const LOW: u64 = VECTOR | 7 << DELIVERY_SHIFT | LOGICAL | ASSERT | LEVEL | 3 << SHORTHAND_SHIFT;

/// What a written value comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// This goes to the bus.
    Send(Message),
    /// The vector is none.
    IllegalVector,
    /// Nothing: an INIT de-assert, which synchronised arbitration IDs once.
    Nothing,
}

/// What is kept of a value; high half: where xAPIC and x2APIC have their
/// destinations.
pub(super) const fn kept(value: u64, x2apic: bool) -> u64 {
    let destination = if x2apic {
        !0 << DESTINATION_SHIFT
    } else {
        !0 << XAPIC_DESTINATION_SHIFT
    };
    value & (LOW | destination)
}

/// Whether an x2APIC refuses this value.
pub(super) const fn is_reserved(value: u64) -> bool {
    // AMD has bit 12 cleared by the hardware and not reserved, Intel reserves
    // it; KVM and this model take it from both.
    value & !(LOW | PENDING | !0 << DESTINATION_SHIFT) != 0
}

/// Decodes a value.
pub(super) fn command(value: u64, x2apic: bool) -> Command {
    let [vector, delivery, _, _, low, mid, high, top] = value.to_le_bytes();
    let delivery = Delivery::from_bits(delivery.into());
    if delivery == Delivery::Init && value & LEVEL != 0 && value & ASSERT == 0 {
        return Command::Nothing;
    }
    let vectored = matches!(delivery, Delivery::Fixed | Delivery::LowestPriority);
    if vectored && vector < FIRST_VECTOR {
        return Command::IllegalVector;
    }
    let logical = value & LOGICAL != 0;
    let destination = match value >> SHORTHAND_SHIFT & 3 {
        0 if x2apic => {
            Destination::from_32_bits(u32::from_le_bytes([low, mid, high, top]), logical)
        }
        0 => Destination::from_8_bits(top, logical),
        1 => Destination::Itself,
        2 => Destination::All,
        _ => Destination::Others,
    };
    Command::Send(Message {
        destination,
        delivery,
        vector,
        // Interrupts between processors are edges whatever bit 15 says (SDM,
        // "Trigger Mode": used for the INIT de-assert only).
        level: false,
    })
}
