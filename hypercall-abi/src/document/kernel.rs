//! The kernel's `hypercalls.rst`, with what its template leaves to do.

use core::fmt::{self, Display, Write};

use super::wrap::Wrap;
use super::{GateText, Number};
use crate::arch::Arch;
use crate::errno::Errno;
use crate::table::{Row, TABLE};

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
        entry(
            out,
            "",
            format_args!("{} ({})", errno.name, errno.code),
            errno.meaning,
        )?;
    }
    for arch in Arch::ALL {
        heading(out, arch.name(), '=')?;
        let convention = arch.convention();
        out.write_char('\n')?;
        field(out, "Instruction", convention.instruction)?;
        field(out, "Number", convention.number)?;
        field(out, "Arguments", convention.arguments)?;
        field(out, "Result", convention.result)?;
        field(out, "Source", convention.source)?;
        for row in TABLE.iter().filter(|row| row.arch == arch) {
            self::row(out, row)?;
        }
    }
    Ok(())
}

fn row(out: &mut impl Write, row: &Row) -> fmt::Result {
    let number = Number(row.nr);
    heading(out, format_args!("{number}. {}", row.name), '-')?;
    out.write_char('\n')?;
    field(out, "Value", &number)?;
    if row.number_register() != row.nr {
        field(
            out,
            "Number register",
            format_args!("{:#x}", row.number_register()),
        )?;
    }
    field(out, "Architecture", row.arch.name())?;
    field(out, "Status", row.status.name())?;
    field(out, "Purpose", row.purpose)?;
    list(
        out,
        "Inputs",
        row.inputs.iter().map(|i| (i.place, i.meaning)),
    )?;
    list(
        out,
        "Outputs",
        row.outputs.iter().map(|o| (o.place, o.meaning)),
    )?;
    list(
        out,
        "Return codes",
        row.returns.iter().map(|r| (r.value, r.meaning)),
    )?;
    field(out, "Feature", GateText(&row.gate))?;
    field(out, "Since", row.since)?;
    field(out, "Served by", row.server.name())?;
    field(out, "Source", row.source)
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

/// `:Name: text`.
fn field(out: &mut impl Write, name: &str, text: impl Display) -> fmt::Result {
    write!(out, ":{name}: ")?;
    write!(Wrap::new(out, name.len() + 3, 2), "{text}")?;
    out.write_char('\n')
}

/// `:Name:` and an entry a line, or `:Name: none`.
fn list<'a>(
    out: &mut impl Write,
    name: &str,
    entries: impl Iterator<Item = (&'a str, &'a str)>,
) -> fmt::Result {
    let mut entries = entries.peekable();
    if entries.peek().is_none() {
        return field(out, name, "none");
    }
    write!(out, ":{name}:\n\n")?;
    for (key, text) in entries {
        entry(out, "  ", key, text)?;
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
