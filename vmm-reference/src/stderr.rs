//! Messages on standard error. If it is closed or full they are lost: that is no
//! reason to end a VM, as it is to the standard library's macros. Who was asked to
//! end does not wait for their reader.

use std::fmt::Display;
use std::io::Write as _;

use crate::descriptor::Descriptor;

/// Bytes of a message, about: whoever reads it wants its beginning, which says
/// what is wrong with what, and its end, which says why.
const MOST: usize = 600;

/// One message, in one line, with the program's name before it. What it quotes may
/// be any file's or option's name: characters that a terminal would obey are
/// escaped, and of a long one the middle is left out.
pub(crate) fn message(message: impl Display) {
    raw(&format!(
        "vmm-reference: {}\n",
        one_line(&message.to_string())
    ));
}

/// `text` as it is, in one piece where the system takes it so.
pub(crate) fn raw(text: &str) {
    // There is nowhere to say that it failed.
    let _ = Descriptor(std::io::stderr()).write_all(text.as_bytes());
}

/// Printable, in one line, of bounded length.
fn one_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len().min(2 * MOST));
    for c in cut(message).chars() {
        match c {
            '\'' | '"' | '\\' => line.push(c),
            c => line.extend(c.escape_debug()),
        }
    }
    line
}

/// Without its middle, if it is too long.
fn cut(message: &str) -> std::borrow::Cow<'_, str> {
    if message.len() <= MOST {
        return message.into();
    }
    let boundary = |at: &usize| message.is_char_boundary(*at);
    let from = (0..=MOST / 2).rev().find(boundary).unwrap_or(0);
    let mut ends = message.len() - MOST / 2..message.len();
    let to = ends.find(boundary).unwrap_or(message.len());
    let (start, end) = (message.get(..from), message.get(to..));
    let (start, end) = (start.unwrap_or_default(), end.unwrap_or_default());
    format!("{start} [...] {end}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_whatever_it_quotes() {
        assert_eq!(
            one_line("kernel it's \"a\\b\": nö"),
            "kernel it's \"a\\b\": nö"
        );
        assert_eq!(
            one_line("a\nb\tc\x1b[31m\u{7f}\u{85}\u{202e}"),
            "a\\nb\\tc\\u{1b}[31m\\u{7f}\\u{85}\\u{202e}"
        );
    }

    #[test]
    fn a_long_message_keeps_its_beginning_and_its_end() {
        let long = format!("kernel {}: No such file", "ä".repeat(10_000));
        let line = one_line(&long);
        assert!(line.starts_with("kernel ä"), "{line}");
        assert!(line.ends_with("ä: No such file"), "{line}");
        assert!(line.contains(" [...] "), "{line}");
        assert!(line.len() <= MOST + 10, "{}", line.len());
        // Escapes make it longer, by a bounded factor.
        assert!(one_line(&"\u{1b}".repeat(100_000)).len() < 10 * MOST);
    }
}
