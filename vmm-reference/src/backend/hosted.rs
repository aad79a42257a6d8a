//! The hosted backend: the lock program on a host thread, at native speed.
//!
//! No /dev/kvm and no guest mode: what an exit costs is left out, the rest of a
//! kick's way is the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hypercall_abi::{HypercallNr, Mode, RawHypercall};

use super::{BackendError, Exit, VcpuBackend, Via};
use crate::devices::{Bus, BusEvent};
use crate::payload::machine::{Leave, LockMachine};

/// A vCPU that is a state machine.
#[derive(Debug)]
pub struct HostedVcpu {
    machine: LockMachine,
    interrupt: Arc<AtomicBool>,
}

impl HostedVcpu {
    /// `interrupt` takes the place of a signal: set it to make `run` return.
    pub fn new(machine: LockMachine, interrupt: Arc<AtomicBool>) -> Self {
        Self { machine, interrupt }
    }
}

impl VcpuBackend for HostedVcpu {
    fn run(&mut self, _bus: &Bus) -> Result<Exit, BackendError> {
        Ok(match self.machine.run(&self.interrupt)? {
            Leave::Halt => Exit::Halt,
            Leave::Kick { apic_id } => Exit::Hypercall(
                RawHypercall {
                    nr: HypercallNr::KICK_CPU.0,
                    args: [0, apic_id, 0, 0],
                    mode: Mode::Bits64,
                    cpl: 0,
                },
                Via::Hosted,
            ),
            Leave::Exit => Exit::Bus(BusEvent::Exit(0)),
            Leave::Interrupted => {
                // Relaxed: the flag only says "leave the guest"; why is in the
                // vCPU's slot, which the loop reads next.
                self.interrupt.store(false, Ordering::Relaxed);
                Exit::Interrupted
            }
        })
    }

    fn set_result(&mut self, rax: u64) {
        self.machine.set_result(rax);
    }
}
