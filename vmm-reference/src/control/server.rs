//! The server: non-blocking, in the VM's event loop.
//!
//! One request a turn of the loop: however many a client sends at once, signals,
//! keys and other clients have their turns between them.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};
use vmm_sys_util::timerfd::TimerFd;

use super::{Lines, Socket, Target, answer, too_long};

/// Connections at once. One more waits until another ends, or has asked nothing for
/// [`IDLE`] and is closed for it.
const CONNECTIONS: usize = 16;
const IDLE: Duration = Duration::from_secs(1);
const CHUNK: usize = 4096;
/// When there was no room for a client, it is looked for again after this time.
const LATER: Duration = Duration::from_millis(200);

struct Connection {
    stream: UnixStream,
    lines: Lines,
    /// Requests that wait for their turn; nothing more is read meanwhile.
    requests: VecDeque<Vec<u8>>,
    /// Its last line was too long: that is the end, behind the answers.
    last: bool,
    /// When it came, or was answered last.
    active: Instant,
}

/// Serves the requests of a socket to a target.
pub struct Server<T> {
    socket: Socket,
    connections: HashMap<RawFd, Connection>,
    target: T,
    /// Readable while requests wait for their turn.
    more: EventFd,
    /// Readable when clients may be accepted again.
    later: TimerFd,
}

impl<T> std::fmt::Debug for Server<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("socket", &self.socket)
            .field("connections", &self.connections.len())
            .finish_non_exhaustive()
    }
}

impl<T: Target> Server<T> {
    /// Serves `socket` to `target`.
    ///
    /// # Errors
    /// The system has no event or no timer for it.
    pub fn new(socket: Socket, target: T) -> io::Result<Self> {
        Ok(Self {
            socket,
            connections: HashMap::new(),
            target,
            more: EventFd::new(EFD_NONBLOCK)?,
            later: TimerFd::new()?,
        })
    }

    fn accept(&mut self, ops: &mut EventOps) {
        loop {
            if !self.has_room(ops) {
                return self.accept_later(ops);
            }
            match self.socket.listener().accept() {
                Ok((stream, _)) => self.add(stream, ops),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                // That connection's own failure: it is gone.
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // No descriptor, no memory.
                Err(_) => return self.accept_later(ops),
            }
        }
    }

    /// The next client waits in the backlog; the loop is not woken for it without
    /// end.
    fn accept_later(&mut self, ops: &mut EventOps) {
        if self.later.reset(LATER, None).is_ok() {
            // It is watched: this can't fail.
            let _ = ops.remove(Events::empty(self.socket.listener()));
        }
    }

    /// Whether there is room for one more, if need be by closing an idle one.
    fn has_room(&mut self, ops: &mut EventOps) -> bool {
        if self.connections.len() < CONNECTIONS {
            return true;
        }
        let asks_nothing = |(_, c): &(&RawFd, &Connection)| c.requests.is_empty();
        let quiet = self.connections.iter().filter(asks_nothing);
        let idlest = quiet.min_by_key(|(_, c)| c.active);
        let idle = idlest.filter(|(_, c)| c.active.elapsed() >= IDLE);
        let Some(fd) = idle.map(|(&fd, _)| fd) else {
            return false;
        };
        self.close(fd, ops);
        true
    }

    fn add(&mut self, stream: UnixStream, ops: &mut EventOps) {
        if stream.set_nonblocking(true).is_err()
            || ops.add(Events::new(&stream, EventSet::IN)).is_err()
        {
            return;
        }
        let connection = Connection {
            lines: Lines::default(),
            requests: VecDeque::new(),
            last: false,
            active: Instant::now(),
            stream,
        };
        self.connections
            .insert(connection.stream.as_raw_fd(), connection);
    }

    /// Closes one that has no requests waiting, so that it is watched.
    fn close(&mut self, fd: RawFd, ops: &mut EventOps) {
        if let Some(connection) = self.connections.remove(&fd) {
            // It is open still: this can't fail.
            let _ = ops.remove(Events::empty(&connection.stream));
        }
    }

    /// One piece of input; false when the connection is over.
    fn read(&mut self, fd: RawFd, ops: &mut EventOps) -> bool {
        let Some(connection) = self.connections.get_mut(&fd) else {
            return true;
        };
        let mut chunk = [0; CHUNK];
        let read = match connection.stream.read(&mut chunk) {
            Ok(0) => return false,
            Ok(n) => chunk.get(..n).unwrap_or_default(),
            Err(e) => {
                return matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                );
            }
        };
        let requests = &mut connection.requests;
        let fine = connection
            .lines
            .feed(read, |line| requests.push_back(line.to_vec()));
        connection.last = !fine;
        if connection.requests.is_empty() {
            if !fine {
                Self::say(&mut connection.stream, &too_long());
            }
            return fine;
        }
        // Not watched until they are served.
        let _ = ops.remove(Events::empty(&connection.stream));
        // It fails only when the counter is full, and then it is readable.
        let _ = self.more.write(1);
        true
    }

    /// One request, of the client that has waited for the longest time.
    fn serve_one(&mut self, ops: &mut EventOps) {
        let waits = |(_, c): &(&RawFd, &mut Connection)| !c.requests.is_empty();
        let waiting = self.connections.iter_mut().filter(waits);
        let Some((&fd, connection)) = waiting.min_by_key(|(_, c)| c.active) else {
            // Nobody waits any more. Empty is EAGAIN.
            let _ = self.more.read();
            return;
        };
        connection.active = Instant::now();
        let request = connection.requests.pop_front().unwrap_or_default();
        let answer = answer(&request, &mut self.target);
        let mut goes_on = Self::say(&mut connection.stream, &answer);
        if goes_on && connection.requests.is_empty() {
            goes_on = if connection.last {
                Self::say(&mut connection.stream, &too_long());
                false
            } else {
                let event = Events::new(&connection.stream, EventSet::IN);
                ops.add(event).is_ok()
            };
        }
        if !goes_on {
            // It is not watched.
            self.connections.remove(&fd);
        }
    }

    /// Whether the client has taken it. Who does not read the answers, so that they
    /// do not fit the socket's buffer any more, is not waited for.
    fn say(stream: &mut UnixStream, text: &str) -> bool {
        stream.write_all(text.as_bytes()).is_ok()
    }
}

impl<T: Target> MutEventSubscriber for Server<T> {
    fn init(&mut self, ops: &mut EventOps) {
        // Fresh, valid descriptors, each added once.
        let _ = ops.add(Events::new(self.socket.listener(), EventSet::IN));
        let _ = ops.add(Events::new(&self.more, EventSet::IN));
        let _ = ops.add(Events::new(&self.later, EventSet::IN));
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        let fd = events.fd();
        if fd == self.socket.listener().as_raw_fd() {
            self.accept(ops);
        } else if fd == self.more.as_raw_fd() {
            self.serve_one(ops);
        } else if fd == self.later.as_raw_fd() {
            let _ = self.later.wait();
            // It was removed when the timer was set.
            let _ = ops.add(Events::new(self.socket.listener(), EventSet::IN));
        } else if !self.read(fd, ops) {
            self.close(fd, ops);
        }
    }
}
