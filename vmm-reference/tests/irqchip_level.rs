//! A level-triggered line that its device never takes back: an interrupt after each
//! EOI, none in between, whatever else happens to the controllers.
//!
//! Expected, from the 82093AA data sheet, section 3.2.4, redirection table entry, bit
//! 14: "For level triggered interrupts, this bit is set to 1 when local APIC(s) accept
//! the level interrupt sent by the IOAPIC. The Remote IRR bit is set to 0 when an EOI
//! message with a matching interrupt vector is received from a local APIC", and the SDM,
//! volume 3, 11.8.5: the EOI of a level-triggered vector (its TMR bit is 1) goes to all
//! I/O APICs. So n EOIs make n + 1 interrupts.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

use proptest::prelude::*;
use vmm_reference::irqchip::userspace::{
    ApicBus, Delivery, Destination, Effect, Features, IoApic, Lapic, Message, Signal,
};

/// The line, its vector, and one of a higher priority class and one of a lower.
const PIN: u8 = 20;
const VECTOR: u8 = 0x70;
const HIGHER: u8 = 0x91;
const LOWER: u8 = 0x41;

/// x2APIC registers.
const TPR: u32 = 0x808;
const EOI: u32 = 0x80b;
const SPURIOUS: u32 = 0x80f;

/// One processor and the I/O APIC, and what was delivered.
struct Machine {
    bus: ApicBus,
    ioapic: IoApic,
    lapic: Lapic,
    /// Vectors in the order in which the processor took them.
    taken: Vec<u8>,
    /// Messages that the I/O APIC sent.
    sent: usize,
}

impl Machine {
    /// The line is asserted, its entry level-triggered and not masked.
    fn stuck() -> Self {
        let bus = ApicBus::new(&[0]).unwrap();
        let mut lapic = Lapic::new(bus.inbox(0).unwrap(), true, Features::default());
        lapic.write_base(lapic.base() | 1 << 10, 0).unwrap();
        lapic.write_msr(SPURIOUS, 0x1ff, 0).unwrap();
        let mut machine = Self {
            bus,
            ioapic: IoApic::new(),
            lapic,
            taken: Vec::new(),
            sent: 0,
        };
        machine.entry(1 << 15 | u32::from(VECTOR));
        machine.line(true);
        machine
    }

    /// Writes the low half of the pin's entry.
    fn entry(&mut self, low: u32) {
        self.ioapic.write(0, &[0x10 + 2 * PIN]);
        let message = self.ioapic.write(0x10, &low.to_le_bytes());
        self.send(message);
    }

    fn line(&mut self, asserted: bool) {
        let message = self.ioapic.set_line(PIN.into(), asserted);
        self.send(message);
    }

    fn send(&mut self, messages: impl IntoIterator<Item = Message>) {
        for message in messages {
            self.sent += 1;
            let mut signals = Vec::new();
            assert_eq!(self.bus.send(&message, None, &mut signals), 1);
        }
    }

    /// An edge of another device's.
    fn edge(&mut self, vector: u8) {
        let message = Message {
            destination: Destination::Physical(0),
            delivery: Delivery::Fixed,
            vector,
            level: false,
        };
        let mut signals: Vec<Signal> = Vec::new();
        assert_eq!(self.bus.send(&message, None, &mut signals), 1);
    }

    /// The processor, with interrupts on, takes one if there is one.
    fn take(&mut self) -> bool {
        let Some(vector) = self.lapic.scan(0).interrupt else {
            return false;
        };
        assert!(self.lapic.acknowledge(vector));
        self.taken.push(vector);
        true
    }

    /// Its handler's EOI, of what it took last and has not ended.
    fn eoi(&mut self) {
        let effect = self.lapic.write_msr(EOI, 0, 0).unwrap();
        if let Some(Effect::Eoi(vector)) = effect {
            let again = self.ioapic.eoi(vector);
            assert!(again.len() <= 1, "one line, one message: {again:?}");
            self.send(again);
        }
    }
}

