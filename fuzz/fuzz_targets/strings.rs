//! `rep ins` and `rep outs` of any port, size, count and direction, and strings of
//! MMIO, on all devices of a PC and the test device. Against a model that takes one
//! element after the other, written from the devices' data sheets: a UART 16550, a
//! keyboard controller without a keyboard, ACPI's fixed hardware, QEMU's pc-testdev.
//!
//! Eight bytes an operation: kind and size, port (or where in the device's memory),
//! number of elements, four of data; what is written is made from these, another
//! element each time.

#![no_main]

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use vmm_reference::devices::output::Output;
use vmm_reference::devices::serial::Com1;
use vmm_reference::devices::test_device::{GsiLines, TestDevice};
use vmm_reference::devices::{Bus, BusEvent};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Ports that something answers, and their neighbours; any other one too.
const PORTS: [u16; 32] = [
    0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff, 0x3f7, 0x400, 0x60, 0x61, 0x64, 0xf4,
    0x5ff, 0x600, 0x602, 0x603, 0x604, 0x606, 0x608, 0x60a, 0x60c, 0x60d, 0x60e, 0xe0, 0xe3, 0xe9,
    0xe5, 0x2000, 0x2017, 0x2018,
];
/// The test device's memory.
const MEMORY: u64 = 0xff00_0000;
const MEMORY_BYTES: usize = 1 << 16;
/// Bytes of KVM's page for the data of one exit.
const PAGE: usize = 4096;
/// Bytes that a UART of this process holds.
const FIFO: usize = 64;

/// What COM1 has put out.
static PRINTED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Printer;

impl Write for Printer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        PRINTED.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

static OUTPUT: LazyLock<Output> =
    LazyLock::new(|| Output::to(Printer).expect("a thread for the output"));

/// What the test device's lines were told.
#[derive(Debug, Default)]
struct Lines(Mutex<Vec<(u32, bool)>>);

impl GsiLines for Lines {
    fn set(&self, gsi: u32, asserted: bool) {
        self.0.lock().expect("no panic").push((gsi, asserted));
    }
}

/// The devices as their data sheets have them; None is a value that is not the
/// model's to know: a reset value, a time, a pending interrupt.
struct Model {
    received: VecDeque<u8>,
    printed: Vec<u8>,
    interrupt_enable: Option<u8>,
    line_control: Option<u8>,
    modem_control: Option<u8>,
    scratch: Option<u8>,
    divisor: [Option<u8>; 2],
    enabled_events: [u8; 2],
    test_ports: [u8; 4],
    memory: Vec<u8>,
    lines: Vec<(u32, bool)>,
    unclaimed: u64,
}

impl Model {
    fn new() -> Self {
        Self {
            received: VecDeque::new(),
            printed: Vec::new(),
            interrupt_enable: None,
            // The divisor is not in the way, and nothing loops back.
            line_control: None,
            modem_control: None,
            scratch: None,
            divisor: [None; 2],
            enabled_events: [0; 2],
            test_ports: [0; 4],
            memory: vec![0; MEMORY_BYTES],
            lines: Vec::new(),
            unclaimed: 0,
        }
    }

    /// DLAB: the first two registers are the divisor's.
    fn divides(&self) -> bool {
        self.line_control.is_some_and(|control| control & 0x80 != 0)
    }

    fn loops(&self) -> bool {
        self.modem_control
            .is_some_and(|control| control & 0x10 != 0)
    }

