//! Registers, edges and levels, case by case.

use super::*;

fn select(ioapic: &mut IoApic, register: u8) {
    assert_eq!(ioapic.write(0, &u32::from(register).to_le_bytes()), None);
}

fn get(ioapic: &mut IoApic, register: u8) -> u32 {
    select(ioapic, register);
    let mut data = [0; 4];
    ioapic.read(0x10, &mut data);
    u32::from_le_bytes(data)
}

fn set(ioapic: &mut IoApic, register: u8, value: u32) -> Option<Message> {
    select(ioapic, register);
    ioapic.write(0x10, &value.to_le_bytes())
}

/// An I/O APIC whose pin 4 has this low half.
fn with_pin_4(low: u32) -> IoApic {
    let mut ioapic = IoApic::new();
    assert_eq!(set(&mut ioapic, 0x18, low), None);
    ioapic
}

#[test]
fn registers_as_of_power_up() {
    let mut ioapic = IoApic::new();
    assert_eq!(get(&mut ioapic, 0), 0);
    assert_eq!(get(&mut ioapic, 1), 0x0017_0020, "24 entries");
    for register in 0x10..0x40 {
        let wanted = if register % 2 == 0 { 0x1_0000 } else { 0 };
        assert_eq!(get(&mut ioapic, register), wanted);
    }
    for register in (0x03..0x10).chain(0x40..=0xff) {
        assert_eq!(get(&mut ioapic, register), 0);
        set(&mut ioapic, register, u32::MAX);
        assert_eq!(get(&mut ioapic, register), 0);
    }
}

#[test]
fn what_can_be_written() {
    let mut ioapic = IoApic::new();
    set(&mut ioapic, 0, u32::MAX);
    assert_eq!(get(&mut ioapic, 0), 0x0f00_0000);
    assert_eq!(get(&mut ioapic, 2), 0x0f00_0000, "arbitration ID");
    set(&mut ioapic, 1, 0);
    assert_eq!(get(&mut ioapic, 1), 0x0017_0020);
    for pin in 0..24u8 {
        set(&mut ioapic, 0x10 + 2 * pin, u32::MAX);
        set(&mut ioapic, 0x11 + 2 * pin, u32::MAX);
        assert_eq!(
            get(&mut ioapic, 0x10 + 2 * pin),
            0x0001_afff,
            "but not status and IRR"
        );
        assert_eq!(get(&mut ioapic, 0x11 + 2 * pin), 0xff00_0000);
    }
}

#[test]
fn sizes_and_offsets() {
    let mut ioapic = with_pin_4(0x31);
    assert_eq!(ioapic.write(0, &[0x18]), None, "the select takes a byte");
    let mut byte = [0xee];
    ioapic.read(0x10, &mut byte);
    assert_eq!(byte, [0x31]);
    ioapic.read(0, &mut byte);
    assert_eq!(byte, [0x18]);
    let mut wide = [0xee; 8];
    ioapic.read(0x10, &mut wide);
    assert_eq!(wide, [0x31, 0, 0, 0, 0, 0, 0, 0]);
    for offset in [1, 4, 0x11, 0x20, 0xfff, u64::MAX] {
        let mut word = [0xee; 4];
        ioapic.read(offset, &mut word);
        assert_eq!(word, [0; 4]);
        assert_eq!(ioapic.write(offset, &[0xff; 4]), None);
    }
    for size in [0, 1, 2, 3, 8] {
        assert_eq!(ioapic.write(0x10, &[0xff; 8][..size]), None);
    }
    assert_eq!(ioapic.write(0, &[]), None);
    assert_eq!(get(&mut ioapic, 0x18), 0x31);
}

#[test]
fn an_edge_sends_once() {
    let mut ioapic = with_pin_4(0x31);
    let message = Message {
        destination: Destination::Physical(0),
        delivery: Delivery::Fixed,
        vector: 0x31,
        level: false,
    };
    assert_eq!(ioapic.set_line(4, true), Some(message));
    assert_eq!(ioapic.set_line(4, true), None);
    assert_eq!(ioapic.set_line(4, false), None);
    assert_eq!(ioapic.set_line(4, true), Some(message));
    assert_eq!(ioapic.eoi(0x31), [], "an edge needs no EOI");
    for pin in [24, 255, usize::MAX] {
        assert_eq!(ioapic.set_line(pin, true), None);
    }
}

