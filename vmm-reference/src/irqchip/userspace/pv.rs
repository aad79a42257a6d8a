//! `KVM_HC_SEND_IPI`: one hypercall for up to 128 targets.

use hypercall_abi::Ipi;

use super::bus::{ApicBus, Signal};
use super::message::{Delivery, Destination, Message};

impl ApicBus {
    /// Sends a decoded `KVM_HC_SEND_IPI`; its result is what the guest gets, the
    /// number of vCPUs that were addressed.
    ///
    /// As an interrupt command with a physical destination each, but no ID here
    /// is a broadcast (`kvm_pv_send_ipi` in `arch/x86/kvm/lapic.c`).
    pub fn send_pv(&self, ipi: &Ipi, signals: &mut Vec<Signal>) -> usize {
        let delivery = Delivery::from_bits(ipi.delivery_mode().into());
        // Level without assert is an INIT de-assert, which does nothing.
        if delivery == Delivery::Init && ipi.level_triggered() && !ipi.asserted() {
            return 0;
        }
        let send = |id| {
            let message = Message {
                destination: Destination::Physical(id),
                delivery,
                vector: ipi.vector(),
                level: false,
            };
            self.send(&message, None, signals)
        };
        ipi.targets().map(send).sum()
    }
}
