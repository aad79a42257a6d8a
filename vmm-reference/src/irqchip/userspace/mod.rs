//! Interrupt controllers in this process: a local APIC a vCPU and an I/O APIC,
//! for a VM whose KVM has none.
//!
//! A model, and nothing else: no threads, no clock, no ioctl, no memory of a
//! guest. Time comes in as nanoseconds of whatever clock the caller keeps to;
//! what follows from an access comes back as a value ([`Effect`], [`Signal`],
//! [`Message`]) for the caller to carry out. It needs nothing of this crate.
//!
//! A local APIC has two halves, as a vCPU in pv-lock-host has:
//!
//! ```text
//!   the vCPU's own thread               any thread
//!   Lapic: registers, priorities,       ApicBus::send(Message)
//!          timer                             |  by APIC ID, LDR, shorthand
//!     ^  scan(now)                           v
//!     +------- Inbox: vectors, NMI, INIT, SIPI, as atomics
//!                                            |
//!                                            +--> Signal::Look(id): have it scan
//!                                                 Signal::Kick(id): remote read
//! ```
//!
//! A vCPU's thread, before each run of the guest: [`Lapic::scan`]; if an
//! interrupt is deliverable and the guest can take it, [`Lapic::acknowledge`]
//! and inject it. On an access: [`Lapic::read_msr`], [`Lapic::write_msr`],
//! [`Lapic::read_page`], [`Lapic::write_page`]; an [`Effect::Send`] goes to
//! [`ApicBus::send`], an [`Effect::Eoi`] to [`IoApic::eoi`].
//!
//! ```
//! use vmm_reference::irqchip::userspace::{ApicBus, Effect, Features, Lapic, Signal};
//!
//! let bus = ApicBus::new(&[0, 1]).unwrap();
//! let mut lapics = [0, 1].map(|id| Lapic::new(bus.inbox(id).unwrap(), id == 0, Features::default()));
//! let [sender, target] = &mut lapics;
//! for lapic in [&mut *sender, &mut *target] {
//!     lapic.write_base(lapic.base() | 1 << 10, 0).unwrap(); // x2APIC
//!     lapic.write_msr(0x80f, 0x1ff, 0).unwrap(); // enabled by software
//! }
//! // The interrupt command register: vector 0xfb to APIC ID 1.
//! let effect = sender.write_msr(0x830, 1 << 32 | 0xfb, 0).unwrap();
//! let Some(Effect::Send(message)) = effect else { panic!() };
//! let mut signals = Vec::new();
//! assert_eq!(bus.send(&message, Some(0), &mut signals), 1);
//! assert_eq!(signals, [Signal::Look(1)]);
//! // APIC ID 1 waits for its SIPI: no vector starts it.
//! assert_eq!(target.scan(0).interrupt, None);
//! ```
//!
//! Sources: Intel SDM volume 3, chapter 11 (local APIC, x2APIC), the 82093AA
//! data sheet (I/O APIC), and `arch/x86/kvm/lapic.c` where they leave a choice.

mod bus;
mod inbox;
mod ioapic;
mod lapic;
mod message;
mod pv;
mod sync;
mod vectors;

pub use bus::{ApicBus, DuplicateId, Signal};
pub use inbox::Inbox;
pub use ioapic::{IoApic, PINS};
pub use lapic::{
    Effect, Features, GeneralProtection, InvalidState, Lapic, LapicState, MIN_PERIOD_NS, Mode,
    Register, TIMER_HZ, Work,
};
pub use message::{Delivery, Destination, Message};
pub use vectors::Vectors;

/// Vectors below this are exceptions; no APIC delivers them.
pub(crate) const FIRST_VECTOR: u8 = 16;
