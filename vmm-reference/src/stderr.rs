//! Messages on standard error. If it is closed or full they are lost: that is no
//! reason to end a VM, as it is to the standard library's macros.

use std::fmt::Display;
use std::io::Write as _;

/// One message, with the program's name before it.
pub(crate) fn message(message: impl Display) {
    raw(&format!("vmm-reference: {message}\n"));
}

/// `text` as it is, in one piece where the system takes it so.
pub(crate) fn raw(text: &str) {
    // There is nowhere to say that it failed.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
