//! The socket: non-blocking, in the VM's event loop.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen};

use super::{Lines, Target, answer, too_long};

/// Connections at once; more are closed as they come.
const CONNECTIONS: usize = 16;
const BACKLOG: i32 = 16;
const CHUNK: usize = 4096;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
#[error("--control {}: {source}", path.display())]
pub struct ControlError {
    path: PathBuf,
    source: io::Error,
}

struct Connection {
    stream: UnixStream,
    lines: Lines,
}

/// A listening socket. Its file goes away with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Makes the socket. A file that is there already is an error: it may be
    /// another VM's.
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        let listener = listener(path).map_err(|source| ControlError {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // It may have been removed by somebody else.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Serves the requests of a socket to a target.
pub struct Server<T> {
    socket: Socket,
    connections: HashMap<RawFd, Connection>,
    target: T,
}

impl<T> std::fmt::Debug for Server<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("socket", &self.socket)
            .field("connections", &self.connections.len())
            .finish_non_exhaustive()
    }
}

/// A listening socket at `path`, which only its owner may connect to.
fn listener(path: &Path) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Before the file exists: Linux makes it with the socket's mode, so that
    // there is no instant in which others may connect.
    rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
    bind(&fd, &SocketAddrUnix::new(path)?)?;
    listen(&fd, BACKLOG)?;
    Ok(UnixListener::from(fd))
}

impl<T: Target> Server<T> {
    /// Serves `socket` to `target`.
    pub fn new(socket: Socket, target: T) -> Self {
        Self {
            socket,
            connections: HashMap::new(),
            target,
        }
    }

    fn accept(&mut self, ops: &mut EventOps) {
        // EAGAIN: all accepted. Any other failure is the connection's.
        while let Ok((stream, _)) = self.socket.listener.accept() {
            if self.connections.len() >= CONNECTIONS || stream.set_nonblocking(true).is_err() {
                continue;
            }
            if ops.add(Events::new(&stream, EventSet::IN)).is_err() {
                continue;
            }
            let lines = Lines::default();
            let connection = Connection { stream, lines };
            self.connections
                .insert(connection.stream.as_raw_fd(), connection);
        }
    }

    /// One piece of input; false when the connection is over.
    fn serve(&mut self, fd: RawFd) -> bool {
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
        let mut answers = String::new();
        let target = &mut self.target;
        let fine = connection.lines.feed(read, |line| {
            answers.push_str(&answer(line, target));
        });
        if !fine {
            answers.push_str(&too_long());
        }
        // Who does not read the answers, so that they do not fit the socket's
        // buffer any more, is not waited for.
        connection.stream.write_all(answers.as_bytes()).is_ok() && fine
    }
}

impl<T: Target> MutEventSubscriber for Server<T> {
    fn init(&mut self, ops: &mut EventOps) {
        // A fresh, valid descriptor, added once.
        let _ = ops.add(Events::new(&self.socket.listener, EventSet::IN));
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        let fd = events.fd();
        if fd == self.socket.listener.as_raw_fd() {
            self.accept(ops);
        } else if !self.serve(fd)
            && let Some(connection) = self.connections.remove(&fd)
        {
            // It is open still: this can't fail.
            let _ = ops.remove(Events::empty(&connection.stream));
        }
    }
}
