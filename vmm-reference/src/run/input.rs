//! Standard input, read on a thread of its own.
//!
//! Anything can be standard input: a terminal from which somebody else reads too,
//! so that what was there when the loop looked is gone when it reads; a regular
//! file, for which epoll has no answer. A thread that waits in read(2) is right for
//! all of them, and the loop never waits.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::jail::{self, ThreadKind};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// It reads system calls' worth of input: it needs no stack to speak of.
const STACK: usize = 64 << 10;

/// Asks for input, piece by piece. What was not asked for stays where it is, for
/// whoever reads from there next.
#[derive(Debug)]
pub(super) struct Input {
    requests: Sender<usize>,
    pieces: Receiver<Vec<u8>>,
    event: Arc<EventFd>,
    waits: bool,
}

impl Input {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system refused the thread or its event.
    pub(super) fn start() -> io::Result<Self> {
        let (requests, asked) = channel();
        let (send, pieces) = channel();
        let event = Arc::new(EventFd::new(EFD_NONBLOCK)?);
        let theirs = Arc::clone(&event);
        std::thread::Builder::new()
            .name("input".to_string())
            .stack_size(STACK)
            .spawn(move || {
                // Where that is refused there is no input, and no vCPU has run.
                if jail::enter(ThreadKind::Reader).is_ok() {
                    serve(&asked, &send, &theirs);
                }
            })?;
        Ok(Self {
            requests,
            pieces,
            event,
            waits: false,
        })
    }

    /// Readable when a piece is there.
    pub(super) fn event(&self) -> &EventFd {
        &self.event
    }

    /// Asks for at most so many bytes, unless some are asked for already.
    pub(super) fn ask(&mut self, most: usize) {
        if !self.waits {
            // The thread ends only after an end of the input, and then nobody asks.
            self.waits = self.requests.send(most).is_ok();
        }
    }

    /// The piece that was asked for, if it is there; an empty one is the end.
    pub(super) fn take(&mut self) -> Option<Vec<u8>> {
        // Empty is EAGAIN: there is nothing.
        let _ = self.event.read();
        let piece = self.pieces.try_recv().ok()?;
        self.waits = false;
        Some(piece)
    }
}

/// The thread: a read for each request.
fn serve(asked: &Receiver<usize>, pieces: &Sender<Vec<u8>>, event: &EventFd) {
    while let Ok(most) = asked.recv() {
        let mut piece = vec![0; most];
        let read = read(&mut piece);
        piece.truncate(read);
        // Nobody listens once the VM is gone.
        if pieces.send(piece).is_err() || event.write(1).is_err() || read == 0 {
            return;
        }
    }
}

/// Reads once, and waits for it. 0 is the end, and so is an error: a terminal that
/// is gone, say.
fn read(into: &mut [u8]) -> usize {
    let stdin = io::stdin();
    loop {
        match rustix::io::read(stdin.as_fd(), &mut *into) {
            Ok(read) => return read,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                // Somebody set O_NONBLOCK. It can but fail for want of memory.
                let _ = poll(&mut [PollFd::new(&stdin, PollFlags::IN)], None);
            }
            Err(_) => return 0,
        }
    }
}