#[test]
fn one_after_each_eoi_and_none_in_between() {
    let mut machine = Machine::stuck();
    for eois in 0..1000 {
        assert!(machine.take(), "the line is up still");
        assert_eq!(machine.taken.len(), eois + 1);
        // In service: neither the processor nor the device gets it delivered again.
        for _ in 0..3 {
            machine.line(true);
            assert!(!machine.take());
        }
        assert_eq!(machine.sent, eois + 1);
        machine.eoi();
    }
    assert!(machine.taken.iter().all(|&vector| vector == VECTOR));
    // The device takes it back: what was sent is delivered, and that was the last.
    machine.line(false);
    assert!(machine.take());
    machine.eoi();
    assert!(!machine.take());
    assert_eq!(machine.sent, 1001);
}

/// What a guest does about it (Linux: "nobody cared").
#[test]
fn masked_in_its_handler_it_is_quiet() {
    let mut machine = Machine::stuck();
    assert!(machine.take());
    machine.entry(1 << 16 | 1 << 15 | u32::from(VECTOR));
    machine.eoi();
    assert!(!machine.take());
    // Others are delivered now, of a lower class too.
    machine.edge(LOWER);
    assert!(machine.take());
    assert_eq!(machine.taken, [VECTOR, LOWER]);
    machine.eoi();
    machine.entry(1 << 15 | u32::from(VECTOR));
    assert!(machine.take());
    assert_eq!(machine.taken, [VECTOR, LOWER, VECTOR]);
}

/// A guest that works at a task priority of the line's class or above is not
/// interrupted by it, however long it is up.
#[test]
fn above_its_priority_a_guest_works_undisturbed() {
    let mut machine = Machine::stuck();
    machine.lapic.write_msr(TPR, 0x7f, 0).unwrap();
    for _ in 0..100 {
        machine.line(true);
        assert!(!machine.take());
    }
    assert_eq!(machine.sent, 1);
    machine.edge(HIGHER);
    assert!(machine.take());
    machine.eoi();
    machine.lapic.write_msr(TPR, 0x6f, 0).unwrap();
    assert!(machine.take());
    assert_eq!(machine.taken, [HIGHER, VECTOR]);
}

/// What may happen beside a stuck line.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The device says again that it asserts.
    Assert,
    /// Another device's edge, of a higher class.
    Edge,
    /// A write of the entry that it has already.
    SameEntry,
    TaskPriority(u8),
    Take,
    Eoi,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Assert),
        1 => Just(Step::Edge),
        1 => Just(Step::SameEntry),
        1 => any::<u8>().prop_map(Step::TaskPriority),
        4 => Just(Step::Take),
        3 => Just(Step::Eoi),
    ]
}

proptest! {
    /// Whatever happens in whatever order, an EOI of the line's vector is between
    /// any two of its interrupts, and each of these EOIs has the line sent once more.
    #[test]
    fn an_eoi_is_between_any_two(steps in prop::collection::vec(step(), 0..200)) {
        let mut machine = Machine::stuck();
        // What the processor took and has not ended, the last on top.
        let mut in_service = Vec::new();
        let mut ended = 0;
        for step in steps {
            match step {
                Step::Assert => machine.line(true),
                Step::Edge => machine.edge(HIGHER),
                Step::SameEntry => machine.entry(1 << 15 | u32::from(VECTOR)),
                Step::TaskPriority(priority) => {
                    machine.lapic.write_msr(TPR, priority.into(), 0).unwrap();
                }
                Step::Take => {
                    if machine.take() {
                        let vector = *machine.taken.last().unwrap();
                        prop_assert!(vector == HIGHER || !in_service.contains(&VECTOR));
                        in_service.push(vector);
                    }
                }
                Step::Eoi => {
                    if in_service.pop() == Some(VECTOR) {
                        ended += 1;
                    }
                    machine.eoi();
                }
            }
            prop_assert_eq!(machine.sent, ended + 1);
        }
    }
}
