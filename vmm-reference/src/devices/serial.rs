//! COM1: a 16550A by vm-superio, its interrupt an irqfd, its output a bounded
//! buffer.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use vm_superio::serial::{SerialEvents, SerialState};
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::output::Output;

/// The first of its ports.
pub const COM1: u16 = 0x3f8;
/// Number of its ports.
pub const PORTS: u8 = 8;
/// Its interrupt: a GSI, a pin of the I/O APIC.
pub const COM1_GSI: u32 = 4;

/// An interrupt line, edge-triggered.
pub trait InterruptLine: std::fmt::Debug + Send + Sync {
    /// One edge.
    ///
    /// # Errors
    /// It could not be made.
    fn interrupt(&self) -> io::Result<()>;
}

/// As an irqfd of KVM: each write is one edge.
impl InterruptLine for EventFd {
    fn interrupt(&self) -> io::Result<()> {
        self.write(1)
    }
}

#[derive(Clone, Debug)]
struct Interrupt(Arc<dyn InterruptLine>);

impl Trigger for Interrupt {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.interrupt()
    }
}

/// Wakes the console when the guest has read all of its input.
#[derive(Debug)]
struct InputWanted(EventFd);

impl SerialEvents for InputWanted {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        // It fails only when the counter is full, and then the reader will wake.
        let _ = self.0.write(1);
    }
}

type Uart = Serial<Interrupt, InputWanted, Output>;

/// COM1, shared by the vCPUs and the console.
#[derive(Clone)]
pub struct Com1 {
    uart: Arc<Mutex<Uart>>,
    line: Interrupt,
    output: Output,
    input_wanted: Arc<EventFd>,
}

/// The registers of COM1 and the input that its guest has not read. Output is not
/// the guest's any more: whoever ends the VM writes the rest of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedCom1(#[serde(with = "Registers")] SerialState);

/// vm-superio's state, for serde.
#[derive(Serialize, Deserialize)]
#[serde(remote = "SerialState")]
struct Registers {
    baud_divisor_low: u8,
    baud_divisor_high: u8,
    interrupt_enable: u8,
    interrupt_identification: u8,
    line_control: u8,
    line_status: u8,
    modem_control: u8,
    modem_status: u8,
    scratch: u8,
    in_buffer: Vec<u8>,
}

impl std::fmt::Debug for Com1 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Com1").finish_non_exhaustive()
    }
}

impl Com1 {
    /// A port that writes to `output` and interrupts by `line`.
    ///
    /// # Errors
    /// The system has no event for it.
    pub fn new(output: Output, line: Arc<dyn InterruptLine>) -> io::Result<Self> {
        let input_wanted = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
        let line = Interrupt(line);
        let uart = Serial::with_events(
            line.clone(),
            InputWanted(input_wanted.try_clone()?),
            output.clone(),
        );
        Ok(Self {
            output,
            line,
            uart: Arc::new(Mutex::new(uart)),
            input_wanted: Arc::new(input_wanted),
        })
    }

    /// Its state.
    pub fn save(&self) -> SavedCom1 {
        SavedCom1(self.uart().state())
    }

    /// Puts a saved state in. An interrupt that the guest has not looked for yet
    /// comes once more.
    ///
    /// # Errors
    /// More input than it has room for, or the system refused an event.
    pub fn restore(&self, saved: &SavedCom1) -> io::Result<()> {
        let events = InputWanted(self.input_wanted.try_clone()?);
        let uart = Serial::from_state(&saved.0, self.line.clone(), events, self.output.clone());
        *self.uart() = uart.map_err(|e| io::Error::other(format!("COM1: {e}")))?;
        Ok(())
    }

    /// Whether `port` is one of its registers.
    pub fn claims(port: u16) -> bool {
        (COM1..COM1 + u16::from(PORTS)).contains(&port)
    }

    /// Readable when the guest has read all input.
    pub fn input_wanted(&self) -> &EventFd {
        &self.input_wanted
    }

    // A vCPU thread that panicked inside left registers, no invariant.
    fn uart(&self) -> MutexGuard<'_, Uart> {
        self.uart.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a register: `port` is one it [`claims`](Self::claims). Waits while
    /// there is no room for output, without the lock: input goes on.
    pub fn write(&self, port: u16, value: u8) {
        if port == COM1 {
            self.output.wait_for_room();
        }
        // The driver can't be informed: output that is refused is lost, as on a
        // wire that nobody reads, and an interrupt counter is never full.
        let _ = self.uart().write(offset(port), value);
    }

    /// Reads a register.
    pub fn read(&self, port: u16) -> u8 {
        self.uart().read(offset(port))
    }

    /// How many bytes of input the guest's port has room for.
    pub fn room(&self) -> usize {
        self.uart().fifo_capacity()
    }

    /// Gives input to the guest; bytes beyond [`Com1::room`] are lost.
    pub fn input(&self, bytes: &[u8]) {
        // An error is a full FIFO or an interrupt counter that is full.
        let _ = self.uart().enqueue_raw_bytes(bytes);
    }
}

fn offset(port: u16) -> u8 {
    u8::try_from(port.saturating_sub(COM1)).unwrap_or(u8::MAX)
}
