//! The bus between APICs: finds who is meant, and posts.

use std::collections::HashMap;
use std::sync::Arc;

use super::inbox::Inbox;
use super::message::{Delivery, Destination, Message};

/// What a sent message asks of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Something new is in the inbox of the one with this APIC ID: if it is
    /// halted, wake it; if it runs the guest, make it leave; have it scan.
    Look(u32),
    /// A remote read: KVM's kick of the vCPU with this APIC ID.
    Kick(u32),
}

/// Two local APICs were to have the same ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("two vCPUs have APIC ID {0}")]
pub struct DuplicateId(pub u32);

/// Every local APIC's inbox, by APIC ID. Shared by all who send.
#[derive(Debug)]
pub struct ApicBus {
    members: Box<[Arc<Inbox>]>,
    by_id: HashMap<u32, usize>,
}

impl ApicBus {
    /// With a local APIC for each of these IDs, which need not be in order.
    ///
    /// # Errors
    /// An ID is there twice.
    pub fn new(ids: &[u32]) -> Result<Self, DuplicateId> {
        let mut by_id = HashMap::with_capacity(ids.len());
        for (index, &id) in ids.iter().enumerate() {
            if by_id.insert(id, index).is_some() {
                return Err(DuplicateId(id));
            }
        }
        Ok(Self {
            members: ids.iter().map(|&id| Arc::new(Inbox::new(id))).collect(),
            by_id,
        })
    }

    /// The inbox of the one with this APIC ID, for its owner.
    pub fn inbox(&self, id: u32) -> Option<Arc<Inbox>> {
        self.physical(id).cloned()
    }

    fn physical(&self, id: u32) -> Option<&Arc<Inbox>> {
        self.members.get(*self.by_id.get(&id)?)
    }

    /// Sends `message`, by the one with APIC ID `from` if it is from a local
    /// APIC, and says in `signals` what is to be done for it. Returns how many
    /// were addressed; as on hardware nobody learns whether they want it.
    pub fn send(&self, message: &Message, from: Option<u32>, signals: &mut Vec<Signal>) -> usize {
        let mut sent = 0;
        let mut deliver = |inbox: &Inbox| {
            sent += 1;
            signals.extend(post(inbox, message));
        };
        // The frequent case needs no walk.
        let one = match message.destination {
            Destination::Physical(id) => Some(id),
            Destination::Itself => from,
            _ => None,
        };
        if let Some(id) = one {
            let target = self.physical(id);
            target
                .filter(|inbox| inbox.address().enabled)
                .into_iter()
                .for_each(|inbox| deliver(inbox));
        } else if message.delivery == Delivery::LowestPriority {
            self.lowest_priority(message, from)
                .into_iter()
                .for_each(deliver);
        } else {
            self.matching(message.destination, from).for_each(deliver);
        }
        sent
    }

    fn matching(
        &self,
        destination: Destination,
        from: Option<u32>,
    ) -> impl Iterator<Item = &Inbox> {
        self.members
            .iter()
            .map(|inbox| &**inbox)
            .filter(move |inbox| is_meant(inbox, destination, from))
    }

    /// One of those that are meant and take vectors. Which one is the
    /// hardware's choice; here, as in KVM with vector hashing, it depends on the
    /// vector alone, so that each interrupt stays with its vCPU.
    fn lowest_priority(&self, message: &Message, from: Option<u32>) -> Option<&Inbox> {
        let takers = || {
            self.matching(message.destination, from)
                .filter(|inbox| inbox.address().software_enabled)
        };
        let count = takers().count();
        takers().nth(usize::from(message.vector).checked_rem(count)?)
    }
}

/// Whether `inbox` is one of those that a message by `from` is for.
fn is_meant(inbox: &Inbox, destination: Destination, from: Option<u32>) -> bool {
    let address = inbox.address();
    address.enabled
        && match destination {
            Destination::All => true,
            Destination::Others => from != Some(inbox.id()),
            Destination::Itself => from == Some(inbox.id()),
            Destination::Physical(id) => id == inbox.id(),
            Destination::Logical(mda) if address.x2apic => matches_x2apic(mda, inbox.id()),
            Destination::Logical(mda) => matches_xapic(mda, address.logical, address.format),
        }
}

/// SDM, "Deriving Logical x2APIC ID from the Local x2APIC ID".
pub(crate) const fn x2apic_logical_id(id: u32) -> u32 {
    ((id >> 4) << 16) | (1 << (id & 15))
}

/// A cluster in bits 31:16, its members in bits 15:0.
const fn matches_x2apic(mda: u32, id: u32) -> bool {
    let own = x2apic_logical_id(id);
    (mda >> 16) == (own >> 16) && mda & own & 0xffff != 0
}

/// Flat: a bit each. Cluster: a cluster in bits 7:4, its members in bits 3:0.
fn matches_xapic(mda: u32, logical: u8, format: u8) -> bool {
    const FLAT: u8 = 0xf;
    const CLUSTER: u8 = 0;
    // More than 8 bits come from an x2APIC alone, and name no xAPIC.
    u8::try_from(mda).is_ok_and(|mda| match format {
        FLAT => mda & logical != 0,
        CLUSTER => mda >> 4 == logical >> 4 && mda & logical & 0xf != 0,
        _ => false,
    })
}

fn post(inbox: &Inbox, message: &Message) -> Option<Signal> {
    let look = Signal::Look(inbox.id());
    match message.delivery {
        Delivery::Fixed | Delivery::LowestPriority => {
            inbox.post(message.vector, message.level).then_some(look)
        }
        Delivery::Nmi => inbox.post_nmi().then_some(look),
        Delivery::Init => {
            inbox.post_init();
            Some(look)
        }
        Delivery::Startup => {
            inbox.post_sipi(message.vector);
            Some(look)
        }
        Delivery::RemoteRead => Some(Signal::Kick(inbox.id())),
        Delivery::Smi | Delivery::ExtInt => None,
    }
}

#[cfg(test)]
mod tests;
