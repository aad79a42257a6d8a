//! Text that a format takes for text.

use core::fmt::{self, Display, Write};

/// Prints a backslash before each character that would be markup.
pub(super) struct Escaped<'a> {
    pub(super) text: &'a dyn Display,
    pub(super) is_markup: fn(char) -> bool,
}

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escape<'a, 'b>(&'a mut fmt::Formatter<'b>, fn(char) -> bool);
        impl Write for Escape<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for c in text.chars() {
                    if (self.1)(c) {
                        self.0.write_char('\\')?;
                    }
                    self.0.write_char(c)?;
                }
                Ok(())
            }
        }
        write!(Escape(f, self.is_markup), "{}", self.text)
    }
}
