//! Markdown.

use core::fmt::{self, Display, Write};

use super::escape::Escaped;
use super::{Field, Rows, Value};

pub(super) fn heading(out: &mut dyn Write, level: u8, title: &dyn Display) -> fmt::Result {
    if level > 1 {
        out.write_char('\n')?;
    }
    for _ in 0..level {
        out.write_char('#')?;
    }
    writeln!(out, " {title}")
}

pub(super) fn text(out: &mut dyn Write, paragraph: &dyn Display) -> fmt::Result {
    writeln!(out, "\n{}", escaped(paragraph))
}

pub(super) fn literal(out: &mut dyn Write, lines: &str) -> fmt::Result {
    out.write_str("\n```text\n")?;
    for line in lines.lines() {
        writeln!(out, "{line}")?;
    }
    out.write_str("```\n")
}

/// A table of two columns, which needs no titles.
pub(super) fn fields(out: &mut dyn Write, fields: &[Field<'_>]) -> fmt::Result {
    out.write_str("\n| | |\n|---|---|\n")?;
    for field in fields.iter().filter(|field| !field.label.is_empty()) {
        write!(out, "| {} | ", field.label)?;
        cell(out, field.value)?;
        out.write_str(" |\n")?;
    }
    Ok(())
}

pub(super) fn table(out: &mut dyn Write, columns: &[&str], rows: Rows<'_>) -> fmt::Result {
    out.write_char('\n')?;
    for column in columns {
        write!(out, "| {column} ")?;
    }
    out.write_str("|\n")?;
    for _ in columns {
        out.write_str("|---")?;
    }
    out.write_str("|\n")?;
    rows(&mut |cells| {
        for given in cells {
            out.write_str("| ")?;
            cell(out, *given)?;
            out.write_char(' ')?;
        }
        out.write_str("|\n")
    })
}

fn cell(out: &mut dyn Write, value: Value<'_>) -> fmt::Result {
    match value {
        Value::Code(name) => write!(out, "`{name}`"),
        Value::List(each) => {
            let mut between = "";
            each(&mut |one| {
                out.write_str(core::mem::replace(&mut between, ", "))?;
                cell(out, one)
            })?;
            out.write_str(if between.is_empty() { "none" } else { "" })
        }
        Value::Entries(each) => {
            let mut between = "";
            each(&mut |entry| {
                out.write_str(core::mem::replace(&mut between, "<br>"))?;
                write!(out, "`{}`", entry.key.1)?;
                if let Some((_, note)) = entry.note {
                    write!(out, " ({})", escaped(note))?;
                }
                write!(out, ": {}", escaped(entry.meaning))
            })?;
            out.write_str(if between.is_empty() { "none" } else { "" })
        }
        words => write!(out, "{}", escaped(&words)),
    }
}

/// Text that Markdown takes for text.
fn escaped(text: &dyn Display) -> Escaped<'_> {
    Escaped {
        text,
        is_markup: |c| matches!(c, '|' | '*' | '<' | '[' | '`' | '\\'),
    }
}
