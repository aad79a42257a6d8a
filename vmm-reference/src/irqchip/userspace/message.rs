//! What goes over the bus between APICs.

use serde::{Deserialize, Serialize};

/// Bits 10:8 of an interrupt command, of a redirection entry, of an MSI's data:
/// what an interrupt does at its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Delivery {
    /// 0: the vector, to every target.
    Fixed,
    /// 1: the vector, to one of the targets.
    LowestPriority,
    /// 2: system management. There is none here, and it reaches nobody.
    Smi,
    /// 3: remote read in 1990s hardware, reserved since. KVM made it the kick of
    /// its paravirtual spinlocks, and so it is one here.
    RemoteRead,
    /// 4: the non-maskable interrupt.
    Nmi,
    /// 5: INIT: reset, and wait for a SIPI.
    Init,
    /// 6: start-up (SIPI), for one that waits for it. The vector is a page.
    Startup,
    /// 7: as from an 8259. There is none here, and it reaches nobody.
    ExtInt,
}

impl Delivery {
    /// From bits 10:8; higher bits are ignored.
    pub const fn from_bits(bits: u32) -> Self {
        match bits & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            3 => Self::RemoteRead,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::Startup,
            _ => Self::ExtInt,
        }
    }
}

/// To whom. A broadcast is [`Destination::All`] from the start: which number
/// means everyone depends on the sender, 0xff or 0xffff_ffff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Destination {
    /// The one with this APIC ID.
    Physical(u32),
    /// Those whose logical destination register matches.
    Logical(u32),
    /// The sender.
    Itself,
    /// Everyone.
    All,
    /// Everyone but the sender.
    Others,
}

impl Destination {
    /// What everyone is in 8 bits.
    const BROADCAST: u8 = 0xff;
    /// What everyone is in 32 bits.
    const BROADCAST_X2: u32 = u32::MAX;

    /// Of 8 bits: from an xAPIC, an I/O APIC or an MSI.
    pub const fn from_8_bits(id: u8, logical: bool) -> Self {
        match (id, logical) {
            (Self::BROADCAST, _) => Self::All,
            (id, true) => Self::Logical(id as u32),
            (id, false) => Self::Physical(id as u32),
        }
    }

    /// Of 32 bits: from an x2APIC.
    pub const fn from_32_bits(id: u32, logical: bool) -> Self {
        match (id, logical) {
            (Self::BROADCAST_X2, _) => Self::All,
            (id, true) => Self::Logical(id),
            (id, false) => Self::Physical(id),
        }
    }
}

/// One interrupt on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// To whom.
    pub destination: Destination,
    /// What it does there.
    pub delivery: Delivery,
    /// The vector, for the modes that have one.
    pub vector: u8,
    /// Level-triggered: its EOI is wanted by the I/O APIC.
    pub level: bool,
}
