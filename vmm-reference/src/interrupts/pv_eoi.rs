//! PV_EOI, served here: the end of an interrupt as a write to guest memory.
//!
//! A byte of the guest's says whether it may leave an EOI to us: we write 1 when
//! the EOI of the interrupt in service would change nothing; the guest's handler
//! clears it instead of writing the EOI register. The next exit finds 0, and ends
//! the interrupt. If it finds 1, it takes the permission back: whatever was posted
//! meanwhile made the vCPU exit, and waits for a real EOI.
//!
//! Only the vCPU's thread touches the byte, while the vCPU is out of the guest.

use std::sync::Arc;

use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _};

use crate::irqchip::userspace::Lapic;
use crate::memory::GuestMemory;

/// `MSR_KVM_PV_EOI_EN`.
pub(super) const MSR: u32 = cpuid_features::msr::PV_EOI_EN.index;
/// Bit 0: on. Bit 1 is reserved, bits 63:2 are the byte's GPA.
const ENABLED: u64 = 1;
const RESERVED: u64 = 2;

/// A vCPU's byte.
#[derive(Debug)]
pub(super) struct PvEoi {
    memory: Arc<GuestMemory>,
    msr: u64,
    /// The byte is 1, unless the guest has ended its interrupt.
    given: bool,
}

impl PvEoi {
    pub(super) fn new(memory: Arc<GuestMemory>) -> Self {
        Self {
            memory,
            msr: 0,
            given: false,
        }
    }

    pub(super) fn read(&self) -> u64 {
        self.msr
    }

    /// WRMSR; false is #GP: a reserved bit, or no memory there.
    pub(super) fn write(&mut self, value: u64) -> bool {
        let on = value & ENABLED != 0;
        let valid = value & RESERVED == 0 && (!on || self.memory.address_in_range(byte(value)));
        if valid {
            self.msr = value;
        }
        valid
    }

    /// INIT turns it off.
    pub(super) fn reset(&mut self) {
        (self.msr, self.given) = (0, false);
    }

    /// At an exit, before anything looks at the local APIC. Whether the guest has
    /// ended the interrupt in service.
    pub(super) fn take_back(&mut self) -> bool {
        if !std::mem::take(&mut self.given) {
            return false;
        }
        let at = byte(self.msr);
        let left = self.memory.read_obj::<u8>(at).unwrap_or(1);
        // It was memory when it was written to; memory does not go away.
        let _ = self.memory.write_obj(0u8, at);
        left == 0
    }

    /// Before a run.
    pub(super) fn give(&mut self, lapic: &Lapic) {
        if self.msr & ENABLED != 0 && lapic.can_defer_eoi() {
            self.given = self.memory.write_obj(1u8, byte(self.msr)).is_ok();
        }
    }
}

fn byte(msr: u64) -> GuestAddress {
    GuestAddress(msr & !(ENABLED | RESERVED))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::irqchip::userspace::{ApicBus, Features};

    fn lapic_in_service(vector: u8) -> Lapic {
        let bus = ApicBus::new(&[0]).unwrap();
        let mut lapic = Lapic::new(bus.inbox(0).unwrap(), true, Features::default());
        lapic.write_base(lapic.base() | 1 << 10, 0).unwrap();
        lapic.write_msr(0x80f, 0x1ff, 0).unwrap();
        lapic.write_msr(0x83f, vector.into(), 0).unwrap();
        assert!(lapic.acknowledge(vector));
        lapic
    }

    fn pv_eoi() -> PvEoi {
        PvEoi::new(Arc::new(crate::memory::allocate(&[(0, 0x2000)]).unwrap()))
    }

    #[test]
    fn the_guest_ends_it_or_the_permission_is_taken_back() {
        let mut pv = pv_eoi();
        let lapic = lapic_in_service(0x31);
        let at = GuestAddress(0x1004);
        pv.give(&lapic);
        assert_eq!(pv.memory.read_obj::<u8>(at).unwrap(), 0, "off");
        assert!(!pv.take_back());
        assert!(pv.write(0x1004 | 1));
        pv.give(&lapic);
        assert_eq!(pv.memory.read_obj::<u8>(at).unwrap(), 1);
        assert!(!pv.take_back(), "still in service");
        assert_eq!(pv.memory.read_obj::<u8>(at).unwrap(), 0, "taken back");
        pv.give(&lapic);
        pv.memory.write_obj(0u8, at).unwrap();
        assert!(pv.take_back(), "the guest has ended it");
        assert!(!pv.take_back(), "once");
    }

    #[test]
    fn not_where_the_eoi_would_change_something() {
        let mut pv = pv_eoi();
        let mut lapic = lapic_in_service(0x31);
        assert!(pv.write(0x1000 | 1));
        lapic.write_msr(0x83f, 0x32, 0).unwrap();
        pv.give(&lapic);
        assert_eq!(pv.memory.read_obj::<u8>(GuestAddress(0x1000)).unwrap(), 0);
    }

    #[test]
    fn values_of_the_msr() {
        let mut pv = pv_eoi();
        assert!(!pv.write(0x1003), "reserved");
        assert!(!pv.write(0x10_0001), "no memory");
        assert!(pv.write(0x10_0000), "off, wherever");
        assert!(pv.write(0x1ffd));
        assert_eq!(pv.read(), 0x1ffd);
        pv.reset();
        assert_eq!(pv.read(), 0);
    }
}
