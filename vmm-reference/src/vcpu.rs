//! A vCPU's thread: run the guest, go through the door it came to, and sleep
//! in the halt/kick scheduler while the guest is halted.
//!
//! ```text
//!              HLT                  pause
//!   Running ---------> Halted   any ------> Paused
//!      ^                 |                     |
//!      +-- kick, event --+      back <-- resume --+
//!
//!   stop, exit port, triple fault, error: any -> Finished
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use hypercall_abi::{Enforcement, dispatch};
use pv_lock_host::{Resumed, VcpuParker, WakeReason};

use crate::backend::registers::Registers;
use crate::backend::{BackendError, VcpuBackend};
use crate::devices::{Bus, BusEvent};
use crate::door::{self, Door};
use crate::hypercall::Calls;

/// How a vCPU ended.
#[derive(Debug)]
pub enum Ended {
    /// The guest wrote this value to the exit port.
    ExitPort(u8),
    /// The VMM stopped it.
    Stopped,
    /// The guest reset the machine.
    Reset,
    /// The guest turned the machine off.
    PowerOff,
    /// Triple fault, with the registers where there are any.
    TripleFault(Option<Box<Registers>>),
    /// It can't go on.
    Failed(BackendError, Option<Box<Registers>>),
}

/// Where a vCPU's thread is, for others to see.
#[derive(Debug, Default)]
pub struct Whereabouts(AtomicU8);

impl Whereabouts {
    const PAUSED: u8 = 1;
    const ENDED: u8 = 2;

    fn set(&self, value: u8) {
        // Release, with the Acquire below: who sees a vCPU paused sees what its
        // guest wrote before.
        self.0.store(value, Ordering::Release);
    }

    /// It runs no guest code: paused, or at its end.
    pub fn is_quiet(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }

    /// For a person.
    pub fn name(&self) -> &'static str {
        match self.0.load(Ordering::Acquire) {
            Self::PAUSED => "paused",
            Self::ENDED => "ended",
            _ => "running",
        }
    }
}

/// One vCPU with all that its thread needs.
#[derive(Debug)]
pub struct Vcpu<B> {
    backend: B,
    parker: VcpuParker,
    calls: Calls,
    /// What the guest was told: a call whose feature it does not have is
    /// answered -KVM_ENOSYS, unless this is off.
    enforcement: Enforcement,
    bus: Arc<Bus>,
    whereabouts: Arc<Whereabouts>,
}

enum State {
    Running,
    Halted,
    Paused,
    Finished(Ended),
}

impl<B: VcpuBackend> Vcpu<B> {
    /// A vCPU that is ready to run.
    pub fn new(
        backend: B,
        parker: VcpuParker,
        calls: Calls,
        enforcement: Enforcement,
        bus: Arc<Bus>,
    ) -> Self {
        Self {
            backend,
            parker,
            calls,
            enforcement,
            bus,
            whereabouts: Arc::default(),
        }
    }

    /// Where its thread is.
    pub fn whereabouts(&self) -> Arc<Whereabouts> {
        Arc::clone(&self.whereabouts)
    }

    /// The APIC ID that a kick for this vCPU names.
    pub fn apic_id(&self) -> u32 {
        self.parker.apic_id().0
    }

    /// Runs the guest to its end.
    pub fn run(mut self) -> Ended {
        let mut state = State::Running;
        loop {
            state = match state {
                State::Running => self.running(),
                State::Halted => self.halted(),
                State::Paused => self.paused(),
                State::Finished(ended) => {
                    self.whereabouts.set(Whereabouts::ENDED);
                    return ended;
                }
            }
        }
    }

    /// Running ---- HLT ----> Halted
    fn running(&mut self) -> State {
        loop {
            // The slot's bits are the truth about pause and stop; the signal
            // that ended KVM_RUN only makes this thread look.
            match self.parker.pending() {
                Some(WakeReason::Stopped) => return State::Finished(Ended::Stopped),
                Some(_) => return State::Paused,
                None => {}
            }
            self.parker.enter();
            let door = door::next(&mut self.backend, &self.bus);
            match door {
                Ok(Door::Hypercall(call, reply)) => {
                    let mut handler = self.calls.by(&mut self.parker);
                    reply.send(dispatch(&call, self.enforcement, &mut handler));
                }
                Ok(Door::Halt) => return State::Halted,
                Ok(Door::Again) => {}
                Ok(Door::Bus(BusEvent::Exit(value))) => {
                    return State::Finished(Ended::ExitPort(value));
                }
                Ok(Door::Bus(BusEvent::Reset)) => return State::Finished(Ended::Reset),
                Ok(Door::Bus(BusEvent::PowerOff)) => return State::Finished(Ended::PowerOff),
                Ok(Door::Shutdown) => {
                    return State::Finished(Ended::TripleFault(self.registers()));
                }
                Err(e) => return State::Finished(Ended::Failed(e, self.registers())),
            }
        }
    }

    /// Halted ---- kick, event ----> Running
    fn halted(&mut self) -> State {
        match self.parker.halt() {
            WakeReason::Stopped => State::Finished(Ended::Stopped),
            WakeReason::Paused => State::Paused,
            WakeReason::Kicked | WakeReason::Event | WakeReason::TimedOut => State::Running,
        }
    }

    /// Paused ---- resume ----> Running
    fn paused(&mut self) -> State {
        self.whereabouts.set(Whereabouts::PAUSED);
        let resumed = self.parker.wait_resumed();
        self.whereabouts.set(0);
        match resumed {
            Resumed::Stopped => State::Finished(Ended::Stopped),
            Resumed::Running => State::Running,
            Resumed::Halted => State::Halted,
        }
    }

    fn registers(&self) -> Option<Box<Registers>> {
        self.backend.registers().map(Box::new)
    }
}
