//! Registers and priorities, case by case; expected values are the SDM's.

use super::*;
use crate::irqchip::userspace::{ApicBus, Delivery, Destination, Signal};

const X2APIC: u64 = 1 << 10;
const ENABLED: u64 = 1 << 11;

fn xapic_with(id: u32) -> Lapic {
    let bus = ApicBus::new(&[id]).unwrap();
    Lapic::new(bus.inbox(id).unwrap(), true, Features::default())
}

fn xapic() -> Lapic {
    xapic_with(0)
}

/// Enabled by software, in x2APIC mode.
fn x2apic() -> Lapic {
    let mut lapic = xapic();
    lapic.write_base(lapic.base() | X2APIC, 0).unwrap();
    write(&mut lapic, 0x80f, 0x1ff);
    lapic
}

fn write(lapic: &mut Lapic, msr: u32, value: u64) -> Option<Effect> {
    lapic.write_msr(msr, value, 0).unwrap()
}

fn read(lapic: &mut Lapic, msr: u32) -> u64 {
    lapic.read_msr(msr, 0).unwrap()
}

fn page(lapic: &mut Lapic, offset: u64) -> u32 {
    let mut data = [0; 4];
    lapic.read_page(offset, &mut data, 0);
    u32::from_le_bytes(data)
}

fn set_page(lapic: &mut Lapic, offset: u64, value: u32) -> Option<Effect> {
    lapic.write_page(offset, &value.to_le_bytes(), 0)
}

/// An interrupt that is at once the processor's.
fn take(lapic: &mut Lapic, vector: u8) {
    write(lapic, 0x83f, vector.into());
    assert_eq!(lapic.deliverable(), Some(vector));
    assert!(lapic.acknowledge(vector));
}

/// What an operating system would do itself: INIT's wait over, x2APIC mode, SVR.
#[test]
fn started() {
    let bus = ApicBus::new(&[0, 1]).unwrap();
    let inbox = || bus.inbox(1).unwrap();
    let without = Features {
        x2apic: false,
        ..Features::default()
    };
    for (features, base) in [(Features::default(), 0xfee0_0c00), (without, 0xfee0_0800)] {
        let mut lapic = Lapic::new(inbox(), false, features);
        assert!(lapic.waits_for_sipi());
        lapic.start();
        assert!(!lapic.waits_for_sipi());
        assert_eq!(lapic.base(), base);
        inbox().post(0x31, false);
        assert_eq!(lapic.scan(0).interrupt, Some(0x31));
    }
}

/// SDM table "Local APIC State After Power-Up or Reset".
#[test]
fn power_up() {
    let mut lapic = xapic_with(3);
    assert_eq!(lapic.base(), 0xfee0_0900, "on, BSP");
    assert_eq!(lapic.mode(), Mode::XApic);
    assert_eq!(lapic.page(), Some(0xfee0_0000));
    for (offset, value) in [
        (0x20, 3 << 24),
        (0x30, 0x0005_0014),
        (0x80, 0),
        (0xa0, 0),
        (0xd0, 0),
        (0xe0, 0xffff_ffff),
        (0xf0, 0xff),
        (0x280, 0),
        (0x300, 0),
        (0x310, 0),
        (0x320, 0x1_0000),
        (0x330, 0x1_0000),
        (0x340, 0x1_0000),
        (0x350, 0x1_0000),
        (0x360, 0x1_0000),
        (0x370, 0x1_0000),
        (0x380, 0),
        (0x390, 0),
        (0x3e0, 0),
    ] {
        assert_eq!(page(&mut lapic, offset), value, "{offset:#x}");
    }
    for offset in (0x100..0x280).step_by(16) {
        assert_eq!(page(&mut lapic, offset), 0, "{offset:#x}");
    }
    assert_eq!(lapic.scan(0), Work::default());
    assert_eq!(lapic.deadline(), None);
}

