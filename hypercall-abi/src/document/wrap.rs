//! Text wrapped at words, without a buffer.

use core::fmt::{self, Write};

/// Where a line is broken. A word that arrives in two pieces may go a little
/// over it.
const WIDTH: usize = 76;

/// Writes words, breaking lines at blanks.
pub(super) struct Wrap<'a, W: Write> {
    out: &'a mut W,
    indent: usize,
    column: usize,
    blank: bool,
}

impl<'a, W: Write> Wrap<'a, W> {
    /// Goes on at `column`; further lines begin with `indent` blanks.
    pub(super) const fn new(out: &'a mut W, column: usize, indent: usize) -> Self {
        Self {
            out,
            indent,
            column,
            blank: false,
        }
    }
}

impl<W: Write> Write for Wrap<'_, W> {
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
            self.out.write_str(word)?;
            self.column += word.len();
        }
        Ok(())
    }
}
