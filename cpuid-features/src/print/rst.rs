//! reStructuredText as the kernel's documents have it.

use core::fmt::{self, Display, Write};

use super::escape::Escaped;
use super::wrap::{WIDTH, Wrap, is_markup};
use super::{Field, Rows, Value};

pub(super) fn heading(out: &mut dyn Write, level: u8, title: &dyn Display) -> fmt::Result {
    let line = match level {
        1 | 2 => '=',
        _ => '-',
    };
    let length = width(title);
    let rule = |out: &mut dyn Write| {
        for _ in 0..length {
            out.write_char(line)?;
        }
        out.write_char('\n')
    };
    // The kernel's titles have a line above too.
    if level == 1 {
        rule(out)?;
    } else {
        out.write_char('\n')?;
    }
    writeln!(out, "{title}")?;
    rule(out)
}

pub(super) fn text(out: &mut dyn Write, paragraph: &dyn Display) -> fmt::Result {
    out.write_char('\n')?;
    write!(Wrap::new(out, 0, 0), "{paragraph}")?;
    out.write_char('\n')
}

pub(super) fn literal(out: &mut dyn Write, lines: &str) -> fmt::Result {
    out.write_str("\n::\n\n")?;
    for line in lines.lines() {
        if line.is_empty() {
            out.write_char('\n')?;
        } else {
            writeln!(out, "  {line}")?;
        }
    }
    Ok(())
}

/// A field list: `:Name: text`, or `:Name:` and an entry a line.
pub(super) fn fields(out: &mut dyn Write, fields: &[Field<'_>]) -> fmt::Result {
    out.write_char('\n')?;
    for field in fields.iter().filter(|field| !field.label.is_empty()) {
        let label = field.label;
        if let Value::Entries(each) = field.value {
            let mut empty = true;
            each(&mut |entry| {
                if core::mem::take(&mut empty) {
                    write!(out, ":{label}:\n\n")?;
                }
                out.write_str("  - ")?;
                let mut text = Wrap::new(out, 4, 4);
                write!(text, "{}: {}", entry.head(), entry.meaning)?;
                out.write_char('\n')
            })?;
            out.write_char('\n')?;
            if !empty {
                continue;
            }
            writeln!(out, ":{label}: none")?;
            continue;
        }
        write!(out, ":{label}: ")?;
        let column = label.len() + 3;
        write!(Wrap::new(out, column, 2), "{}", field.value)?;
        out.write_char('\n')?;
    }
    Ok(())
}

/// The most columns of a table.
const COLUMNS: usize = 8;

/// A simple table, its last column wrapped.
pub(super) fn table(out: &mut dyn Write, columns: &[&str], rows: Rows<'_>) -> fmt::Result {
    let mut widths = [0; COLUMNS];
    for (wide, column) in widths.iter_mut().zip(columns) {
        *wide = column.len();
    }
    rows(&mut |cells| {
        for (wide, cell) in widths.iter_mut().zip(cells) {
            *wide = width(&escaped(cell)).max(*wide);
        }
        Ok(())
    })?;
    let last = columns.len().saturating_sub(1);
    let mut start = 0;
    for wide in widths.iter_mut().take(last) {
        start += *wide + 2;
    }
    if let Some(wide) = widths.get_mut(last) {
        // The wrapped text ends there at the latest.
        *wide = (*wide).min(WIDTH.saturating_sub(start)).max(8);
    }
    let rule = |out: &mut dyn Write| {
        for (nth, wide) in widths.iter().take(columns.len()).enumerate() {
            let gap = if nth == 0 { "" } else { "  " };
            write!(out, "{gap}{:=<wide$}", "")?;
        }
        out.write_char('\n')
    };
    out.write_char('\n')?;
    rule(out)?;
    for (nth, (column, wide)) in columns.iter().zip(widths).enumerate() {
        let wide = if nth == last { 0 } else { wide + 2 };
        write!(out, "{column:<wide$}")?;
    }
    out.write_char('\n')?;
    rule(out)?;
    rows(&mut |cells| {
        for (nth, (cell, wide)) in cells.iter().zip(widths).enumerate() {
            if nth == last {
                write!(Wrap::new(out, start, start), "{cell}")?;
            } else {
                write!(out, "{}", escaped(cell))?;
                let gap = (wide + 2).saturating_sub(width(&escaped(cell)));
                write!(out, "{:gap$}", "")?;
            }
        }
        out.write_char('\n')
    })?;
    rule(out)
}

/// How many characters something prints.
fn width(text: &dyn Display) -> usize {
    struct Count(usize);
    impl Write for Count {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            self.0 += text.chars().count();
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting cannot fail.
    let _ = write!(count, "{text}");
    count.0
}

/// Text that reStructuredText takes for text.
fn escaped(text: &dyn Display) -> Escaped<'_> {
    Escaped { text, is_markup }
}
