//! The jail: what is left to a thread once its set-up is done.
//!
//! Each thread that runs a guest, or serves one, gives up what it does not need
//! any more: privileges by exec, all capabilities, and the system calls that are
//! not in the filter of its kind. What is left, with a reason for each, is in
//! [`filters`], and printed in `docs/JAIL.md`.
//!
//! A jail is the process's, as its signal handlers are: [`arm`] is called once, by
//! the command line, and until then [`enter`] does nothing. A filter is never
//! loosened again, and a thread has that of the thread that made it, besides its
//! own.
//!
//! - [`ThreadKind`]: the kinds of threads.
//! - [`filters`]: the system calls of each kind, as data; [`call`]: a row of them;
//!   [`request`]: ioctl requests by name.
//! - `program`: from rows to what the kernel takes.
//! - [`user`]: another one, who is not root.
//! - `capabilities`: dropped, all of them; `descriptors`: none survives an exec.
//! - [`report`]: what is said when a filter is hit.
//! - [`document`]: the rows as Markdown.

pub mod call;
mod capabilities;
mod descriptors;
pub mod document;
pub mod filters;
mod kind;
mod program;
pub mod report;
pub mod request;
pub mod user;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

pub use kind::ThreadKind;

/// Why a thread could not be put into the jail.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JailError {
    /// The handler that reports a hit can't be installed.
    #[error("jail: can't handle SIGSYS: {0}")]
    Handler(String),
    /// The kernel refused a part of it.
    #[error("jail: can't {what}: {why} (--no-jail does without)")]
    Refused {
        /// What was tried.
        what: &'static str,
        /// The kernel's reason.
        why: String,
    },
    /// `run --user` by who is not root.
    #[error("jail: can't become user {user}: {why}")]
    User {
        /// The user that was chosen.
        user: user::User,
        /// The kernel's reason.
        why: String,
    },
    /// A filter can't be made from its rows.
    #[error("jail: the filter of {kind} is wrong: {why}")]
    Filter {
        /// Whose filter.
        kind: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

impl JailError {
    fn refused<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |e| Self::Refused {
            what,
            why: e.into().to_string(),
        }
    }
}

static ARMED: AtomicBool = AtomicBool::new(false);

/// From now on [`enter`] has an effect.
///
/// # Errors
/// No handler for SIGSYS can be installed.
pub fn arm() -> Result<(), JailError> {
    report::install()?;
    // rustix looks for the vDSO at its first use, with a system call or, on kernels
    // before 6.4, in a file of /proc: neither is left in the jail.
    let _ = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // Relaxed: set before the first thread is started that reads it; nothing else
    // is handed over.
    ARMED.store(true, Ordering::Relaxed);
    Ok(())
}

/// The calling thread is of this kind from now on, and has nothing but what that
/// needs. Without [`arm`] nothing happens.
///
/// # Errors
/// The kernel refused: it has no seccomp filters, or an outer filter forbids more.
pub fn enter(kind: ThreadKind) -> Result<(), JailError> {
    // Relaxed: see `arm`.
    if !ARMED.load(Ordering::Relaxed) {
        return Ok(());
    }
    // Made first: that may need more than is left behind it.
    let programs = program::of(kind)?;
    rustix::thread::set_no_new_privs(true).map_err(JailError::refused("set no_new_privs"))?;
    // It takes a capability.
    user::become_chosen()?;
    capabilities::drop_all()?;
    descriptors::close_on_exec();
    report::this_thread_is(kind);
    programs.install()
}