    fn input(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if !self.loops() && self.received.len() < FIFO {
                self.received.push_back(byte);
            }
        }
    }

    /// One element to a port.
    fn out(&mut self, port: u16, element: &[u8]) -> Option<BusEvent> {
        let low = *element.first()?;
        match port {
            0xf4 => return Some(BusEvent::Exit(low)),
            0x64 if low == 0xfe => return Some(BusEvent::Reset),
            0x60 | 0x64 => {}
            0x3f8 if self.divides() => self.divisor[0] = Some(low),
            0x3f9 if self.divides() => self.divisor[1] = Some(low),
            0x3f8 if self.loops() => {
                if self.received.len() < FIFO {
                    self.received.push_back(low);
                }
            }
            0x3f8 => self.printed.push(low),
            // Four interrupts; the other bits are 0.
            0x3f9 => self.interrupt_enable = Some(low & 0xf),
            0x3fb => self.line_control = Some(low),
            0x3fc => self.modem_control = Some(low),
            0x3ff => self.scratch = Some(low),
            0x3fa | 0x3fd | 0x3fe => {}
            0x602 => {
                let high = element.get(1).copied().unwrap_or(0);
                self.enabled_events = [low, high];
            }
            // PM1 control: SLP_EN is bit 13, SLP_TYP bits 10 to 12.
            0x604 => {
                let high = element.get(1).copied().unwrap_or(0);
                if high & 0x20 != 0 && high >> 2 & 7 == 5 {
                    return Some(BusEvent::PowerOff);
                }
            }
            // The sleep control register: bit 5, and bits 2 to 4.
            0x60c if low & 0x20 != 0 && low >> 2 & 7 == 5 => return Some(BusEvent::PowerOff),
            0x600..=0x60d => {}
            0xe0..=0xe3 | 0xe8..=0xeb => {
                for (at, &byte) in (usize::from(port & 3)..4).zip(element) {
                    self.test_ports[at] = byte;
                }
            }
            0x2000..=0x2017 => {
                if element.len() == 1 {
                    self.lines.push((u32::from(port - 0x2000), low != 0));
                }
            }
            _ => self.unclaimed += 1,
        }
        None
    }

    /// One element from a port: its bytes, where the model knows them.
    fn ins(&mut self, port: u16, size: usize) -> Vec<Option<u8>> {
        let mut bytes = vec![Some(0xff); size];
        let first = match port {
            0x3f8 if self.divides() => self.divisor[0],
            0x3f9 if self.divides() => self.divisor[1],
            0x3f8 => Some(self.received.pop_front().unwrap_or(0)),
            0x3f9 => self.interrupt_enable,
            0x3fb => self.line_control,
            0x3fc => self.modem_control,
            0x3ff => self.scratch,
            0x3fa | 0x3fd | 0x3fe => None,
            0x60 | 0x64 => Some(0),
            0x600..=0x60d => {
                let [low, high] = self.enabled_events.map(Some);
                let none = Some(0);
                // Blocks of four bytes: events (status, enable), control with
                // SCI_EN, the timer, the sleep registers.
                let blocks = [
                    [none, none, low, high],
                    [Some(1), none, none, none],
                    [None; 4],
                    [none; 4],
                ];
                let (block, at) = (usize::from(port - 0x600) / 4, usize::from(port & 3));
                for (to, from) in bytes.iter_mut().zip(&blocks[block][at..]) {
                    *to = *from;
                }
                return bytes;
            }
            0xe0..=0xe3 | 0xe8..=0xeb => {
                for (to, from) in bytes
                    .iter_mut()
                    .zip(&self.test_ports[usize::from(port & 3)..])
                {
                    *to = Some(*from);
                }
                return bytes;
            }
            0x2000..=0x2017 => Some(0xff),
            _ => {
                self.unclaimed += 1;
                Some(0xff)
            }
        };
        bytes[0] = first;
        bytes
    }

    /// Where in the device's memory an access is; it is not cut.
    fn in_memory(&mut self, gpa: u64, size: usize) -> Option<&mut [u8]> {
        let inside = gpa >= MEMORY && gpa + size as u64 <= MEMORY + MEMORY_BYTES as u64;
        if !inside {
            self.unclaimed += 1;
            return None;
        }
        let at = (gpa - MEMORY) as usize;
        Some(&mut self.memory[at..at + size])
    }
}

/// Byte `n` of what is written.
fn byte(seed: &[u8; 4], n: usize) -> u8 {
    // The seed itself first, so that an input decides what is written.
    seed[n % 4].wrapping_add(((n / 4) as u8).wrapping_mul(29))
}

