//! A guest's accesses to ports and MMIO, and input for its serial port, in any
//! order.
//!
//! Six bytes an access: kind and width, port (or page of an MMIO address), and
//! three of data; what is written is repeated from these.

#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use vmm_reference::devices::output::Output;
use vmm_reference::devices::serial::Com1;
use vmm_reference::devices::{Bus, BusEvent};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

static OUTPUT: LazyLock<Output> =
    LazyLock::new(|| Output::to(std::io::sink()).expect("a thread for the output"));

fuzz_target!(|accesses: &[u8]| {
    let line = EventFd::new(EFD_NONBLOCK).expect("an event");
    let com1 = Com1::new(OUTPUT.clone(), Arc::new(line)).expect("an event");
    let bus = Bus::pc(com1.clone());
    for access in accesses.chunks_exact(6) {
        let [kind, low, high, a, b, c] = *access else {
            return;
        };
        let port = u16::from_le_bytes([low, high]);
        let gpa = u64::from(port) << 12;
        let width = usize::from(kind >> 4) % 9;
        let mut data = [a, b, c, a, b, c, a, b];
        let data = &mut data[..width];
        match kind & 7 {
            0 | 1 => match bus.pio_write(port, data) {
                None => {}
                Some(BusEvent::Exit(value)) => assert_eq!((port, value), (0xf4, a)),
                Some(BusEvent::Reset) => assert_eq!((port, a), (0x64, 0xfe)),
                // PM1 control, and the sleep control of hardware-reduced ACPI.
                Some(BusEvent::PowerOff) => assert!([0x604, 0x60c].contains(&port)),
            },
            2 | 3 => bus.pio_read(port, data),
            4 => bus.mmio_write(gpa, data),
            5 => {
                bus.mmio_read(gpa, data);
                assert!(data.iter().all(|byte| *byte == 0xff));
            }
            _ => com1.input(data),
        }
        assert!(com1.room() <= 64);
    }
});
