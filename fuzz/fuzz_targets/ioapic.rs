//! An I/O APIC with a guest and devices that know no rules, and a local APIC that
//! takes what it sends.
//!
//! Six bytes an operation: kind, pin or register, four of value.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm_reference::irqchip::userspace::{ApicBus, Effect, Features, IoApic, Lapic, Message, PINS};

fuzz_target!(|operations: &[u8]| {
    let bus = ApicBus::new(&[0]).expect("one ID");
    let mut lapic = Lapic::new(bus.inbox(0).expect("its inbox"), true, Features::default());
    lapic.write_page(0xf0, &0x1ffu32.to_le_bytes(), 0);
    let mut ioapic = IoApic::new();
    let mut lines = [false; PINS];
    let deliver = |message: Message| {
        bus.send(&message, None, &mut Vec::new());
    };
    for operation in operations.chunks_exact(6) {
        let [kind, at, a, b, c, d] = *operation else {
            return;
        };
        let value = [a, b, c, d];
        match kind & 7 {
            // A register by its number: select, then write.
            0 | 1 => {
                assert_eq!(ioapic.write(0, &[at, 0, 0, 0]), None);
                ioapic.write(0x10, &value).into_iter().for_each(deliver);
                let mut read = [0; 4];
                ioapic.read(0x10, &mut read);
                if at >= 0x10 && usize::from(at) < 0x10 + 2 * PINS && at % 2 == 0 {
                    // Vector and mask are what was written.
                    assert_eq!((read[0], read[2] & 1), (a, c & 1));
                }
            }
            2 => {
                let size = usize::from(kind >> 3) % 5;
                let message = ioapic.write(at.into(), &value[..size]);
                message.into_iter().for_each(deliver);
            }
            3 => {
                let mut data = [0xee; 8];
                ioapic.read(
                    u64::from(at) << (a & 31),
                    &mut data[..usize::from(kind >> 3) % 9],
                );
            }
            4 | 5 => {
                let (pin, asserted) = (usize::from(at % 32), kind & 1 == 1);
                let message = ioapic.set_line(pin, asserted);
                match lines.get_mut(pin) {
                    // Whatever the entry says, a line at rest sends nothing.
                    Some(line) => {
                        assert!(asserted || message.is_none());
                        *line = asserted;
                    }
                    None => assert_eq!(message, None),
                }
                message.into_iter().for_each(deliver);
            }
            6 => {
                let again = ioapic.eoi(at);
                assert!(again.len() <= lines.iter().filter(|line| **line).count());
                assert!(
                    again
                        .iter()
                        .all(|message| message.vector == at && message.level)
                );
                again.into_iter().for_each(deliver);
            }
            _ => {
                if let Some(vector) = lapic.scan(0).interrupt {
                    assert!(lapic.acknowledge(vector));
                    if let Some(Effect::Eoi(ended)) = lapic.eoi() {
                        assert_eq!(ended, vector);
                        ioapic.eoi(ended).into_iter().for_each(deliver);
                    }
                }
            }
        }
    }
});
