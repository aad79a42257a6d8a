//! Two local APICs on one bus, accessed by guests that know no rules: any MSR,
//! any offset of the page, any value, in any order and at any time; sent
//! messages arrive, interrupts are taken, states saved and restored.
//!
//! Twelve bytes an operation: kind and which of the two, a register or offset
//! (u16), eight of value, time passed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vmm_reference::irqchip::userspace::{ApicBus, Effect, Features, IoApic, Lapic, Mode, Signal};

const IDS: [u32; 2] = [0, 0x21];

fuzz_target!(|operations: &[u8]| {
    let bus = ApicBus::new(&IDS).expect("two IDs");
    let mut lapics = IDS.map(|id| {
        let inbox = bus.inbox(id).expect("an inbox each");
        Lapic::new(inbox, id == 0, Features::default())
    });
    let mut ioapic = IoApic::new();
    let mut now = 0u64;
    let mut signals = Vec::new();
    for operation in operations.chunks_exact(12) {
        let [kind, low, high, a, b, c, d, e, f, g, h, time] = *operation else {
            return;
        };
        // From nothing at all to half an hour, and once in a while to the end.
        now = now.saturating_add(1u64.checked_shl(time.into()).unwrap_or(0));
        let register = u16::from_le_bytes([low, high]);
        let value = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let Some(lapic) = lapics.get_mut(usize::from(kind >> 7)) else {
            return;
        };
        let mode = lapic.mode();
        let effect = match kind & 7 {
            // MSRs, most of them near those that exist.
            0 => {
                let read = lapic.read_msr(0x800 + u32::from(register & 0x1ff), now);
                assert!(mode == Mode::X2Apic || read.is_err());
                None
            }
            1 => {
                let msr = 0x800 + u32::from(register & 0x1ff);
                let written = lapic.write_msr(msr, value, now);
                assert!(mode == Mode::X2Apic || written.is_err());
                written.ok().flatten()
            }
            2 => {
                let mut data = [0xee; 8];
                let size = usize::from(kind >> 3 & 7) + 1;
                lapic.read_page(register.into(), &mut data[..size], now);
                None
            }
            3 => {
                let bytes = value.to_le_bytes();
                let size = match kind >> 3 & 15 {
                    size @ 0..=8 => usize::from(size),
                    _ => 4,
                };
                lapic.write_page(register.into(), &bytes[..size], now)
            }
            4 => {
                // The legal bits, or any.
                let base = if kind & 8 == 0 {
                    value & 0xfff_fd00 | value & 0xd00
                } else {
                    value
                };
                let before = lapic.base();
                match lapic.write_base(base, now) {
                    Ok(()) => assert_eq!(lapic.base(), base),
                    Err(_) => assert_eq!(lapic.base(), before),
                }
                None
            }
            5 => {
                let work = lapic.scan(now);
                let due = lapic.deadline();
                assert!(due.is_none_or(|at| at > now || now == u64::MAX));
                if let Some(vector) = work.interrupt {
                    assert!(vector >= 16);
                    assert!(!lapic.waits_for_sipi());
                    assert!(lapic.acknowledge(vector));
                    // What is in service now keeps it and all below from coming.
                    assert!(
                        lapic
                            .deliverable()
                            .is_none_or(|next| next >> 4 > vector >> 4)
                    );
                }
                None
            }
            6 => lapic.eoi(),
            _ => {
                let state = lapic.save(now);
                lapic
                    .restore(state.clone(), now)
                    .expect("what was saved is valid");
                assert_eq!(lapic.save(now), state);
                lapic.set_cr8(a);
                None
            }
        };
        let from = lapic.id();
        match effect {
            Some(Effect::Send(message)) => {
                signals.clear();
                let sent = bus.send(&message, Some(from), &mut signals);
                assert!(sent <= IDS.len() && signals.len() <= sent);
                assert!(signals.iter().all(|signal| match signal {
                    Signal::Look(id) | Signal::Kick(id) => IDS.contains(id),
                }));
            }
            Some(Effect::Eoi(vector)) => drop(ioapic.eoi(vector)),
            None => {}
        }
    }
});