#[test]
fn an_edge_while_masked_is_lost() {
    let mut ioapic = with_pin_4(0x1_0031);
    assert_eq!(ioapic.set_line(4, true), None);
    assert_eq!(set(&mut ioapic, 0x18, 0x31), None);
    assert_eq!(ioapic.set_line(4, false), None);
    assert!(ioapic.set_line(4, true).is_some());
}

#[test]
fn a_level_sends_again_until_it_falls() {
    let mut ioapic = with_pin_4(0x8031);
    let message = ioapic.set_line(4, true).unwrap();
    assert!(message.level);
    assert_eq!(get(&mut ioapic, 0x18), 0xc031, "remote IRR");
    assert_eq!(ioapic.set_line(4, true), None, "one at a time");
    assert_eq!(ioapic.eoi(0x32), [], "another vector's");
    assert_eq!(ioapic.eoi(0x31), [message], "the line is up still");
    ioapic.set_line(4, false);
    assert_eq!(ioapic.eoi(0x31), []);
    assert_eq!(get(&mut ioapic, 0x18), 0x8031);
    assert_eq!(ioapic.eoi(0x31), []);
}

#[test]
fn a_level_that_was_masked_is_sent_when_it_is_unmasked() {
    let mut ioapic = with_pin_4(0x1_8031);
    assert_eq!(ioapic.set_line(4, true), None);
    assert_eq!(set(&mut ioapic, 0x18, 0x8031).unwrap().vector, 0x31);
    // Masked under way, it stays quiet after its EOI.
    assert_eq!(set(&mut ioapic, 0x18, 0x1_8031), None);
    assert_eq!(ioapic.eoi(0x31), []);
    assert_eq!(set(&mut ioapic, 0x18, 0x8031).unwrap().vector, 0x31);
}

/// How Linux gets rid of a stuck remote IRR on old chips; this one has a
/// register for it too.
#[test]
fn remote_irr_is_cleared_by_edge_and_by_the_eoi_register() {
    let mut ioapic = with_pin_4(0x8031);
    ioapic.set_line(4, true).unwrap();
    ioapic.set_line(4, false);
    set(&mut ioapic, 0x18, 0x1_0031);
    set(&mut ioapic, 0x18, 0x8031);
    assert_eq!(get(&mut ioapic, 0x18), 0x8031);
    let message = ioapic.set_line(4, true);
    assert!(message.is_some());
    assert_eq!(ioapic.write(0x40, &0x31u32.to_le_bytes()), message);
}

#[test]
fn two_pins_of_one_vector() {
    let mut ioapic = with_pin_4(0x8031);
    set(&mut ioapic, 0x1a, 0x8031);
    assert!(ioapic.set_line(4, true).is_some());
    assert!(ioapic.set_line(5, true).is_some());
    assert_eq!(ioapic.eoi(0x31).len(), 2);
    ioapic.set_line(4, false);
    assert_eq!(ioapic.eoi(0x31).len(), 1);
}

/// Only what has an EOI waits for one.
#[test]
fn a_level_nmi_does_not_wait_for_an_eoi() {
    let mut ioapic = with_pin_4(0x8400);
    assert_eq!(ioapic.set_line(4, true).unwrap().delivery, Delivery::Nmi);
    ioapic.set_line(4, false);
    assert!(ioapic.set_line(4, true).is_some());
}

#[test]
fn destinations() {
    for (high, low, destination) in [
        (0x0300_0000, 0x31, Destination::Physical(3)),
        (0x0300_0000, 0x831, Destination::Logical(3)),
        (0xff00_0000, 0x31, Destination::All),
        (0xff00_0000, 0x831, Destination::All),
    ] {
        let mut ioapic = with_pin_4(low);
        set(&mut ioapic, 0x19, high);
        assert_eq!(ioapic.set_line(4, true).unwrap().destination, destination);
    }
}

#[test]
fn it_is_saved_whole() {
    let mut ioapic = with_pin_4(0x8031);
    ioapic.set_line(4, true).unwrap();
    let saved = serde_json::to_string(&ioapic).unwrap();
    let mut other: IoApic = serde_json::from_str(&saved).unwrap();
    assert_eq!(other, ioapic);
    assert_eq!(other.eoi(0x31).len(), 1);
}
