//! The hosted backend: a guest's program on a host thread, at native speed.
//!
//! No /dev/kvm and no guest mode: what an exit costs is left out, the rest of a
//! kick's path is the same.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use hypercall_abi::RawHypercall;

use super::backend_error::BackendError;
use super::exit::{Exit, Interruptible, PrivateIo, VcpuBackend};
use super::exit_request::ExitRequest;
use crate::devices::{Bus, BusEvent};
use crate::memory::MemoryError;

/// Why a program left the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramExit {
    /// HLT.
    Halt,
    /// A hypercall; [`Program::set_result`] answers it.
    Hypercall(RawHypercall),
    /// A write of this value to the exit port.
    ExitPort(u8),
    /// WRMSR: index and value.
    WriteMsr(u32, u64),
    /// The exit request was found set.
    Interrupted,
}

/// A guest that is a state machine of this process.
pub trait Program: Debug + Send + 'static {
    /// Runs until the guest leaves, or until `exit_request` is found not 0; the
    /// next call goes on from there.
    ///
    /// # Errors
    /// The program left guest memory.
    fn run(&mut self, exit_request: &AtomicU8) -> Result<ProgramExit, MemoryError>;

    /// What the guest finds in RAX behind its hypercall.
    fn set_result(&mut self, rax: u64);

    /// RFLAGS.IF. A program that turns interrupts on leaves the guest with
    /// [`ProgramExit::Interrupted`] or with its HLT, so that one that waits comes
    /// in.
    fn interrupts_enabled(&self) -> bool {
        false
    }

    /// Interrupts are on, and this vector comes: [`Program::run`] goes on in its
    /// handler.
    fn interrupt(&mut self, vector: u8) {
        let _ = vector;
    }
}

/// A vCPU that is a state machine.
#[derive(Debug)]
pub struct HostedVcpu {
    program: Box<dyn Program>,
    exit_request: Arc<ExitRequest>,
    /// A vector was given to it since it ran last.
    interrupted: bool,
    cr8: u8,
}

impl HostedVcpu {
    /// A vCPU at the start of `program`.
    pub fn new(program: Box<dyn Program>) -> Self {
        Self {
            program,
            exit_request: Arc::new(ExitRequest::polled()),
            interrupted: false,
            cr8: 0,
        }
    }
}

impl VcpuBackend for HostedVcpu {
    fn run(&mut self, _bus: &Bus, own: &mut dyn PrivateIo) -> Result<Exit, BackendError> {
        self.interrupted = false;
        Ok(match self.program.run(self.exit_request.byte())? {
            ProgramExit::Halt => Exit::Halt,
            ProgramExit::Hypercall(call) => Exit::Hypercall(call),
            ProgramExit::ExitPort(value) => Exit::Bus(BusEvent::Exit(value)),
            ProgramExit::WriteMsr(index, value) if own.msr_write(index, value) => Exit::Interrupted,
            // A #GP for which no program has a handler.
            ProgramExit::WriteMsr(..) => Exit::Shutdown,
            ProgramExit::Interrupted => Exit::Interrupted,
        })
    }

    fn interruptible(&mut self) -> Option<&mut dyn Interruptible> {
        Some(self)
    }

    fn set_result(&mut self, rax: u64) {
        self.program.set_result(rax);
    }

    fn exit_request(&self) -> Arc<ExitRequest> {
        Arc::clone(&self.exit_request)
    }
}

/// Interrupts between two runs. Programs know no NMI and no real mode.
impl Interruptible for HostedVcpu {
    fn interrupts_enabled(&mut self) -> bool {
        self.program.interrupts_enabled()
    }

    fn accepts_interrupt(&mut self) -> bool {
        !self.interrupted && self.program.interrupts_enabled()
    }

    fn interrupt(&mut self, vector: u8) -> Result<(), BackendError> {
        self.interrupted = true;
        self.program.interrupt(vector);
        Ok(())
    }

    /// A program leaves the guest whenever one becomes possible.
    fn want_window(&mut self, _wanted: bool) {}

    fn nmi(&mut self) -> Result<(), BackendError> {
        Err(BackendError::NotHosted)
    }

    fn cr8(&mut self) -> u8 {
        self.cr8
    }

    fn set_cr8(&mut self, cr8: u8) {
        self.cr8 = cr8;
    }

    fn init(&mut self) -> Result<(), BackendError> {
        Err(BackendError::NotHosted)
    }

    fn startup(&mut self, _page: u8) -> Result<(), BackendError> {
        Err(BackendError::NotHosted)
    }

    fn set_run_states(&mut self, _at: Option<u64>) -> Result<(), BackendError> {
        Err(BackendError::NotHosted)
    }

    fn set_running(&mut self) -> Result<(), BackendError> {
        Err(BackendError::NotHosted)
    }
}
