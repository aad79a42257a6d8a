//! Who is meant by which destination.

use super::super::{Features, Lapic};
use super::*;

const X2APIC: u64 = 1 << 10;
const NOBODY: [u32; 0] = [];

struct Machine {
    bus: ApicBus,
    lapics: Vec<Lapic>,
}

/// Local APICs with these IDs, running, enabled by software.
fn machine(ids: &[u32], x2apic: bool) -> Machine {
    let bus = ApicBus::new(ids).unwrap();
    let lapics = ids
        .iter()
        .map(|&id| {
            let mut lapic = Lapic::new(bus.inbox(id).unwrap(), true, Features::default());
            if x2apic {
                lapic.write_base(lapic.base() | X2APIC, 0).unwrap();
                lapic.write_msr(0x80f, 0x1ff, 0).unwrap();
            } else {
                lapic.write_page(0xf0, &0x1ffu32.to_le_bytes(), 0);
            }
            lapic
        })
        .collect();
    Machine { bus, lapics }
}

impl Machine {
    /// Who got it, by ID; and that the bus said just so.
    fn send(&mut self, destination: Destination, delivery: Delivery, from: u32) -> Vec<u32> {
        let message = Message {
            destination,
            delivery,
            vector: 0x61,
            level: false,
        };
        let mut signals = Vec::new();
        let sent = self.bus.send(&message, Some(from), &mut signals);
        let mut got = Vec::new();
        for lapic in &mut self.lapics {
            let work = lapic.scan(0);
            if work.interrupt == Some(0x61) {
                assert!(lapic.acknowledge(0x61));
                lapic.eoi();
            }
            if work.nmi || work.interrupt.is_some() {
                got.push(lapic.id());
            }
        }
        assert_eq!(sent, got.len());
        let looks: Vec<_> = got.iter().map(|&id| Signal::Look(id)).collect();
        assert_eq!(signals, looks);
        got
    }

    fn fixed(&mut self, destination: Destination) -> Vec<u32> {
        self.send(destination, Delivery::Fixed, 0)
    }

    fn set_logical(&mut self, format: u32, ldr: &[u32]) {
        for (lapic, &ldr) in self.lapics.iter_mut().zip(ldr) {
            lapic.write_page(0xe0, &format.to_le_bytes(), 0);
            lapic.write_page(0xd0, &(ldr << 24).to_le_bytes(), 0);
        }
    }
}

#[test]
fn ids_are_unique() {
    assert_eq!(ApicBus::new(&[1, 7, 1]).unwrap_err(), DuplicateId(1));
}

#[test]
fn physical_and_shorthands() {
    for x2apic in [false, true] {
        let mut m = machine(&[0, 5, 2], x2apic);
        assert_eq!(m.fixed(Destination::Physical(5)), [5]);
        assert_eq!(m.fixed(Destination::Physical(1)), NOBODY);
        assert_eq!(m.fixed(Destination::Physical(u32::MAX)), NOBODY);
        assert_eq!(m.fixed(Destination::All), [0, 5, 2]);
        assert_eq!(m.fixed(Destination::Others), [5, 2]);
        assert_eq!(m.fixed(Destination::Itself), [0]);
        assert_eq!(m.send(Destination::Others, Delivery::Nmi, 5), [0, 2]);
    }
}

/// Every 8-bit destination against LDRs of a bit each, and of several.
#[test]
fn logical_flat() {
    let ldr = [0x01, 0x02, 0x80, 0x0f, 0x00];
    let mut m = machine(&[0, 1, 2, 3, 4], false);
    m.set_logical(0xf000_0000, &ldr);
    for mda in 0..0xff {
        let wanted: Vec<u32> = (0..5).filter(|&i| ldr[i as usize] & mda != 0).collect();
        assert_eq!(m.fixed(Destination::Logical(mda)), wanted, "{mda:#x}");
    }
    // Beyond 8 bits: from an x2APIC, to nobody here.
    assert_eq!(m.fixed(Destination::Logical(0x101)), NOBODY);
}

/// Clusters of four: 0x1x and 0x2x.
#[test]
fn logical_cluster() {
    let ldr = [0x11, 0x12, 0x21, 0x28, 0x10];
    let mut m = machine(&[0, 1, 2, 3, 4], false);
    m.set_logical(0x0fff_ffff, &ldr);
    assert_eq!(m.fixed(Destination::Logical(0x13)), [0, 1]);
    assert_eq!(m.fixed(Destination::Logical(0x28)), [3]);
    assert_eq!(m.fixed(Destination::Logical(0x2f)), [2, 3]);
    assert_eq!(m.fixed(Destination::Logical(0x33)), NOBODY);
    assert_eq!(m.fixed(Destination::Logical(0x10)), NOBODY);
    // A format that is neither: nobody.
    m.set_logical(0x5fff_ffff, &ldr);
    for mda in 0..0xff {
        assert_eq!(m.fixed(Destination::Logical(mda)), NOBODY);
    }
}

