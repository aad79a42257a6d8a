//! What the vCPUs of a VM share of its interrupt controllers.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hypercall_abi::Ipi;
use pv_lock_host::{ApicId, KickOutcome};

use crate::irqchip::userspace::{
    ApicBus, Delivery, Destination, DuplicateId, Features, IoApic, Lapic, Message, Signal,
};
use crate::kicks::Kicks;
use crate::threads::VcpuThreads;

/// The bus between the APICs, the I/O APIC, and how a vCPU is told that there is
/// something for it.
#[derive(Debug)]
pub struct Controllers {
    bus: ApicBus,
    ioapic: Mutex<IoApic>,
    kicks: Kicks,
    threads: VcpuThreads,
}

impl Controllers {
    /// For vCPUs whose APIC IDs, `ids`, are their indexes in `threads`.
    ///
    /// # Errors
    /// An ID is there twice.
    pub fn new(ids: &[ApicId], kicks: Kicks, threads: VcpuThreads) -> Result<Self, DuplicateId> {
        let ids: Vec<u32> = ids.iter().map(|id| id.0).collect();
        Ok(Self {
            bus: ApicBus::new(&ids)?,
            ioapic: Mutex::default(),
            kicks,
            threads,
        })
    }

    /// The local APIC of the vCPU with this ID, for its owner.
    pub(super) fn lapic(&self, id: ApicId, features: Features) -> Option<Lapic> {
        let inbox = self.bus.inbox(id.0)?;
        Some(Lapic::new(inbox, id.0 == 0, features))
    }

    // A thread that panicked inside left registers, no invariant.
    pub(super) fn ioapic(&self) -> MutexGuard<'_, IoApic> {
        self.ioapic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The I/O APIC's state.
    pub fn save(&self) -> IoApic {
        self.ioapic().clone()
    }

    /// Puts a saved state of the I/O APIC in.
    pub fn restore(&self, saved: &IoApic) {
        *self.ioapic() = saved.clone();
    }

    /// Sends a message, by the local APIC with this ID if it is from one, and
    /// tells those whom it is for. How many were addressed.
    pub(super) fn send(&self, message: &Message, from: Option<u32>) -> usize {
        let mut signals = Vec::new();
        let sent = self.bus.send(message, from, &mut signals);
        for signal in signals {
            self.tell(signal, from);
        }
        sent
    }

    /// Interrupts the vCPU with this APIC ID, as a device's MSI would. Whether there
    /// is one.
    pub fn interrupt(&self, id: ApicId, vector: u8) -> bool {
        let message = Message {
            destination: Destination::Physical(id.0),
            delivery: Delivery::Fixed,
            vector,
            level: false,
        };
        self.send(&message, None) > 0
    }

    /// Sends a `KVM_HC_SEND_IPI` of the vCPU with this APIC ID; its result.
    pub(crate) fn send_pv(&self, ipi: &Ipi, from: u32) -> usize {
        let mut signals = Vec::new();
        let sent = self.bus.send_pv(ipi, &mut signals);
        for signal in signals {
            self.tell(signal, Some(from));
        }
        sent
    }

    fn tell(&self, signal: Signal, from: Option<u32>) {
        match signal {
            // It looks before it runs the guest again.
            Signal::Look(id) if from == Some(id) => {}
            Signal::Look(id) => {
                // Parked: woken by this. Told by another already: that one has
                // the rest to do.
                if self.kicks.notify(ApicId(id)) == KickOutcome::Latched {
                    self.threads.make_leave(id as usize);
                }
            }
            Signal::Kick(id) => {
                self.kicks.kick(ApicId(id));
            }
        }
    }

    /// A device asserts the I/O APIC's pin, or takes that back.
    pub(super) fn set_line(&self, pin: usize, asserted: bool) {
        let message = self.ioapic().set_line(pin, asserted);
        if let Some(message) = message {
            self.send(&message, None);
        }
    }

    /// The end of a level-triggered interrupt.
    pub(super) fn eoi(&self, vector: u8) {
        let again = self.ioapic().eoi(vector);
        for message in &again {
            self.send(message, None);
        }
    }
}
