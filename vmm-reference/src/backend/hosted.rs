//! The hosted backend: a guest's program on a host thread, at native speed.
//!
//! No /dev/kvm and no guest mode: what an exit costs is left out, the rest of a
//! kick's path is the same.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use hypercall_abi::RawHypercall;

use super::backend_error::BackendError;
use super::exit::{Exit, PrivateIo, VcpuBackend};
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
}

/// A vCPU that is a state machine.
#[derive(Debug)]
pub struct HostedVcpu {
    program: Box<dyn Program>,
    exit_request: Arc<ExitRequest>,
}

impl HostedVcpu {
    /// A vCPU at the start of `program`.
    pub fn new(program: Box<dyn Program>) -> Self {
        Self {
            program,
            exit_request: Arc::new(ExitRequest::polled()),
        }
    }
}

impl VcpuBackend for HostedVcpu {
    fn run(&mut self, _bus: &Bus, _own: &mut dyn PrivateIo) -> Result<Exit, BackendError> {
        Ok(match self.program.run(self.exit_request.byte())? {
            ProgramExit::Halt => Exit::Halt,
            ProgramExit::Hypercall(call) => Exit::Hypercall(call),
            ProgramExit::ExitPort(value) => Exit::Bus(BusEvent::Exit(value)),
            ProgramExit::Interrupted => Exit::Interrupted,
        })
    }

    fn set_result(&mut self, rax: u64) {
        self.program.set_result(rax);
    }

    fn exit_request(&self) -> Arc<ExitRequest> {
        Arc::clone(&self.exit_request)
    }
}
