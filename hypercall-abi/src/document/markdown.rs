//! Markdown.

use core::fmt::{self, Display, Write};

use super::prose::{self, Prose};
use super::{GateName, Number};
use crate::arch::Arch;
use crate::errno::Errno;
use crate::table::TABLE;

const HEAD: &str = "\
# Hypercalls

Every hypercall of KVM, by architecture. Printed from the crate's table by
`cargo run -p hypercall-abi --example hypercalls -- --format markdown`: do not
edit. \"unverified\" marks what no kernel source read says.

| architecture | number | name | status | feature |
|---|---|---|---|---|
";

/// Of a table of two columns, which needs no titles.
const TABLE_HEAD: &str = "\n| | |\n|---|---|\n";

pub(super) fn write(out: &mut impl Write) -> fmt::Result {
    out.write_str(HEAD)?;
    for row in TABLE {
        writeln!(
            out,
            "| {} | {} | `{}` | {} | {} |",
            row.arch.name(),
            Number(row.nr),
            row.name,
            row.status.name(),
            Escaped(GateName(&row.gate))
        )?;
    }
    out.write_str("\n## Return codes\n\nA guest reads the negative value.\n\n")?;
    out.write_str("| code | value | meaning |\n|---|---|---|\n")?;
    for errno in Errno::ALL {
        writeln!(
            out,
            "| `{}` | {} | {} |",
            errno.name,
            errno.code,
            Escaped(errno.meaning)
        )?;
    }
    for arch in Arch::ALL {
        write!(out, "\n## {}\n{TABLE_HEAD}", arch.name())?;
        prose::convention(&mut Lines(out), arch)?;
        for row in TABLE.iter().filter(|row| row.arch == arch) {
            write!(
                out,
                "\n### {}: `{}`\n{TABLE_HEAD}",
                Number(row.nr),
                row.name
            )?;
            prose::row(&mut Lines(out), row)?;
        }
    }
    Ok(())
}

/// Lines of a table of two columns.
struct Lines<'a, W>(&'a mut W);

impl<W: Write> Prose for Lines<'_, W> {
    fn text(&mut self, name: &str, text: impl Display) -> fmt::Result {
        writeln!(self.0, "| {name} | {} |", Escaped(text))
    }

    /// All in one line.
    fn list(
        &mut self,
        name: &str,
        entries: impl Iterator<Item = (&'static str, &'static str)>,
    ) -> fmt::Result {
        let mut entries = entries.peekable();
        if entries.peek().is_none() {
            return self.text(name, "none");
        }
        write!(self.0, "| {name} | ")?;
        for (nth, (key, text)) in entries.enumerate() {
            let separator = if nth == 0 { "" } else { "<br>" };
            write!(self.0, "{separator}`{key}`: {}", Escaped(text))?;
        }
        self.0.write_str(" |\n")
    }
}

/// Text that Markdown takes for text.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escape<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl Write for Escape<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                for c in text.chars() {
                    if matches!(c, '|' | '*' | '<' | '[' | '`' | '\\') {
                        self.0.write_char('\\')?;
                    }
                    self.0.write_char(c)?;
                }
                Ok(())
            }
        }
        write!(Escape(f), "{}", self.0)
    }
}
