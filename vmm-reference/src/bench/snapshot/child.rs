//! A process that goes on with a snapshot: `vmm-reference run --restore`, asked by
//! its control socket.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::control::Request;
use crate::signals::ending;

/// How long the process may take to answer.
const LIMIT: Duration = Duration::from_secs(20);
/// Between two looks whether this process was asked to end.
const LOOK: Duration = Duration::from_millis(50);

/// Such a process; it is ended when this is dropped.
#[derive(Debug)]
pub(super) struct RestoredProcess {
    child: Child,
    stream: BufReader<UnixStream>,
}

impl RestoredProcess {
    /// Restores `snapshot`; its control socket is at `socket`.
    pub(super) fn start(snapshot: &Path, socket: &Path) -> io::Result<Self> {
        // This very program, even if its file was replaced meanwhile.
        let mut child = Command::new("/proc/self/exe")
            .arg0("vmm-reference")
            .args(["run", "--restore"])
            .arg(snapshot)
            .arg("--control")
            .arg(socket)
            // However this one ends: nobody else knows of it.
            .args(["--parent", &std::process::id().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let begin = Instant::now();
        loop {
            if let Ok(stream) = UnixStream::connect(socket) {
                stream.set_read_timeout(Some(LOOK))?;
                let stream = BufReader::new(stream);
                return Ok(Self { child, stream });
            }
            if child.try_wait()?.is_some() || begin.elapsed() > LIMIT || ending::is_asked() {
                // It may have ended already.
                let _ = child.kill();
                let mut said = String::new();
                if let Some(stderr) = &mut child.stderr {
                    stderr.read_to_string(&mut said)?;
                }
                child.wait()?;
                return Err(io::Error::other(said.trim().to_string()));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Asks it; what it answers.
    pub(super) fn ask(&mut self, request: &Request) -> io::Result<Value> {
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        self.stream.get_mut().write_all(line.as_bytes())?;
        let mut answer: Value = serde_json::from_slice(&self.line()?)?;
        match answer.get_mut("ok") {
            Some(ok) => Ok(ok.take()),
            None => Err(io::Error::other(answer.to_string())),
        }
    }

    /// The next line that it says; an error when it takes too long or this process is
    /// asked to end.
    fn line(&mut self) -> io::Result<Vec<u8>> {
        let (begin, mut line) = (Instant::now(), Vec::new());
        loop {
            match self.stream.read_until(b'\n', &mut line) {
                Ok(_) => return Ok(line),
                // What was read before is in `line`.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && begin.elapsed() < LIMIT => {
                    ending::check().map_err(io::Error::other)?;
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// Ends it, and waits for that.
    pub(super) fn stop(mut self) -> io::Result<()> {
        self.ask(&Request::Stop)?;
        let status = self.child.wait()?;
        match status.success() {
            true => Ok(()),
            false => Err(io::Error::other(format!(
                "a restored VM ended with {status}"
            ))),
        }
    }
}

impl Drop for RestoredProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
