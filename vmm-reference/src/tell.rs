//! Words on standard error. Who closed it, or let it fill up, misses them: that
//! is no reason for a VM to end, as it is to the standard library's macros.

use std::fmt::Display;
use std::io::Write as _;

/// A line that begins with the program's name.
pub(crate) fn line(words: impl Display) {
    text(&format!("vmm-reference: {words}\n"));
}

/// `text` as it is, in one piece where the system takes it so.
pub(crate) fn text(text: &str) {
    // There is nowhere to say that it failed.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
