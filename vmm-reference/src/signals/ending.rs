//! How a process that was asked to end does so in time, whatever its threads wait
//! for.
//!
//! From the request on there is a short [grace](left): what is still to be said
//! or written is, by whoever reads it. Meanwhile a timer interrupts the main
//! thread's system calls again and again, so that a write which nobody takes
//! returns and sees that the time is over. Should the main thread wait in another
//! place all the same, the timer's handler puts the terminal back and ends the
//! process, before a second has passed.

use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use rustix::time::{ClockId, clock_gettime};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

/// For an orderly end, from the request on.
const GRACE: Duration = Duration::from_millis(400);
/// When the process is ended by force. Giving back a guest's memory takes time
/// too, and all of it is to be less than a second.
const LIMIT: Duration = Duration::from_millis(800);
/// Between two interruptions of the main thread.
const TICK: Duration = Duration::from_millis(50);

/// When the end was asked for, in nanoseconds of the monotonic clock; 0: not yet.
static ASKED: AtomicU64 = AtomicU64::new(0);
/// The timer, once there is one.
static TIMER: OnceLock<Timer> = OnceLock::new();
/// The exit status of an end by force.
static STATUS: AtomicI32 = AtomicI32::new(0);
/// What is done before an end by force: async-signal-safe.
static BEFORE: OnceLock<fn()> = OnceLock::new();

/// A timer of the kernel that interrupts the main thread. It is never deleted.
#[derive(Debug)]
struct Timer(libc::timer_t);

// SAFETY: the identifier is one of the process's, and any thread may use it.
unsafe impl Send for Timer {}
// SAFETY: as above; a handler on any thread arms it.
unsafe impl Sync for Timer {}

/// Now, never 0.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    let seconds = part(now.tv_sec).saturating_mul(1_000_000_000);
    seconds.saturating_add(part(now.tv_nsec)).max(1)
}

/// The end is asked for, now if it was not before. Async-signal-safe: the clock,
/// atomics and timer_settime(2).
pub(super) fn ask() {
    // Relaxed: the value is all that there is to see.
    let first = ASKED.compare_exchange(0, now(), Ordering::Relaxed, Ordering::Relaxed);
    let (Ok(_), Some(Timer(timer))) = (first, TIMER.get()) else {
        return;
    };
    let tick = libc::timespec {
        tv_sec: 0,
        tv_nsec: i64::from(TICK.subsec_nanos()),
    };
    let every = libc::itimerspec {
        it_interval: tick,
        it_value: tick,
    };
    // SAFETY: the timer is never deleted, and the value is live. It fails for no
    // valid time.
    let _ = unsafe { libc::timer_settime(*timer, 0, &raw const every, null_mut()) };
}

/// A signal asked for the end of the process, and what was under way is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ended by a signal")]
pub struct Interrupted;

/// As a signal that asks for the end, for those who are asked otherwise.
pub fn begin() {
    ask();
}

/// The end is asked for when the thread that started this process goes, however it
/// does: this process is of no use without it.
///
/// # Errors
/// The system refused it, or `parent` has gone already.
pub fn with_parent(parent: Pid) -> std::io::Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM))?;
    // It may have gone before that.
    match getppid() == Some(parent) {
        true => Ok(()),
        false => Err(std::io::Error::other(format!(
            "the parent {parent} is gone"
        ))),
    }
}

/// How long ago the end was asked for; none if it was not.
fn since() -> Option<Duration> {
    // Relaxed: as in `ask`.
    let asked = ASKED.load(Ordering::Relaxed);
    (asked != 0).then(|| Duration::from_nanos(now().saturating_sub(asked)))
}

/// Whether the end was asked for.
pub fn is_asked() -> bool {
    since().is_some()
}

/// An error once the end was asked for: there is no use in going on.
///
/// # Errors
/// The end was asked for.
pub fn check() -> Result<(), Interrupted> {
    match is_asked() {
        true => Err(Interrupted),
        false => Ok(()),
    }
}

/// What is left of the grace, if the end was asked for.
pub fn left() -> Option<Duration> {
    since().map(|since| GRACE.saturating_sub(since))
}

/// Whether the end was asked for, and the grace is over.
pub fn is_due() -> bool {
    left() == Some(Duration::ZERO)
}

/// `limit`, or what is left of the grace if that is less.
pub fn at_most(limit: Duration) -> Duration {
    left().map_or(limit, |left| left.min(limit))
}

/// What is done before an end by force, on the main thread; the first one given
/// stays. It must be async-signal-safe.
pub fn before_force(act: fn()) {
    // Another one has come first.
    let _ = BEFORE.set(act);
}

/// From now on a request to end is one that this process follows within a second:
/// called by the main thread, first. By force, it ends with `status`.
///
/// # Errors
/// The system has no timer for it.
pub fn limit(status: u8) -> std::io::Result<()> {
    // Relaxed: read by this thread's own handler.
    STATUS.store(status.into(), Ordering::Relaxed);
    if TIMER.get().is_some() {
        return Ok(());
    }
    let signal = SIGRTMIN() + 1;
    register_signal_handler(signal, tick)?;
    let mut event = MaybeUninit::<libc::sigevent>::zeroed();
    // SAFETY: a sigevent is integers and a pointer, for which zeroes are valid.
    let event = unsafe { event.assume_init_mut() };
    event.sigev_notify = libc::SIGEV_THREAD_ID;
    event.sigev_signo = signal;
    event.sigev_notify_thread_id = rustix::thread::gettid().as_raw_nonzero().get();
    let mut timer: libc::timer_t = null_mut();
    // SAFETY: both pointers are to live values of the right types.
    let made = unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, event, &raw mut timer) };
    if made != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // The main thread alone makes one.
    let _ = TIMER.set(Timer(timer));
    Ok(())
}

/// Interrupts a system call of the main thread; ends the process once it is time.
///
/// Async-signal-safe: the clock, atomics, and what `force` does.
extern "C" fn tick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    if since().is_some_and(|since| since >= LIMIT) {
        force();
    }
}

/// Async-signal-safe: fcntl(2), write(2), `_exit`, and what was given to
/// [`before_force`].
fn force() -> ! {
    const WORDS: &[u8] =
        b"vmm-reference: asked to end, and not done within 0.8 s: ended by force\n";
    if let Some(act) = BEFORE.get() {
        act();
    }
    // Standard error may be a pipe that is full: the words are not worth a wait.
    // SAFETY: takes no pointer.
    let flags = unsafe { libc::fcntl(libc::STDERR_FILENO, libc::F_GETFL) };
    // SAFETY: as above.
    unsafe { libc::fcntl(libc::STDERR_FILENO, libc::F_SETFL, flags | libc::O_NONBLOCK) };
    // SAFETY: the bytes are static.
    unsafe { libc::write(libc::STDERR_FILENO, WORDS.as_ptr().cast(), WORDS.len()) };
    // Others may have the same file: it is as before.
    // SAFETY: takes no pointer.
    unsafe { libc::fcntl(libc::STDERR_FILENO, libc::F_SETFL, flags) };
    // SAFETY: ends the process without any of its own code.
    unsafe { libc::_exit(STATUS.load(Ordering::Relaxed)) }
}
