//! The hosted backend: a guest's program on a host thread, at native speed.
//!
//! No /dev/kvm and no guest mode: what an exit costs is left out, the rest of a
//! kick's way is the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{BackendError, Exit, VcpuBackend, Via};
use crate::devices::{Bus, BusEvent};
use crate::payload::program::{Leave, Program};

/// A vCPU that is a state machine.
#[derive(Debug)]
pub struct HostedVcpu<P> {
    program: P,
    interrupt: Arc<AtomicBool>,
}

impl<P: Program> HostedVcpu<P> {
    /// `interrupt` takes the place of a signal: set it to make `run` return.
    pub fn new(program: P, interrupt: Arc<AtomicBool>) -> Self {
        Self { program, interrupt }
    }
}

impl<P: Program> VcpuBackend for HostedVcpu<P> {
    fn run(&mut self, _bus: &Bus) -> Result<Exit, BackendError> {
        Ok(match self.program.run(&self.interrupt)? {
            Leave::Halt => Exit::Halt,
            Leave::Hypercall(call) => Exit::Hypercall(call, Via::Hosted),
            Leave::Exit(value) => Exit::Bus(BusEvent::Exit(value)),
            Leave::Interrupted => {
                // Relaxed: the flag only says "leave the guest"; why is in the
                // vCPU's slot, which the loop reads next.
                self.interrupt.store(false, Ordering::Relaxed);
                Exit::Interrupted
            }
        })
    }

    fn set_result(&mut self, rax: u64) {
        self.program.set_result(rax);
    }
}
