//! A vCPU for tests of this room, which only notes what it is told.

use crate::backend::{BackendError, Interruptible};

/// A vCPU that notes what was done to it.
#[derive(Debug, Default)]
pub(super) struct Noted {
    pub(super) interrupts_enabled: bool,
    pub(super) accepts: bool,
    pub(super) cr8: u8,
    pub(super) window: bool,
    pub(super) done: Vec<Done>,
    /// Where KVM would record its run states, each time that it was told.
    pub(super) run_states: Vec<Option<u64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    Interrupt(u8),
    Nmi,
    Init,
    Startup(u8),
    Running,
}

impl Interruptible for Noted {
    fn interrupts_enabled(&mut self) -> bool {
        self.interrupts_enabled
    }

    fn accepts_interrupt(&mut self) -> bool {
        self.accepts
    }

    fn interrupt(&mut self, vector: u8) -> Result<(), BackendError> {
        assert!(self.accepts, "the one before would be lost");
        self.accepts = false;
        self.done.push(Done::Interrupt(vector));
        Ok(())
    }

    fn want_window(&mut self, wanted: bool) {
        self.window = wanted;
    }

    fn nmi(&mut self) -> Result<(), BackendError> {
        self.done.push(Done::Nmi);
        Ok(())
    }

    fn cr8(&mut self) -> u8 {
        self.cr8
    }

    fn set_cr8(&mut self, cr8: u8) {
        self.cr8 = cr8;
    }

    fn init(&mut self) -> Result<(), BackendError> {
        self.done.push(Done::Init);
        Ok(())
    }

    fn startup(&mut self, page: u8) -> Result<(), BackendError> {
        self.done.push(Done::Startup(page));
        Ok(())
    }

    fn set_run_states(&mut self, at: Option<u64>) -> Result<(), BackendError> {
        self.run_states.push(at);
        Ok(())
    }

    fn set_running(&mut self) -> Result<(), BackendError> {
        self.done.push(Done::Running);
        Ok(())
    }
}

/// A running vCPU of the guest, interrupts on.
pub(super) fn ready() -> Noted {
    Noted {
        interrupts_enabled: true,
        accepts: true,
        ..Noted::default()
    }
}
