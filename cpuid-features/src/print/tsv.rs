//! Tab-separated values.

use core::fmt::{self, Write};

use super::Rows;

pub(super) fn table(out: &mut dyn Write, columns: &[&str], rows: Rows<'_>) -> fmt::Result {
    for (nth, column) in columns.iter().enumerate() {
        let tab = if nth == 0 { "" } else { "\t" };
        write!(out, "{tab}{column}")?;
    }
    out.write_char('\n')?;
    rows(&mut |cells| {
        for (nth, cell) in cells.iter().enumerate() {
            let tab = if nth == 0 { "" } else { "\t" };
            write!(out, "{tab}{cell}")?;
        }
        out.write_char('\n')
    })
}
