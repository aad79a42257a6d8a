//! What is said when a thread makes a system call that it must not make: one line
//! on standard error, and then the process ends with [`STATUS`].

#![expect(
    unsafe_code,
    reason = "a signal handler is given pointers, and ends the process"
)]

use core::fmt::{self, Write as _};
use std::cell::Cell;
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::stdio;
use vmm_sys_util::signal::register_signal_handler;

use super::{JailError, ThreadKind, call};

/// The process's exit status after a hit: Firecracker's for the same.
pub const STATUS: u8 = 148;

thread_local! {
    /// Set before the filter. Initialized by a constant and without a destructor: a
    /// handler may look at it.
    static KIND: Cell<Option<ThreadKind>> = const { Cell::new(None) };
}

static BEFORE: OnceLock<fn()> = OnceLock::new();

/// What is done after a hit, before it is reported, on whichever thread; the first
/// one given stays. It must be async-signal-safe, and make no system call but those
/// that every filter allows.
pub fn before_report(act: fn()) {
    // Another one has come first.
    let _ = BEFORE.set(act);
}

pub(super) fn this_thread_is(kind: ThreadKind) {
    KIND.set(Some(kind));
}

pub(super) fn install() -> Result<(), JailError> {
    register_signal_handler(libc::SIGSYS, hit).map_err(|e| JailError::Handler(e.to_string()))
}

/// A line on the stack; what does not fit is cut off.
struct Line {
    bytes: [u8; 256],
    len: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        let taken = text.len().min(room.len());
        for (to, from) in room.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        self.len += taken;
        Ok(())
    }
}

/// Async-signal-safe: loads, formatting that neither allocates nor locks, system
/// calls that every filter allows, and what was given to [`before_report`].
extern "C" fn hit(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    if let Some(act) = BEFORE.get() {
        act();
    }
    // SAFETY: the kernel gives a handler that was installed with SA_SIGINFO a valid
    // context.
    let context = unsafe { context.cast::<libc::ucontext_t>().as_ref() };
    let registers = context.map(|context| context.uc_mcontext.gregs);
    // The call was taken back: its number is in RAX again.
    let register = |of: libc::c_int| {
        let index = usize::try_from(of).ok()?;
        registers?.get(index).copied()
    };
    let mut line = Line {
        bytes: [0; 256],
        len: 0,
    };
    say(&mut line, register);
    let _ = line.write_str("\n");
    let stderr = stdio::stderr();
    // Nobody has to read it: then it is lost.
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let writable = poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&at_once));
    if writable == Ok(1) {
        let _ = rustix::io::write(stderr, line.bytes.get(..line.len).unwrap_or_default());
    }
    // SAFETY: it does not return, and runs nothing of this process.
    unsafe { libc::_exit(STATUS.into()) }
}

fn say(line: &mut Line, register: impl Fn(libc::c_int) -> Option<i64>) {
    let mut name = [0u8; 16];
    // SAFETY: PR_GET_NAME writes 16 bytes at most, with a NUL, to where it is told.
    unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    let name = name.split(|&byte| byte == 0).next().unwrap_or_default();
    let name = str::from_utf8(name).unwrap_or("?");
    let kind = KIND.get().map_or("started in the jail", ThreadKind::name);
    let number = register(libc::REG_RAX).unwrap_or(-1);
    let argument = |of| register(of).unwrap_or(0);
    // A `Line` takes all that fits.
    let _ = write!(
        line,
        "vmm-reference: jail: thread {name} ({kind}) must not call {} ({number}), arguments \
         {:#x}, {:#x}, {:#x}",
        call::name(number),
        argument(libc::REG_RDI),
        argument(libc::REG_RSI),
        argument(libc::REG_RDX),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut() {
        let mut line = Line {
            bytes: [0; 256],
            len: 0,
        };
        for _ in 0..20 {
            line.write_str("0123456789abcdef").unwrap();
        }
        assert_eq!(line.len, 256);
        assert!(line.bytes.ends_with(b"def"));
    }
}
