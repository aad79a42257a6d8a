//! Clients of a VM's control socket: its operator, and those that mean no good.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use oorandom::Rand32;
use serde_json::Value;

use crate::common::Patience;
use crate::watch::Fault;

/// How long anything may take on a host that does much else.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks whether it was too long.
const LOOK: Duration = Duration::from_millis(200);

/// Connects, once the socket is there.
pub(crate) fn connect(path: &Path) -> Result<UnixStream, Fault> {
    let mut patience = Patience::new(LIMIT);
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => {
                let limits = stream
                    .set_read_timeout(Some(LOOK))
                    .and_then(|()| stream.set_write_timeout(Some(LIMIT)));
                return limits.map(|()| stream).map_err(|e| e.to_string());
            }
            Err(e) if patience.is_over() => return Err(format!("control socket: {e}")),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

/// One request on a connection of its own; what is in its "ok".
pub(crate) fn ask(path: &Path, request: &str) -> Result<Value, Fault> {
    let wrong = |what: &dyn std::fmt::Display| format!("{request}: {what}");
    let mut stream = connect(path)?;
    let line = format!("{request}\n");
    stream.write_all(line.as_bytes()).map_err(|e| wrong(&e))?;
    let (mut answer, mut patience) = (Vec::new(), Patience::new(LIMIT));
    let mut stream = BufReader::new(stream);
    while let Err(e) = stream.read_until(b'\n', &mut answer) {
        // What was read before is in `answer`.
        if e.kind() != std::io::ErrorKind::WouldBlock || patience.is_over() {
            return Err(wrong(&e));
        }
    }
    let parsed: Value = serde_json::from_slice(&answer).map_err(|e| wrong(&e))?;
    match parsed.get("ok") {
        Some(ok) => Ok(ok.clone()),
        None => Err(wrong(&String::from_utf8_lossy(&answer).trim_end())),
    }
}

/// Clients that mean no good; some of them stay.
#[derive(Debug, Default)]
pub(crate) struct BadClients(Vec<UnixStream>);

impl BadClients {
    /// Another one. What becomes of it is its own affair.
    pub(crate) fn add(&mut self, path: &Path, random: &mut Rand32) -> Result<&'static str, Fault> {
        if self.0.len() >= 12 {
            self.0.clear();
        }
        let mut stream = connect(path)?;
        let (what, bytes): (_, Vec<u8>) = match random.rand_range(0..6) {
            0 => ("silent client", Vec::new()),
            1 => ("half a request", b"{\"request\":\"sta".to_vec()),
            2 => ("line too long", vec![b'x'; 10_000]),
            3 => {
                let bytes = (0..200).map(|_| random.rand_u32().to_le_bytes()[0]);
                ("noise", bytes.chain([b'\n']).collect())
            }
            4 => (
                "200 requests at once",
                b"{\"request\":\"status\"}\n".repeat(200),
            ),
            _ => (
                "gone before its answer",
                b"{\"request\":\"stats\"}\n".to_vec(),
            ),
        };
        // It may be dropped in the middle of it.
        let _ = stream.write_all(&bytes);
        if what != "gone before its answer" {
            self.0.push(stream);
        }
        Ok(what)
    }
}
