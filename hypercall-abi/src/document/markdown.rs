//! Markdown.

use core::fmt::{self, Display, Write};

use super::{GateName, GateText, Number};
use crate::arch::Arch;
use crate::errno::Errno;
use crate::table::{Row, TABLE};

const HEAD: &str = "\
# Hypercalls

Every hypercall of KVM, by architecture. Printed from the crate's table by
`cargo run -p hypercall-abi --example hypercalls -- --format markdown`: do not
edit. \"unverified\" marks what no kernel source read says.

| architecture | number | name | status | feature |
|---|---|---|---|---|
";

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
        let convention = arch.convention();
        write!(out, "\n## {}\n\n| | |\n|---|---|\n", arch.name())?;
        line(out, "Instruction", convention.instruction)?;
        line(out, "Number", convention.number)?;
        line(out, "Arguments", convention.arguments)?;
        line(out, "Result", convention.result)?;
        line(out, "Source", convention.source)?;
        for row in TABLE.iter().filter(|row| row.arch == arch) {
            self::row(out, row)?;
        }
    }
    Ok(())
}

fn row(out: &mut impl Write, row: &Row) -> fmt::Result {
    write!(
        out,
        "\n### {}: `{}`\n\n{}\n\n| | |\n|---|---|\n",
        Number(row.nr),
        row.name,
        Escaped(row.purpose)
    )?;
    if row.number_register() != row.nr {
        line(
            out,
            "Number register",
            format_args!("{:#x}", row.number_register()),
        )?;
    }
    line(out, "Architecture", row.arch.name())?;
    line(out, "Status", row.status.name())?;
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
    line(out, "Feature", GateText(&row.gate))?;
    line(out, "Since", row.since)?;
    line(out, "Served by", row.server.name())?;
    line(out, "Source", row.source)
}

/// A line of a table of two columns.
fn line(out: &mut impl Write, name: &str, text: impl Display) -> fmt::Result {
    writeln!(out, "| {name} | {} |", Escaped(text))
}

/// A line that holds several entries.
fn list<'a>(
    out: &mut impl Write,
    name: &str,
    entries: impl Iterator<Item = (&'a str, &'a str)>,
) -> fmt::Result {
    let mut entries = entries.peekable();
    if entries.peek().is_none() {
        return line(out, name, "none");
    }
    write!(out, "| {name} | ")?;
    for (nth, (key, text)) in entries.enumerate() {
        let separator = if nth == 0 { "" } else { "<br>" };
        write!(out, "{separator}`{key}`: {}", Escaped(text))?;
    }
    out.write_str(" |\n")
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
