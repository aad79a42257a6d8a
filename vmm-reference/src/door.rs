//! Exits become doors: after this file it no longer matters how a hypercall
//! left the guest.

use hypercall_abi::RawHypercall;

use crate::backend::{BackendError, Exit, VcpuBackend};
use crate::devices::{Bus, BusEvent};

/// What a vCPU's exit asks for.
#[derive(Debug)]
pub enum Door<'a, B> {
    /// A hypercall, and the way its result goes back.
    Hypercall(RawHypercall, Reply<'a, B>),
    /// The vCPU has nothing to do until it is woken.
    Halt,
    /// A device asks something of the VMM.
    Bus(BusEvent),
    /// Nothing: look at what is pending and run again.
    Again,
    /// Triple fault.
    Shutdown,
}

/// Where the result of a hypercall goes.
#[derive(Debug)]
pub struct Reply<'a, B>(&'a mut B);

impl<B: VcpuBackend> Reply<'_, B> {
    /// Puts `rax` where the guest finds it.
    pub fn send(self, rax: u64) {
        self.0.set_result(rax);
    }
}

/// Runs the guest until it comes to a door.
pub fn next<'a, B: VcpuBackend>(
    backend: &'a mut B,
    bus: &Bus,
) -> Result<Door<'a, B>, BackendError> {
    Ok(match backend.run(bus)? {
        Exit::Halt => Door::Halt,
        // By what door it came is the backend's to remember, for the answer.
        Exit::Hypercall(call, _) => Door::Hypercall(call, Reply(backend)),
        Exit::Bus(event) => Door::Bus(event),
        Exit::Interrupted => Door::Again,
        Exit::Shutdown => Door::Shutdown,
    })
}