/// Which MSRs exist, and in which direction: SDM table "Local APIC Register
/// Address Map Supported by x2APIC". All 256 of them, and their neighbours.
#[test]
fn x2apic_msrs() {
    let both = [
        0x808, 0x80f, 0x828, 0x830, 0x832, 0x833, 0x834, 0x835, 0x836, 0x837, 0x838, 0x83e,
    ];
    let mut read_only = vec![0x802, 0x803, 0x80a, 0x80d, 0x839];
    read_only.extend(0x810..=0x827);
    let write_only = [0x80b, 0x83f];
    let mut lapic = x2apic();
    for msr in 0x7f0..0x910 {
        let readable = both.contains(&msr) || read_only.contains(&msr);
        assert_eq!(lapic.read_msr(msr, 0).is_ok(), readable, "read {msr:#x}");
        let writable = both.contains(&msr) || write_only.contains(&msr);
        let written = lapic.write_msr(msr, 0, 0);
        assert_eq!(written.is_ok(), writable, "write {msr:#x}");
    }
    let mut lapic = xapic();
    for msr in 0x800..0x900 {
        assert_eq!(lapic.read_msr(msr, 0), Err(GeneralProtection));
        assert_eq!(lapic.write_msr(msr, 0, 0), Err(GeneralProtection));
    }
}

/// Every bit of every writable MSR alone: reserved ones are #GP, others are
/// kept (or, of the read-only ones, not).
#[test]
fn reserved_bits_of_x2apic_registers() {
    let table: [(u32, u64); 14] = [
        (0x808, 0xff),
        (0x80b, 0),
        (0x80f, 0x3ff),
        (0x828, 0),
        (0x830, 0xffff_ffff_000c_dfff),
        (0x832, 0x3_10ff),
        (0x833, 0x1_17ff),
        (0x834, 0x1_17ff),
        (0x835, 0x1_f7ff),
        (0x836, 0x1_f7ff),
        (0x837, 0x1_10ff),
        (0x838, 0xffff_ffff),
        (0x83e, 0xb),
        (0x83f, 0xff),
    ];
    for (msr, legal) in table {
        for bit in 0..64 {
            let value = 1 << bit;
            let written = x2apic().write_msr(msr, value, 0);
            assert_eq!(written.is_ok(), legal & value != 0, "{msr:#x} bit {bit}");
        }
    }
}

#[test]
fn x2apic_ids() {
    for (id, logical) in [
        (0, 0x0000_0001),
        (15, 0x0000_8000),
        (16, 0x0001_0001),
        (0x123, 0x0012_0008),
        (u32::MAX, 0xffff_8000),
    ] {
        let mut lapic = xapic_with(id);
        lapic.write_base(lapic.base() | X2APIC, 0).unwrap();
        assert_eq!(read(&mut lapic, 0x802), u64::from(id));
        assert_eq!(read(&mut lapic, 0x80d), logical);
    }
}

/// Every TPR, a vector of every class or none in service, every vector
/// requested: PPR and deliverability by the SDM's formulas.
#[test]
fn priorities() {
    let mut lapic = x2apic();
    for in_service in (0..=0xf0u8).step_by(16) {
        // Class 0 has no interrupts: none is in service.
        let vector = in_service | 5;
        if in_service != 0 {
            write(&mut lapic, 0x808, 0);
            take(&mut lapic, vector);
        }
        for tpr in 0..=u8::MAX {
            write(&mut lapic, 0x808, tpr.into());
            let ppr = if tpr >> 4 >= in_service >> 4 {
                tpr
            } else {
                in_service
            };
            assert_eq!(read(&mut lapic, 0x80a), u64::from(ppr));
            for requested in 16..=u8::MAX {
                let mut lapic = Lapic {
                    inbox: Arc::clone(&lapic.inbox),
                    state: lapic.state.clone(),
                    ..lapic
                };
                lapic.request(requested);
                let deliverable = requested >> 4 > ppr >> 4;
                assert_eq!(lapic.deliverable(), deliverable.then_some(requested));
            }
        }
        write(&mut lapic, 0x808, 0);
        write(&mut lapic, 0x80b, 0);
    }
}

