//! The control socket: one JSON object a line, one line of answer each.
//!
//! ```text
//! {"request":"status"}             {"ok":{"vcpus":["running"],"uptime_ms":12}}
//! {"request":"stats"}              {"ok":{"kvm":{"halt_exits":3,...},"unclaimed":0}}
//! {"request":"pause"}              {"ok":{}}
//! {"request":"resume"}             {"ok":{}}
//! {"request":"kick","apic_id":1}   {"ok":{"delivered":true}}
//! {"request":"stop"}               {"ok":{}}
//! {"request":"snapshot","path":P}  {"ok":{"bytes":N,"state_bytes":N,"seconds":S,"paused_seconds":S}}
//! anything else                    {"error":"..."}
//! ```
//!
//! [`answer`] and [`Lines`] are the protocol; [`Socket`] is the file, [`Server`]
//! answers its clients.

mod server;
mod socket;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use server::Server;
pub use socket::{ControlError, Socket};

/// Bytes of a request, its newline included.
pub const LINE_MAX: usize = 4096;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Where each vCPU is, and since when there are any.
    Status,
    /// KVM's counters.
    Stats,
    /// Stop running guest code, for now.
    Pause,
    /// End the pause.
    Resume,
    /// End the halt of a vCPU.
    Kick {
        /// The APIC ID of the vCPU.
        apic_id: u32,
    },
    /// End the VM.
    Stop,
    /// Write the whole VM to a file, which is replaced if it is there. A VM that
    /// is not paused is paused for that time.
    Snapshot {
        /// The file's name, for the VMM's process.
        path: PathBuf,
    },
}

/// What a request reaches.
pub trait Target {
    /// Does it; the answer's content, or one line that says why not.
    fn handle(&mut self, request: Request) -> Result<Value, String>;
}

/// The answer to one line (without its newline), with a newline.
///
/// Total: whatever the bytes are, it is one line of JSON.
pub fn answer(line: &[u8], target: &mut impl Target) -> String {
    let answer = match serde_json::from_slice(line) {
        Ok(request) => match target.handle(request) {
            Ok(value) => json!({ "ok": value }),
            Err(reason) => json!({ "error": reason }),
        },
        Err(e) => json!({ "error": format!("not a request: {e}") }),
    };
    format!("{answer}\n")
}

/// The answer to a line that is too long; the connection ends with it.
pub fn too_long() -> String {
    let reason = format!("a request of more than {LINE_MAX} bytes");
    format!("{}\n", json!({ "error": reason }))
}

/// Cuts a stream of bytes into lines, and keeps no more than one of them.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Hands each complete line, without its newline, to `each`. False: a line
    /// is longer than [`LINE_MAX`], and nothing more is to be expected of this
    /// stream.
    #[must_use]
    pub fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(&[u8])) -> bool {
        while let Some(end) = bytes.iter().position(|&b| b == b'\n') {
            let (line, rest) = bytes.split_at(end);
            if self.partial.len() + line.len() >= LINE_MAX {
                return false;
            }
            if self.partial.is_empty() {
                each(line);
            } else {
                self.partial.extend_from_slice(line);
                each(&self.partial);
                self.partial.clear();
            }
            bytes = rest.get(1..).unwrap_or_default();
        }
        if self.partial.len() + bytes.len() >= LINE_MAX {
            return false;
        }
        self.partial.extend_from_slice(bytes);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Says what it was asked.
    #[derive(Default)]
    struct Asked(Vec<Request>);

    impl Target for Asked {
        fn handle(&mut self, request: Request) -> Result<Value, String> {
            self.0.push(request.clone());
            match request {
                Request::Kick { apic_id: 9 } => Err("no vCPU 9".to_string()),
                _ => Ok(json!({})),
            }
        }
    }

    #[test]
    fn requests_by_the_documented_words() {
        let mut asked = Asked::default();
        for line in [
            r#"{"request":"status"}"#,
            r#"{"request":"stats"}"#,
            r#" {"request": "pause"} "#,
            r#"{"request":"resume"}"#,
            r#"{"apic_id":7,"request":"kick"}"#,
            r#"{"request":"stop"}"#,
            r#"{"request":"snapshot","path":"/tmp/vm"}"#,
        ] {
            assert_eq!(answer(line.as_bytes(), &mut asked), "{\"ok\":{}}\n");
        }
        use Request::{Kick, Pause, Resume, Snapshot, Stats, Status, Stop};
        let kick = Kick { apic_id: 7 };
        let path = "/tmp/vm".into();
        let snapshot = Snapshot { path };
        assert_eq!(
            asked.0,
            [Status, Stats, Pause, Resume, kick, Stop, snapshot]
        );
        let refused = answer(br#"{"request":"kick","apic_id":9}"#, &mut asked);
        assert_eq!(refused, "{\"error\":\"no vCPU 9\"}\n");
    }

    #[test]
    fn anything_else_is_an_error_line() {
        let mut asked = Asked::default();
        for line in [
            "",
            "{}",
            "status",
            r#"{"request":"kick"}"#,
            r#"{"request":"kick","apic_id":-1}"#,
            r#"{"request":"kick","apic_id":4294967296}"#,
            r#"{"request":"explode"}"#,
            r#"{"request":"snapshot"}"#,
            r#"{"request":"snapshot","path":7}"#,
            r#"[[[[[[[["#,
            "\u{0}\u{1}",
        ] {
            let said = answer(line.as_bytes(), &mut asked);
            assert!(said.starts_with("{\"error\":\"not a request"), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
        let deep = vec![b'['; LINE_MAX];
        assert!(answer(&deep, &mut asked).starts_with("{\"error\""));
        assert!(asked.0.is_empty());
    }

    /// What a stream's lines are, all of it at once.
    fn whole(stream: &[u8]) -> (Vec<Vec<u8>>, bool) {
        let mut lines: Vec<Vec<u8>> = stream.split(|&b| b == b'\n').map(<[u8]>::to_vec).collect();
        let fine = lines.iter().position(|line| line.len() >= LINE_MAX);
        let last = lines.pop().unwrap();
        let end = fine.unwrap_or(lines.len()).min(lines.len());
        lines.truncate(end);
        let _ = last;
        (lines, fine.is_none())
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(
            stream in proptest::collection::vec(prop_oneof![9 => Just(b'x'), 1 => Just(b'\n')], 0..300),
            long in 0usize..2,
            cuts in proptest::collection::vec(1usize..64, 1..300),
        ) {
            let mut stream = stream;
            stream.extend(vec![b'y'; long * LINE_MAX]);
            stream.push(b'\n');
            let (mut lines, mut got, mut fine) = (Lines::default(), Vec::new(), true);
            let mut rest = stream.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() || !fine {
                    break;
                }
                let (piece, more) = rest.split_at((*cut).min(rest.len()));
                fine = lines.feed(piece, |line| got.push(line.to_vec()));
                prop_assert!(lines.partial.len() < LINE_MAX);
                rest = more;
            }
            prop_assert_eq!((got, fine), whole(&stream));
        }
    }
}