fuzz_target!(|operations: &[u8]| {
    let lines = Arc::new(Lines::default());
    let line = EventFd::new(EFD_NONBLOCK).expect("an event");
    let com1 = Com1::new(OUTPUT.clone(), Arc::new(line)).expect("an event");
    let device = TestDevice::new(Arc::clone(&lines) as Arc<dyn GsiLines>);
    let bus = Bus::pc(com1.clone()).with_test_device(Some(device));
    let mut model = Model::new();
    PRINTED.lock().expect("no panic").clear();
    for operation in operations.chunks_exact(8) {
        let [kind, which, high, count, a, b, c, d] = *operation else {
            return;
        };
        let seed = [a, b, c, d];
        // KVM's sizes of elements: of port I/O, and of MMIO.
        let (size, mmio_size) = (1 << (kind >> 4 & 3).min(2), usize::from(kind >> 4 & 7) + 1);
        let port = match kind & 8 {
            0 => PORTS[usize::from(which) % PORTS.len()],
            _ => u16::from_le_bytes([which, high]),
        };
        let gpa = match kind & 8 {
            0 => MEMORY + u64::from(u16::from_le_bytes([which, high])),
            // Around its end and its beginning.
            _ => MEMORY + u64::from(high & 1) * MEMORY_BYTES as u64 + u64::from(which) - 128,
        };
        // Up to a page of elements, as KVM brings them.
        let count = match count {
            0xf0.. => PAGE / size,
            count => usize::from(count).min(PAGE / size),
        };
        match kind & 7 {
            0..3 => {
                let data: Vec<u8> = (0..count * size).map(|n| byte(&seed, n)).collect();
                let mut expected = None;
                for element in 0..count {
                    let element = &data[element * size..][..size];
                    if expected.is_none() {
                        expected = model.out(port, element);
                    }
                }
                let event = bus.pio_write_string(port, size, &data);
                assert_eq!(event, expected, "out to {port:#x}");
                if event.is_some() {
                    // The VM ends.
                    break;
                }
            }
            3..5 => {
                let mut data = vec![a; count * size];
                bus.pio_read_string(port, size, &mut data);
                for (n, element) in (0..count).map(|n| (n, &data[n * size..][..size])) {
                    for (at, known) in model.ins(port, size).iter().enumerate() {
                        if let Some(known) = known {
                            let read = element[at];
                            assert_eq!(read, *known, "{port:#x}: element {n} of {size}, byte {at}");
                        }
                    }
                }
            }
            5 => {
                // `rep movs` and `rep stos`: an exit for each element.
                for n in 0..count {
                    let data: Vec<u8> = (0..mmio_size)
                        .map(|at| byte(&seed, n * mmio_size + at))
                        .collect();
                    let to = gpa + (n * mmio_size) as u64;
                    bus.mmio_write(to, &data);
                    if let Some(memory) = model.in_memory(to, mmio_size) {
                        memory.copy_from_slice(&data);
                    }
                }
            }
            6 => {
                for n in 0..count {
                    let from = gpa + (n * mmio_size) as u64;
                    let mut data = vec![a; mmio_size];
                    bus.mmio_read(from, &mut data);
                    match model.in_memory(from, mmio_size) {
                        Some(memory) => assert_eq!(data, memory, "{from:#x}"),
                        None => assert_eq!(data, vec![0xff; mmio_size], "{from:#x}"),
                    }
                }
            }
            _ => {
                let bytes: Vec<u8> = (0..count.min(100)).map(|n| byte(&seed, n)).collect();
                com1.input(&bytes);
                model.input(&bytes);
            }
        }
        assert_eq!(com1.room(), FIFO - model.received.len());
        assert_eq!(bus.unclaimed_accesses(), model.unclaimed);
    }
    assert_eq!(*lines.0.lock().expect("no panic"), model.lines);
    OUTPUT.flush_within(Duration::from_secs(5));
    assert_eq!(*PRINTED.lock().expect("no panic"), model.printed);
});
