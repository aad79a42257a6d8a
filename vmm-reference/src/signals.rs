//! Two uses of signals: one makes a vCPU thread leave KVM_RUN, the others ask
//! the VMM to end.

use std::sync::OnceLock;

use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

static STOP_REQUEST: OnceLock<EventFd> = OnceLock::new();

/// Interrupting KVM_RUN needs a handler, not an action: the system call's EINTR
/// is the effect.
extern "C" fn leave_guest(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Async-signal-safe: an atomic load and a write(2).
extern "C" fn request_stop(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    if let Some(event) = STOP_REQUEST.get() {
        // It fails only when the counter is full, and then the reader will wake.
        let _ = event.write(1);
    }
}

/// The signal that makes a vCPU thread leave the guest.
pub fn vcpu_signal() -> libc::c_int {
    SIGRTMIN()
}

/// Installs the handlers, once a process. The event becomes readable on SIGINT
/// or SIGTERM.
pub fn install() -> std::io::Result<&'static EventFd> {
    if let Some(event) = STOP_REQUEST.get() {
        return Ok(event);
    }
    let event = EventFd::new(EFD_NONBLOCK)?;
    let event = STOP_REQUEST.get_or_init(|| event);
    register_signal_handler(vcpu_signal(), leave_guest)?;
    for signal in [libc::SIGINT, libc::SIGTERM] {
        register_signal_handler(signal, request_stop)?;
    }
    Ok(event)
}
