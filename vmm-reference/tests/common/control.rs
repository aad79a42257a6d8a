//! A client of the control socket.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::LIMIT;

/// Connects once the socket is there.
pub(crate) fn connect(path: &Path) -> BufReader<UnixStream> {
    let end = Instant::now() + LIMIT;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => {
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                return BufReader::new(stream);
            }
            Err(e) => assert!(Instant::now() < end, "{e}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A request and its answer.
pub(crate) fn ask(stream: &mut BufReader<UnixStream>, request: &str) -> serde_json::Value {
    let line = format!("{request}\n");
    stream.get_mut().write_all(line.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_line(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap()
}
