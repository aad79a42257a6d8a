//! Tab-separated values.

use core::fmt;

use super::Document;

pub(super) fn write(f: &mut fmt::Formatter<'_>, document: &Document) -> fmt::Result {
    f.write_str("register\tbit\tname\n")?;
    for row in document.features() {
        writeln!(f, "{}\t{}\t{}", document.register(), row.bit, row.name)?;
    }
    for hint in document.hints() {
        writeln!(f, "edx\t{}\t{}", hint.bit, hint.name)?;
    }
    Ok(())
}
