//! Standard output and standard error, written so that nothing is lost and nobody
//! is held up for ever.
//!
//! A descriptor that is set to O_NONBLOCK, by whoever has the same terminal or
//! pipe, is waited for: to the standard library that is an error. And a reader
//! that reads no more does not keep a process alive that was asked to end.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::signals::ending;

/// Standard output or standard error, by [`io::Stdout`] or [`io::Stderr`]: whose
/// buffers this does not use.
#[derive(Debug)]
pub struct Descriptor<T>(pub T);

/// What a write returns once the end was asked for and nobody read on.
fn given_up() -> io::Error {
    io::Error::new(
        io::ErrorKind::Interrupted,
        "asked to end while nobody read on",
    )
}

/// Waits until it takes something, for a signal, or not at all; whether it does.
fn takes(fd: BorrowedFd<'_>, time: Option<&Timespec>) -> io::Result<bool> {
    let mut fds = [PollFd::new(&fd, PollFlags::OUT)];
    match poll(&mut fds, time) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

impl<T: AsFd> Write for Descriptor<T> {
    /// Waits until something can be written.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            // What somebody reads is said even then.
            if ending::is_due() && !takes(self.0.as_fd(), Some(&AT_ONCE))? {
                return Err(given_up());
            }
            match rustix::io::write(&self.0, bytes) {
                Ok(written) => return Ok(written),
                Err(Errno::AGAIN) => drop(takes(self.0.as_fd(), None)?),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Without the standard library's loop, which takes `given_up` for a signal
    /// and tries again.
    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.write(bytes)?;
            bytes = bytes.get(written..).unwrap_or_default();
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