#[test]
fn logical_x2apic() {
    let mut m = machine(&[0, 1, 15, 16, 17, 0x123], true);
    assert_eq!(m.fixed(Destination::Logical(0x0000_8003)), [0, 1, 15]);
    assert_eq!(m.fixed(Destination::Logical(0x0001_0003)), [16, 17]);
    assert_eq!(m.fixed(Destination::Logical(0x0012_0008)), [0x123]);
    assert_eq!(m.fixed(Destination::Logical(0x0002_ffff)), NOBODY);
    assert_eq!(m.fixed(Destination::Logical(0)), NOBODY);
}

/// One that takes vectors and is meant; always the same for a vector.
#[test]
fn lowest_priority_goes_to_one() {
    let mut m = machine(&[0, 1, 2, 3], true);
    let first = m.send(Destination::Logical(0x6), Delivery::LowestPriority, 0);
    assert_eq!(first.len(), 1);
    assert!([1, 2].contains(&first[0]));
    for _ in 0..3 {
        assert_eq!(
            m.send(Destination::Logical(0x6), Delivery::LowestPriority, 0),
            first
        );
    }
    // One that is disabled by software does not take part.
    let index = first[0] as usize;
    m.lapics[index].write_msr(0x80f, 0xff, 0).unwrap();
    let second = m.send(Destination::Logical(0x6), Delivery::LowestPriority, 0);
    assert_eq!(second, [3 - first[0]]);
    assert_eq!(
        m.send(Destination::Logical(0), Delivery::LowestPriority, 0),
        NOBODY
    );
}

#[test]
fn one_that_is_off_gets_nothing() {
    let mut m = machine(&[0, 1], false);
    m.lapics[1].write_base(0xfee0_0100, 0).unwrap();
    assert_eq!(m.fixed(Destination::Physical(1)), NOBODY);
    assert_eq!(m.fixed(Destination::All), [0]);
    assert_eq!(m.send(Destination::All, Delivery::Nmi, 0), [0]);
}

#[test]
fn a_remote_read_is_a_kick_and_touches_no_register() {
    let mut m = machine(&[0, 9], true);
    let message = Message {
        destination: Destination::Physical(9),
        delivery: Delivery::RemoteRead,
        vector: 0x61,
        level: false,
    };
    let mut signals = Vec::new();
    assert_eq!(m.bus.send(&message, Some(0), &mut signals), 1);
    assert_eq!(signals, [Signal::Kick(9)]);
    assert_eq!(m.lapics[1].scan(0), super::super::Work::default());
}

#[test]
fn who_was_made_look_is_not_made_look_again_for_the_same() {
    let m = machine(&[0, 1], true);
    let message = Message {
        destination: Destination::Physical(1),
        delivery: Delivery::Fixed,
        vector: 0x61,
        level: false,
    };
    let mut signals = Vec::new();
    assert_eq!(m.bus.send(&message, Some(0), &mut signals), 1);
    assert_eq!(m.bus.send(&message, Some(0), &mut signals), 1);
    assert_eq!(signals, [Signal::Look(1)]);
}

mod hypercall {
    use hypercall_abi::{Mode, SendIpi};

    use super::*;

    fn ipi(bitmap: [u64; 2], first_apic_id: u64, icr: u64) -> hypercall_abi::Ipi {
        let call = SendIpi {
            bitmap,
            first_apic_id,
            icr,
            mode: Mode::Bits64,
        };
        call.check().unwrap()
    }

    /// One call; its result is the number of vCPUs, and IDs without one are none.
    #[test]
    fn targets_and_result() {
        let mut m = machine(&[0, 3, 64, 255], true);
        let mut signals = Vec::new();
        let result = m.bus.send_pv(&ipi([0b1010, 1], 0, 0x61), &mut signals);
        assert_eq!(result, 2);
        assert_eq!(signals, [Signal::Look(3), Signal::Look(64)]);
        for (lapic, wanted) in m
            .lapics
            .iter_mut()
            .zip([None, Some(0x61), Some(0x61), None])
        {
            assert_eq!(lapic.scan(0).interrupt, wanted);
        }
        // No ID is everyone.
        signals.clear();
        assert_eq!(m.bus.send_pv(&ipi([1, 0], 255, 0x62), &mut signals), 1);
        assert_eq!(signals, [Signal::Look(255)]);
    }

    #[test]
    fn other_delivery_modes() {
        let mut m = machine(&[0, 3], true);
        let mut signals = Vec::new();
        assert_eq!(m.bus.send_pv(&ipi([0b1000, 0], 0, 0x400), &mut signals), 1);
        assert!(m.lapics[1].scan(0).nmi);
        assert_eq!(m.bus.send_pv(&ipi([0b1000, 0], 0, 0x300), &mut signals), 1);
        assert_eq!(signals, [Signal::Look(3), Signal::Kick(3)]);
        assert_eq!(m.bus.send_pv(&ipi([0b1000, 0], 0, 0x8500), &mut signals), 0);
    }
}
