//! What a guest reaches by port I/O and MMIO.
//!
//! A guest can touch any port and any hole in its memory: what nothing answers
//! reads as all ones, swallows writes and is counted, never an error.

pub mod i8042;
pub mod output;
pub mod pm;
pub mod serial;
pub mod test_device;

use std::sync::atomic::{AtomicU64, Ordering};

use pm::{PowerManagement, SavedPm};
use serde::{Deserialize, Serialize};
use serial::{Com1, SavedCom1};
use test_device::TestDevice;

/// Writing value `v` here ends the VM with status `(v << 1) | 1`, as QEMU's
/// isa-debug-exit does.
pub const EXIT_PORT: u8 = 0xf4;

/// What a guest's write asks of the VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusEvent {
    /// A write of this value to [`EXIT_PORT`].
    Exit(u8),
    /// Reset by the keyboard controller or the ACPI reset register.
    Reset,
    /// Off, by ACPI.
    PowerOff,
}

/// The devices of a PC.
#[derive(Debug)]
struct Pc {
    com1: Com1,
    pm: PowerManagement,
}

/// The state of a VM's devices. The keyboard controller has none.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedDevices {
    /// Those of a PC, if it is one.
    pc: Option<(SavedCom1, SavedPm)>,
    unclaimed: u64,
}

/// All devices of a VM; shared by its vCPUs.
#[derive(Debug, Default)]
pub struct Bus {
    pc: Option<Pc>,
    test_device: Option<TestDevice>,
    unclaimed: AtomicU64,
}

impl Bus {
    /// The devices of a PC: `com1`, the keyboard controller's reset, ACPI's
    /// power ports. The default bus has the exit port only.
    pub fn pc(com1: Com1) -> Self {
        Self {
            pc: Some(Pc {
                com1,
                pm: PowerManagement::new(),
            }),
            ..Self::default()
        }
    }

    /// With a test device, if there is to be one.
    #[must_use]
    pub fn with_test_device(mut self, device: Option<TestDevice>) -> Self {
        self.test_device = device;
        self
    }

    /// Whether there is a test device, whose state is in no snapshot.
    pub fn has_test_device(&self) -> bool {
        self.test_device.is_some()
    }

    /// The devices' state, while no vCPU runs.
    pub fn save(&self) -> SavedDevices {
        let pc = self.pc.as_ref().map(|pc| (pc.com1.save(), pc.pm.save()));
        SavedDevices {
            pc,
            unclaimed: self.unclaimed_accesses(),
        }
    }

    /// Puts a saved state in, before a vCPU runs.
    ///
    /// # Errors
    /// It is that of another machine, or the system refused something.
    pub fn restore(&self, saved: &SavedDevices) -> std::io::Result<()> {
        // Relaxed: a statistic.
        self.unclaimed.store(saved.unclaimed, Ordering::Relaxed);
        match (&self.pc, &saved.pc) {
            (Some(pc), Some((com1, pm))) => {
                pc.pm.restore(pm);
                pc.com1.restore(com1)
            }
            (None, None) => Ok(()),
            _ => Err(std::io::Error::other("the devices of another machine")),
        }
    }

    /// `out` of `data` to `port`.
    pub fn pio_write(&self, port: u16, data: &[u8]) -> Option<BusEvent> {
        let Some(&value) = data.first() else {
            self.unclaimed();
            return None;
        };
        if port == u16::from(EXIT_PORT) {
            return Some(BusEvent::Exit(value));
        }
        match &self.pc {
            Some(pc) if Com1::claims(port) => pc.com1.write(port, value),
            Some(pc) if PowerManagement::claims(port) => {
                return pc.pm.write(port, data).then_some(BusEvent::PowerOff);
            }
            Some(_) if matches!(port, i8042::DATA | i8042::COMMAND) => {
                return i8042::write(port, value).then_some(BusEvent::Reset);
            }
            _ => match &self.test_device {
                Some(device) if device.pio_write(port, data) => {}
                _ => self.unclaimed(),
            },
        }
        None
    }

