//! The kernel's `hypercalls.rst`, with what its template leaves to do.

use core::fmt::{self, Display, Write};

use super::Number;
use super::prose::{self, Prose};
use super::wrap::Wrap;
use crate::arch::Arch;
use crate::errno::Errno;
use crate::table::TABLE;

const HEAD: &str = "\
KVM Hypercalls Documentation
============================

The template for each hypercall is:
1. Hypercall name, value
2. Architecture(s)
3. Status (active, deprecated, reserved, unverified)
4. Purpose
5. Inputs, by register, with units
6. Outputs
7. Return codes
8. Feature that announces it
9. Since when, who serves it, and where the kernel has it

The number of a heading is the hypercall's value. \"unverified\" marks what no
kernel source read says.
";

pub(super) fn write(out: &mut impl Write) -> fmt::Result {
    out.write_str(HEAD)?;
    heading(out, "Return codes", '=')?;
    out.write_str("\nA guest reads the negative value.\n\n")?;
    for errno in Errno::ALL {
        let key = format_args!("{} ({})", errno.name, errno.code);
        entry(out, "", key, errno.meaning)?;
    }
    for arch in Arch::ALL {
        heading(out, arch.name(), '=')?;
        out.write_char('\n')?;
        prose::convention(&mut FieldList(out), arch)?;
        for row in TABLE.iter().filter(|row| row.arch == arch) {
            heading(out, format_args!("{}. {}", Number(row.nr), row.name), '-')?;
            out.write_char('\n')?;
            prose::row(&mut FieldList(out), row)?;
        }
    }
    Ok(())
}

/// A field list of reStructuredText.
struct FieldList<'a, W>(&'a mut W);

impl<W: Write> Prose for FieldList<'_, W> {
    /// `:Name: text`.
    fn text(&mut self, name: &str, text: impl Display) -> fmt::Result {
        write!(self.0, ":{name}: ")?;
        write!(Wrap::new(self.0, name.len() + 3, 2), "{text}")?;
        self.0.write_char('\n')
    }

    /// `:Name:` and an entry a line, or `:Name: none`.
    fn list(
        &mut self,
        name: &str,
        entries: impl Iterator<Item = (&'static str, &'static str)>,
    ) -> fmt::Result {
        let mut entries = entries.peekable();
        if entries.peek().is_none() {
            return self.text(name, "none");
        }
        write!(self.0, ":{name}:\n\n")?;
        for (key, text) in entries {
            entry(self.0, "  ", key, text)?;
        }
        self.0.write_char('\n')
    }
}

/// A title and the line under it.
fn heading(out: &mut impl Write, title: impl Display, line: char) -> fmt::Result {
    /// Passes text on and counts it.
    struct Count<'a, W>(&'a mut W, usize);
    impl<W: Write> Write for Count<'_, W> {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.1 += text.len();
            self.0.write_str(text)
        }
    }
    out.write_char('\n')?;
    let mut count = Count(out, 0);
    write!(count, "{title}")?;
    let length = count.1;
    out.write_char('\n')?;
    for _ in 0..length {
        out.write_char(line)?;
    }
    out.write_char('\n')
}

/// `- key: text`.
fn entry(out: &mut impl Write, indent: &str, key: impl Display, text: &str) -> fmt::Result {
    write!(out, "{indent}- ")?;
    let column = indent.len() + 2;
    write!(Wrap::new(out, column, column), "{key}: {text}")?;
    out.write_char('\n')
}