#[test]
fn interrupts_nest_and_end_from_the_top() {
    let mut lapic = x2apic();
    take(&mut lapic, 0x31);
    write(&mut lapic, 0x83f, 0x3f);
    assert_eq!(lapic.deliverable(), None, "of the same class");
    take(&mut lapic, 0x41);
    assert_eq!(read(&mut lapic, 0x80a), 0x40);
    assert_eq!(write(&mut lapic, 0x80b, 0), None);
    assert_eq!(read(&mut lapic, 0x80a), 0x30);
    assert_eq!(lapic.deliverable(), None);
    write(&mut lapic, 0x80b, 0);
    assert_eq!(lapic.deliverable(), Some(0x3f));
    // An EOI without an interrupt is nothing.
    write(&mut lapic, 0x80b, 0);
    assert_eq!(lapic.deliverable(), Some(0x3f));
    assert!(!lapic.acknowledge(0x3e), "nobody asked for that");
    assert_eq!(read(&mut lapic, 0x811), 0);
}

#[test]
fn cr8_is_the_class_of_the_task_priority() {
    let mut lapic = x2apic();
    write(&mut lapic, 0x808, 0x4f);
    assert_eq!(lapic.cr8(), 4);
    lapic.set_cr8(0xf9);
    assert_eq!(read(&mut lapic, 0x808), 0x90);
}

/// A level-triggered interrupt tells the I/O APIC of its end, an edge does not;
/// the last arrival counts for the next.
#[test]
fn eoi_of_a_level() {
    let bus = ApicBus::new(&[0]).unwrap();
    let mut lapic = Lapic::new(bus.inbox(0).unwrap(), true, Features::default());
    set_page(&mut lapic, 0xf0, 0x1ff);
    for level in [true, false, true] {
        let message = Message {
            destination: Destination::Physical(0),
            delivery: Delivery::Fixed,
            vector: 0x51,
            level,
        };
        let mut signals = Vec::new();
        assert_eq!(bus.send(&message, None, &mut signals), 1);
        assert_eq!(signals, [Signal::Look(0)]);
        assert_eq!(lapic.scan(0).interrupt, Some(0x51));
        assert_eq!(page(&mut lapic, 0x1a0) >> 17 & 1, u32::from(level), "TMR");
        assert!(lapic.acknowledge(0x51));
        assert_eq!(lapic.can_defer_eoi(), !level);
        let effect = set_page(&mut lapic, 0xb0, 0);
        assert_eq!(effect, level.then_some(Effect::Eoi(0x51)));
    }
}

#[test]
fn an_eoi_may_be_deferred_only_if_it_changes_nothing() {
    let mut lapic = x2apic();
    assert!(!lapic.can_defer_eoi(), "none in service");
    take(&mut lapic, 0x31);
    assert!(lapic.can_defer_eoi());
    write(&mut lapic, 0x83f, 0x32);
    assert!(!lapic.can_defer_eoi(), "0x32 waits for it");
    assert_eq!(lapic.eoi(), None);
    assert_eq!(lapic.deliverable(), Some(0x32));
}

/// SDM, "Local APIC State After It Has Been Software Disabled".
#[test]
fn disabled_by_software() {
    let mut lapic = x2apic();
    write(&mut lapic, 0x832, 0x2_0040);
    write(&mut lapic, 0x83f, 0x31);
    write(&mut lapic, 0x80f, 0xff);
    assert_eq!(read(&mut lapic, 0x832), 0x3_0040, "masked");
    assert_eq!(lapic.deliverable(), Some(0x31), "requests stay");
    write(&mut lapic, 0x832, 0x2_0040);
    assert_eq!(read(&mut lapic, 0x832), 0x3_0040, "and can't be unmasked");
    write(&mut lapic, 0x83f, 0x91);
    assert_eq!(lapic.deliverable(), Some(0x31), "new ones are refused");
    write(&mut lapic, 0x80f, 0x1ff);
    assert_eq!(read(&mut lapic, 0x832), 0x3_0040, "not by enabling either");
}

