//! The socket's file: made, replaced if nobody listens on it any more, and taken
//! away again if it still is this one.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

const BACKLOG: i32 = 16;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
#[error("--control {}: {source}", path.display())]
pub struct ControlError {
    path: PathBuf,
    source: io::Error,
}

/// A listening socket. Its file goes away with it, unless that is another's by
/// then.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// The file itself. While this is open no other gets its inode's number.
    _file: OwnedFd,
    /// That number, and its file system's.
    inode: (u64, u64),
    directory: Option<File>,
}

impl Socket {
    /// Makes the socket. What a VM left there that was killed is replaced; a socket
    /// on which somebody listens, or another file, is an error.
    ///
    /// # Errors
    /// The path is taken, or there can be no socket.
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        let error = |source| ControlError {
            path: path.to_owned(),
            source,
        };
        let directory = directory(path);
        let turn = Turn::take(directory.as_ref());
        let listener = match listen(path) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && is_abandoned(path) => {
                fs::remove_file(path).map_err(error)?;
                listen(path)
            }
            listener => listener,
        }
        .map_err(error)?;
        let file = open_path(path).map_err(|e| error(e.into()))?;
        let about = rustix::fs::fstat(&file).map_err(|e| error(e.into()))?;
        drop(turn);
        Ok(Self {
            listener,
            path: path.to_owned(),
            _file: file,
            inode: (about.st_dev, about.st_ino),
            directory,
        })
    }

    /// Where clients come from.
    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// The file at the path is this socket's.
    fn is_here(&self) -> bool {
        let there = self.path.symlink_metadata();
        there.is_ok_and(|there| self.inode == (there.dev(), there.ino()))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _turn = Turn::take(self.directory.as_ref());
        if self.is_here() {
            // It may be removed by somebody else just now.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The file as it is in its directory, without opening what it stands for.
fn open_path(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open(path, flags, Mode::empty())
}

/// A listening socket at `path`, which only its owner may connect to.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Before the file exists: Linux makes it with the socket's mode, so that
    // there is no instant in which others may connect.
    rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&fd, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&fd, BACKLOG)?;
    Ok(UnixListener::from(fd))
}

/// Whether it is a socket on which nobody listens, so that whoever did was killed.
fn is_abandoned(path: &Path) -> bool {
    let is_socket = |about: fs::Metadata| about.file_type().is_socket();
    path.symlink_metadata().is_ok_and(is_socket) && refuses(path) == Ok(true)
}

/// Whether a connection is refused. One that would have to wait is not.
fn refuses(path: &Path) -> Result<bool, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let connected = rustix::net::connect(&fd, &SocketAddrUnix::new(path)?);
    Ok(connected == Err(Errno::CONNREFUSED))
}

/// The directory of a socket, if it can be read.
fn directory(path: &Path) -> Option<File> {
    let parent = path.parent().filter(|parent| *parent != Path::new(""));
    File::open(parent.unwrap_or(Path::new("."))).ok()
}

/// The turn of this process to look at a directory's sockets and to change them:
/// of two that find the same one abandoned, the second must not remove what the
/// first has made.
struct Turn<'a>(Option<&'a File>);

impl<'a> Turn<'a> {
    /// Where the directory can't be read or somebody keeps it locked there are no
    /// turns: then it is as it would be without this.
    fn take(directory: Option<&'a File>) -> Self {
        Self(directory.filter(|directory| {
            // A VM's turn is a few system calls long.
            (0..100).any(|_| {
                let taken = flock(directory, FlockOperation::NonBlockingLockExclusive).is_ok();
                if !taken {
                    std::thread::sleep(Duration::from_millis(1));
                }
                taken
            })
        }))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(directory) = self.0 {
            // It is this process's: this can't fail.
            let _ = flock(directory, FlockOperation::Unlock);
        }
    }
}
