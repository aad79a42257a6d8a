//! Text wrapped at words, without a buffer, and escaped for reStructuredText.

use core::fmt::{self, Write};

/// Where a line is broken. A word that arrives in two pieces may go a little
/// over it.
pub(super) const WIDTH: usize = 76;

/// Whether reStructuredText takes a character for markup.
pub(super) const fn is_markup(c: char) -> bool {
    matches!(c, '*' | '`' | '|' | '\\')
}

/// Writes words, breaking lines at blanks.
pub(super) struct Wrap<'a> {
    out: &'a mut dyn Write,
    indent: usize,
    column: usize,
    blank: bool,
}

impl<'a> Wrap<'a> {
    /// Goes on at `column`; further lines begin with `indent` blanks.
    pub(super) fn new(out: &'a mut dyn Write, column: usize, indent: usize) -> Self {
        Self {
            out,
            indent,
            column,
            blank: false,
        }
    }
}

impl Write for Wrap<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (nth, word) in text.split(' ').enumerate() {
            self.blank |= nth > 0;
            if word.is_empty() {
                continue;
            }
            if core::mem::take(&mut self.blank) {
                if self.column + 1 + word.len() > WIDTH {
                    write!(self.out, "\n{:1$}", "", self.indent)?;
                    self.column = self.indent;
                } else {
                    self.out.write_char(' ')?;
                    self.column += 1;
                }
            }
            let mut chars = word.chars().peekable();
            while let Some(c) = chars.next() {
                // An underscore at the end of a word makes it a reference.
                let ends = !chars
                    .peek()
                    .is_some_and(|next| next.is_alphanumeric() || *next == '_');
                if is_markup(c) || (c == '_' && ends) {
                    self.out.write_char('\\')?;
                    self.column += 1;
                }
                self.out.write_char(c)?;
                self.column += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use core::fmt::Write as _;
    use std::string::String;

    use super::{WIDTH, Wrap};

    #[test]
    fn lines_end_in_time() {
        let mut text = String::new();
        let mut wrap = Wrap::new(&mut text, 0, 2);
        for _ in 0..40 {
            wrap.write_str("word* ").unwrap();
        }
        assert!(text.lines().all(|line| line.len() <= WIDTH), "{text}");
        assert!(text.lines().count() > 3);
        assert!(
            text.lines()
                .skip(1)
                .all(|line| line.starts_with("  word\\*"))
        );
    }
}
