//! Three uses of signals: one makes a vCPU thread leave KVM_RUN, some ask the
//! VMM to end, and SIGUSR1 asks for a line of statistics. [`ending`] has what
//! follows once the end was asked for.

#![expect(unsafe_code, reason = "a signal handler is given pointers")]

pub mod ending;

use std::cell::Cell;
use std::ptr::null;
use std::sync::{Arc, OnceLock};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use crate::backend::ExitRequest;

static STOP_REQUEST: OnceLock<EventFd> = OnceLock::new();
static STATS_REQUEST: OnceLock<EventFd> = OnceLock::new();

thread_local! {
    /// On a vCPU's thread, by which a timer makes it leave the guest. Initialized
    /// by a constant and without a destructor: a handler may look at it.
    static OF_THIS_THREAD: Cell<*const ExitRequest> = const { Cell::new(null()) };
}

/// Interrupting KVM_RUN needs a handler, not an action: the system call's EINTR
/// is the effect. Whoever sends the signal has asked the vCPU to leave before,
/// but for a timer, which can't: that is done here.
///
/// Async-signal-safe: loads, and an atomic swap.
extern "C" fn leave_guest(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel gives a handler that was installed with SA_SIGINFO a
    // valid one.
    let Some(info) = (unsafe { info.as_ref() }) else {
        return;
    };
    if info.si_code != libc::SI_TIMER {
        return;
    }
    let request = OF_THIS_THREAD.get();
    // SAFETY: it is null, or what a `TimerTarget` of this thread keeps alive.
    if let Some(request) = unsafe { request.as_ref() } {
        request.set();
    }
}

/// While it lives, timers that send this thread [`vcpu_signal`] make its vCPU
/// leave the guest, or not enter it.
#[derive(Debug)]
pub struct TimerTarget(Arc<ExitRequest>);

impl TimerTarget {
    /// For the thread that calls, which is to drop it too.
    pub fn on_this_thread(request: &Arc<ExitRequest>) -> Self {
        let target = Self(Arc::clone(request));
        OF_THIS_THREAD.set(Arc::as_ptr(&target.0));
        target
    }
}

impl Drop for TimerTarget {
    fn drop(&mut self) {
        OF_THIS_THREAD.set(null());
    }
}

/// Async-signal-safe: an atomic load, a write(2), and what [`ending`] does.
extern "C" fn request_stop(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    ending::ask();
    if let Some(event) = STOP_REQUEST.get() {
        // It fails only when the counter is full, and then the reader will wake.
        let _ = event.write(1);
    }
}

/// Async-signal-safe: as above.
extern "C" fn request_stats(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    if let Some(event) = STATS_REQUEST.get() {
        let _ = event.write(1);
    }
}

/// Makes the event of [`install`] readable, as SIGTERM does.
pub fn ask_to_stop() {
    ending::ask();
    if let Some(event) = STOP_REQUEST.get() {
        // As in the handler.
        let _ = event.write(1);
    }
}

/// Whether the event of [`install`] is readable: for whoever is long in coming
/// back to a loop that waits for it. It stays so.
pub fn is_asked_to_stop() -> bool {
    let asked = (STOP_REQUEST.get()).is_some_and(|event| event.read().is_ok());
    if asked {
        ask_to_stop();
    }
    asked
}

/// The signal that makes a vCPU thread leave the guest.
pub fn vcpu_signal() -> libc::c_int {
    SIGRTMIN()
}

/// Installs the handlers, once a process. The event becomes readable on SIGINT,
/// SIGTERM, SIGHUP or SIGQUIT: what a terminal or a supervisor sends to end a
/// program.
pub fn install() -> std::io::Result<&'static EventFd> {
    if let Some(event) = STOP_REQUEST.get() {
        return Ok(event);
    }
    let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
    let event = STOP_REQUEST.get_or_init(|| event);
    register_signal_handler(vcpu_signal(), leave_guest)?;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        register_signal_handler(signal, request_stop)?;
    }
    Ok(event)
}

/// Installs the handler of SIGUSR1, once a process. The event becomes readable
/// on that signal.
pub fn install_stats() -> std::io::Result<&'static EventFd> {
    if let Some(event) = STATS_REQUEST.get() {
        return Ok(event);
    }
    let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?;
    let event = STATS_REQUEST.get_or_init(|| event);
    register_signal_handler(libc::SIGUSR1, request_stats)?;
    Ok(event)
}