#[test]
fn off_and_on_again_is_a_reset() {
    let mut lapic = x2apic();
    write(&mut lapic, 0x83f, 0x31);
    write(&mut lapic, 0x838, 1000);
    lapic.write_base(0xfee0_0100, 0).unwrap();
    assert_eq!((lapic.mode(), lapic.page()), (Mode::Disabled, None));
    assert_eq!(lapic.scan(u64::MAX), Work::default());
    assert_eq!(lapic.write_base(0xfee0_0d00, 0), Err(GeneralProtection));
    lapic.write_base(0xfee0_0900, 0).unwrap();
    assert_eq!(page(&mut lapic, 0xf0), 0xff);
    assert_eq!(page(&mut lapic, 0x380), 0);
    assert_eq!(page(&mut lapic, 0x210), 0);
}

#[test]
fn the_page_moves() {
    let mut lapic = xapic();
    lapic.write_base(0xfee0_0100 | ENABLED, 0).unwrap();
    lapic.write_base(0x8000_0000 | ENABLED, 0).unwrap();
    assert_eq!(lapic.page(), Some(0x8000_0000));
    assert_eq!(
        lapic.write_base(1 << 36 | ENABLED, 0),
        Err(GeneralProtection)
    );
    lapic.write_base(0x8000_0000 | ENABLED | X2APIC, 0).unwrap();
    assert_eq!(lapic.page(), None);
}

#[test]
fn entering_x2apic_mode_keeps_what_is_pending() {
    let mut lapic = xapic();
    set_page(&mut lapic, 0xf0, 0x1ff);
    set_page(&mut lapic, 0x310, 0x0200_0000);
    set_page(&mut lapic, 0x300, 0x4_0031);
    set_page(&mut lapic, 0x80, 0x20);
    lapic.write_base(lapic.base() | X2APIC, 0).unwrap();
    assert_eq!(read(&mut lapic, 0x808), 0x20);
    assert_eq!(read(&mut lapic, 0x830), 0x4_0031, "without destination");
    assert_eq!(lapic.deliverable(), Some(0x31));
}

