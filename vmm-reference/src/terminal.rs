//! A terminal in raw mode, and back again.

use std::io::{self, IsTerminal as _};
use std::sync::OnceLock;

use rustix::termios::{OptionalActions, OutputModes, Termios, tcgetattr, tcsetattr};

use crate::jail;
use crate::signals::ending;

/// What it was before the first time, for an end by force and one by the jail.
static BEFORE: OnceLock<Termios> = OnceLock::new();

/// Async-signal-safe: an atomic load and an ioctl.
fn restore() {
    if let Some(before) = BEFORE.get() {
        // A terminal that is gone needs nothing restored.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, before);
    }
}

/// Standard input is a raw terminal for as long as this lives: every key goes
/// to the guest, Ctrl-C too. What it was before is restored on drop, which a
/// panic runs as well.
#[derive(Debug)]
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// `None` if standard input is no terminal.
    pub fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        // A second terminal is not made raw in one process.
        let _ = BEFORE.set(before.clone());
        ending::before_force(restore);
        jail::report::before_report(restore);
        let mut raw = before.clone();
        raw.make_raw();
        // Messages of this process still begin in the first column.
        raw.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing restored.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