    /// `in` from `port`.
    pub fn pio_read(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        let byte = match &self.pc {
            Some(pc) if Com1::claims(port) => pc.com1.read(port),
            Some(_) if matches!(port, i8042::DATA | i8042::COMMAND) => i8042::read(),
            Some(pc) if PowerManagement::claims(port) => return pc.pm.read(port, data),
            _ => match &self.test_device {
                Some(device) if device.pio_read(port, data) => return,
                _ => return self.unclaimed(),
            },
        };
        if let Some(to) = data.first_mut() {
            *to = byte;
        }
    }

    /// `rep outs` to `port`, in elements of `size` bytes: each is the port's, up to the
    /// first that asks for something. One element is an `out`.
    pub fn pio_write_string(&self, port: u16, size: usize, data: &[u8]) -> Option<BusEvent> {
        let mut elements = data.chunks(size.max(1));
        elements.find_map(|element| self.pio_write(port, element))
    }

    /// `rep ins` from `port`, in elements of `size` bytes: each is the port's. One
    /// element is an `in`.
    pub fn pio_read_string(&self, port: u16, size: usize, data: &mut [u8]) {
        for element in data.chunks_mut(size.max(1)) {
            self.pio_read(port, element);
        }
    }

    /// A store outside guest memory.
    pub fn mmio_write(&self, gpa: u64, data: &[u8]) {
        match &self.test_device {
            Some(device) if device.mmio_write(gpa, data) => {}
            _ => self.unclaimed(),
        }
    }

    /// A load outside guest memory.
    pub fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        match &self.test_device {
            Some(device) if device.mmio_read(gpa, data) => {}
            _ => {
                self.unclaimed();
                data.fill(0xff);
            }
        }
    }

    fn unclaimed(&self) {
        // Relaxed: a statistic; no other memory is ordered by it.
        self.unclaimed.fetch_add(1, Ordering::Relaxed);
    }

    /// Accesses that no device answered.
    pub fn unclaimed_accesses(&self) -> u64 {
        // Relaxed: as above.
        self.unclaimed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    fn irqfd() -> EventFd {
        EventFd::new(EFD_NONBLOCK).unwrap()
    }

    #[test]
    fn only_the_exit_port_asks_for_anything() {
        let bus = Bus::default();
        for port in 0..=u16::MAX {
            let event = bus.pio_write(port, &[7, 8, 9, 10]);
            assert_eq!(event.is_some(), port == 0xf4, "port {port:#x}");
        }
        assert_eq!(bus.pio_write(0xf4, &[]), None, "no byte, no exit");
        assert_eq!(bus.unclaimed_accesses(), 0x1_0000);
    }

    #[test]
    fn nothing_reads_as_all_ones() {
        let bus = Bus::default();
        let mut data = [0; 8];
        bus.pio_read(0x3f8, &mut data);
        assert_eq!(data, [0xff; 8]);
        data.fill(0);
        bus.mmio_read(0xfee0_0000, &mut data);
        assert_eq!(data, [0xff; 8]);
    }

    #[test]
    fn a_pc_resets_and_turns_off() {
        let output = output::Output::to(std::io::sink()).unwrap();
        let bus = Bus::pc(Com1::new(output.clone(), Arc::new(irqfd())).unwrap());
        assert_eq!(bus.pio_write(0x64, &[0xfe]), Some(BusEvent::Reset));
        assert_eq!(bus.pio_write(0x60, &[0xfe]), None, "data, no command");
        let off = 0x3400u16.to_le_bytes();
        assert_eq!(bus.pio_write(0x604, &off), Some(BusEvent::PowerOff));
        assert_eq!(bus.unclaimed_accesses(), 0);
        let mut status = [0xff];
        bus.pio_read(0x64, &mut status);
        assert_eq!(status, [0], "the controller is ready for a command");
        output.close();
    }

    #[test]
    fn what_com1_is_given_comes_out() {
        let (send, receive) = std::sync::mpsc::channel::<Vec<u8>>();
        struct Sink(std::sync::mpsc::Sender<Vec<u8>>);
        impl std::io::Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.send(bytes.to_vec()).unwrap();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let output = output::Output::to(Sink(send)).unwrap();
        let bus = Bus::pc(Com1::new(output.clone(), Arc::new(irqfd())).unwrap());
        for byte in b"hello" {
            bus.pio_write(0x3f8, &[*byte]);
        }
        output.flush_within(Duration::from_secs(60));
        output.close();
        let all: Vec<u8> = receive.iter().flatten().collect();
        assert_eq!(all, b"hello");
    }
}