/// Accesses to the page that are not of 32 bits at a multiple of 16.
#[test]
fn odd_accesses_of_the_page() {
    let mut lapic = xapic();
    set_page(&mut lapic, 0x80, 0x55);
    let mut byte = [0xee];
    lapic.read_page(0x81, &mut byte, 0);
    assert_eq!(byte, [0]);
    lapic.read_page(0x80, &mut byte, 0);
    assert_eq!(byte, [0x55]);
    let mut wide = [0xee; 16];
    lapic.read_page(0x30, &mut wide, 0);
    assert_eq!(wide, [0x14, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    lapic.read_page(0x3c, &mut wide, 0);
    assert_eq!(wide, [0; 16]);
    lapic.read_page(u64::MAX, &mut wide, 0);
    lapic.read_page(0, &mut [], 0);
    for (offset, size) in [
        (0x81, 4),
        (0x80, 1),
        (0x80, 2),
        (0x80, 8),
        (0x84, 4),
        (0x80, 0),
    ] {
        lapic.write_page(offset, &[0x77; 8][..size], 0);
        assert_eq!(page(&mut lapic, 0x80), 0x55, "{offset:#x}, {size} bytes");
    }
}

#[test]
fn errors_are_logged_shown_by_a_write_and_reported_once() {
    let mut lapic = xapic();
    set_page(&mut lapic, 0xf0, 0x1ff);
    set_page(&mut lapic, 0x370, 0xfe);
    page(&mut lapic, 0x40);
    assert_eq!(lapic.deliverable(), Some(0xfe));
    assert_eq!(page(&mut lapic, 0x280), 0, "not yet");
    assert!(lapic.acknowledge(0xfe));
    set_page(&mut lapic, 0x300, 0xf);
    assert_eq!(lapic.deliverable(), None, "reported already");
    set_page(&mut lapic, 0xb0, 0);
    set_page(&mut lapic, 0x280, 0);
    assert_eq!(
        page(&mut lapic, 0x280),
        0xa0,
        "illegal register, send illegal vector"
    );
    set_page(&mut lapic, 0x280, 0);
    assert_eq!(page(&mut lapic, 0x280), 0);
    set_page(&mut lapic, 0x300, 0x4_000f);
    assert_eq!(lapic.deliverable(), Some(0xfe), "armed again");
}

/// The error entry's own vector may be illegal: that ends, with one more error.
#[test]
fn an_error_whose_interrupt_is_an_error() {
    let mut lapic = xapic();
    set_page(&mut lapic, 0xf0, 0x1ff);
    set_page(&mut lapic, 0x370, 0x0f);
    page(&mut lapic, 0x40);
    set_page(&mut lapic, 0x280, 0);
    assert_eq!(
        page(&mut lapic, 0x280),
        0xc0,
        "illegal register, receive illegal vector"
    );
    assert_eq!(lapic.deliverable(), None);
}

/// Every delivery mode, destination mode and shorthand of the ICR, in both modes.
#[test]
fn icr_decoding() {
    let deliveries = [
        Delivery::Fixed,
        Delivery::LowestPriority,
        Delivery::Smi,
        Delivery::RemoteRead,
        Delivery::Nmi,
        Delivery::Init,
        Delivery::Startup,
        Delivery::ExtInt,
    ];
    for (bits, delivery) in (0..).zip(deliveries) {
        for logical in [false, true] {
            for shorthand in 0..4u32 {
                for id in [0, 1, 0x7f, 0xff] {
                    let icr = 0x45 | bits << 8 | u32::from(logical) << 11 | shorthand << 18;
                    let destination = match (shorthand, id, logical) {
                        (0, 0xff, _) => Destination::All,
                        (0, id, true) => Destination::Logical(id),
                        (0, id, false) => Destination::Physical(id),
                        (1, ..) => Destination::Itself,
                        (2, ..) => Destination::All,
                        _ => Destination::Others,
                    };
                    let message = Message {
                        destination,
                        delivery,
                        vector: 0x45,
                        level: false,
                    };
                    let own = destination == Destination::Itself && bits < 2;
                    let wanted = (!own).then_some(Effect::Send(message));
                    let mut lapic = xapic();
                    set_page(&mut lapic, 0xf0, 0x1ff);
                    assert_eq!(set_page(&mut lapic, 0x310, id << 24), None);
                    assert_eq!(set_page(&mut lapic, 0x300, icr), wanted);
                    assert_eq!(lapic.deliverable(), own.then_some(0x45));
                    assert_eq!(page(&mut lapic, 0x300), icr, "never pending");
                    assert_eq!(page(&mut lapic, 0x310), id << 24);

                    let mut lapic = x2apic();
                    let wide = if id == 0xff { u32::MAX } else { id };
                    let value = u64::from(wide) << 32 | u64::from(icr);
                    assert_eq!(write(&mut lapic, 0x830, value), wanted);
                    assert_eq!(read(&mut lapic, 0x830), value);
                }
            }
        }
    }
}

/// 255 is an ID like another in x2APIC mode.
#[test]
fn broadcasts_are_32_bits_wide_in_x2apic_mode() {
    let mut lapic = x2apic();
    let Some(Effect::Send(message)) = write(&mut lapic, 0x830, 0xff << 32 | 0x45) else {
        panic!("nothing sent");
    };
    assert_eq!(message.destination, Destination::Physical(255));
}

#[test]
fn an_init_de_assert_is_nothing() {
    let mut lapic = x2apic();
    assert_eq!(write(&mut lapic, 0x830, 1 << 32 | 0x8500), None);
    let sent = write(&mut lapic, 0x830, 1 << 32 | 0xc500);
    assert!(matches!(sent, Some(Effect::Send(m)) if m.delivery == Delivery::Init));
}

/// The pending bit is the hardware's: a guest may write back what it read.
#[test]
fn the_delivery_status_is_read_only() {
    let mut lapic = x2apic();
    assert!(write(&mut lapic, 0x830, 1 << 32 | 0x1045).is_some());
    assert_eq!(read(&mut lapic, 0x830), 1 << 32 | 0x45);
}

#[test]
fn init_resets_and_waits_for_a_sipi() {
    let bus = ApicBus::new(&[0, 1]).unwrap();
    let mut ap = Lapic::new(bus.inbox(1).unwrap(), false, Features::default());
    let send = |delivery, vector| {
        let message = Message {
            destination: Destination::Physical(1),
            delivery,
            vector,
            level: false,
        };
        bus.send(&message, Some(0), &mut Vec::new());
    };
    assert!(ap.waits_for_sipi());
    send(Delivery::Nmi, 0);
    assert_eq!(
        ap.scan(0),
        Work::default(),
        "an NMI starts nobody, and waits"
    );
    send(Delivery::Init, 0);
    let init = Work {
        init: true,
        ..Work::default()
    };
    assert_eq!(ap.scan(0), init, "and is undone");
    send(Delivery::Startup, 0x9a);
    let started = Work {
        sipi: Some(0x9a),
        ..Work::default()
    };
    assert_eq!(ap.scan(0), started);
    send(Delivery::Startup, 0x9a);
    assert_eq!(ap.scan(0), Work::default(), "the second one is nothing");

    ap.write_base(ap.base() | X2APIC, 0).unwrap();
    write(&mut ap, 0x80f, 0x1ff);
    write(&mut ap, 0x808, 0x20);
    write(&mut ap, 0x838, 1000);
    write(&mut ap, 0x83f, 0x31);
    send(Delivery::Init, 0);
    assert_eq!(ap.scan(0), init);
    assert!(ap.waits_for_sipi());
    assert_eq!(ap.mode(), Mode::X2Apic, "mode and ID stay");
    assert_eq!(read(&mut ap, 0x802), 1);
    assert_eq!(read(&mut ap, 0x80f), 0xff);
    assert_eq!(read(&mut ap, 0x808), 0);
    assert_eq!(read(&mut ap, 0x838), 0);
    assert_eq!(ap.scan(u64::MAX), Work::default());
    // Both before it looks: INIT first.
    send(Delivery::Startup, 0x10);
    send(Delivery::Init, 0);
    send(Delivery::Startup, 0x11);
    let both = Work {
        init: true,
        sipi: Some(0x11),
        ..Work::default()
    };
    assert_eq!(ap.scan(0), both);
}

/// The bootstrap processor starts at the reset vector, without a SIPI.
#[test]
fn init_of_the_bootstrap_processor() {
    let bus = ApicBus::new(&[0]).unwrap();
    let mut lapic = Lapic::new(bus.inbox(0).unwrap(), true, Features::default());
    let message = Message {
        destination: Destination::All,
        delivery: Delivery::Init,
        vector: 0,
        level: false,
    };
    bus.send(&message, None, &mut Vec::new());
    assert!(lapic.scan(0).init);
    assert!(!lapic.waits_for_sipi());
}

#[test]
fn timer_interrupts() {
    let mut lapic = x2apic();
    let at = |lapic: &mut Lapic, now| lapic.scan(now).interrupt;
    lapic.write_msr(0x83e, 0b1011, 0).unwrap();
    lapic.write_msr(0x832, 0x40, 0).unwrap();
    lapic.write_msr(0x838, 1000, 500).unwrap();
    assert_eq!(lapic.deadline(), Some(1500));
    assert_eq!(lapic.read_msr(0x839, 1000), Ok(500));
    assert_eq!(at(&mut lapic, 1499), None);
    assert_eq!(at(&mut lapic, 1500), Some(0x40));
    assert!(lapic.acknowledge(0x40));
    lapic.eoi();
    assert_eq!(lapic.deadline(), None);
    assert_eq!(at(&mut lapic, 1 << 40), None);
    assert_eq!(lapic.read_msr(0x839, 1 << 40), Ok(0));
    // Masked: the count goes down, no interrupt is sent, then or later.
    lapic.write_msr(0x832, 0x1_0040, 0).unwrap();
    lapic.write_msr(0x838, 1000, 0).unwrap();
    assert_eq!(lapic.deadline(), None);
    assert_eq!(lapic.read_msr(0x839, 400), Ok(600));
    lapic.write_msr(0x832, 0x40, 2000).unwrap();
    assert_eq!(at(&mut lapic, 3000), None);
}

/// A change between one-shot and periodic leaves the running count alone, and a
/// count that has stopped stays so.
#[test]
fn timer_mode_changes() {
    let mut lapic = x2apic();
    lapic.write_msr(0x83e, 0b1011, 0).unwrap();
    lapic.write_msr(0x832, 0x40, 0).unwrap();
    lapic.write_msr(0x838, 1_000_000, 0).unwrap();
    lapic.write_msr(0x832, 0x2_0040, 900_000).unwrap();
    assert_eq!(lapic.read_msr(0x839, 900_000), Ok(100_000));
    assert_eq!(lapic.read_msr(0x838, 900_000), Ok(1_000_000));
    assert_eq!(lapic.scan(1_000_000).interrupt, Some(0x40));
    assert_eq!(lapic.read_msr(0x839, 1_200_000), Ok(800_000), "reloaded");
    lapic.write_msr(0x832, 0x40, 1_200_000).unwrap();
    assert_eq!(lapic.read_msr(0x839, 1_300_000), Ok(700_000));
    assert_eq!(lapic.read_msr(0x839, 2_000_000), Ok(0));
    lapic.write_msr(0x832, 0x2_0040, 2_000_000).unwrap();
    assert_eq!(lapic.read_msr(0x839, 2_100_000), Ok(0));
}

#[test]
fn self_ipi_is_an_edge_from_here() {
    let mut lapic = x2apic();
    assert_eq!(write(&mut lapic, 0x83f, 0x31), None);
    assert_eq!(lapic.deliverable(), Some(0x31));
    write(&mut lapic, 0x83f, 0x0f);
    write(&mut lapic, 0x828, 0);
    assert_eq!(read(&mut lapic, 0x828), 0x40, "receive illegal vector");
}

/// What was saved is what is restored, by way of JSON too, on another clock.
#[test]
fn saved_and_restored() {
    let bus = ApicBus::new(&[0]).unwrap();
    let mut lapic = Lapic::new(bus.inbox(0).unwrap(), true, Features::default());
    lapic.write_base(lapic.base() | X2APIC, 0).unwrap();
    write(&mut lapic, 0x80f, 0x1ff);
    lapic.write_msr(0x83e, 0b1011, 0).unwrap();
    lapic.write_msr(0x832, 0x40, 0).unwrap();
    lapic.write_msr(0x838, 1000, 100).unwrap();
    let message = Message {
        destination: Destination::Itself,
        delivery: Delivery::Fixed,
        vector: 0x77,
        level: true,
    };
    bus.send(&message, Some(0), &mut Vec::new());
    let saved = serde_json::to_string(&lapic.save(600)).unwrap();
    let mut other = xapic();
    other
        .restore(serde_json::from_str(&saved).unwrap(), 5_000_000)
        .unwrap();
    assert_eq!(other.mode(), Mode::X2Apic);
    assert_eq!(other.deadline(), Some(5_000_500));
    assert_eq!(other.scan(5_000_000).interrupt, Some(0x77));
    assert!(other.acknowledge(0x77));
    assert_eq!(other.eoi(), Some(Effect::Eoi(0x77)));
}

#[test]
fn what_no_write_brings_about_is_not_restored() {
    let good = x2apic().save(0);
    let refused = |change: &dyn Fn(&mut LapicState)| {
        let mut state = good.clone();
        change(&mut state);
        xapic().restore(state, 0).unwrap_err().register
    };
    assert_eq!(refused(&|s| s.base = 0xfee0_0400), "IA32_APIC_BASE");
    assert_eq!(refused(&|s| s.base |= 1), "IA32_APIC_BASE");
    assert_eq!(refused(&|s| s.svr = 0x1_0000), "SVR");
    assert_eq!(refused(&|s| s.irr.insert(3)), "IRR");
    assert_eq!(refused(&|s| s.isr.insert(15)), "ISR");
}
