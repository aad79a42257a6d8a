//! Tab-separated values.

use core::fmt::{self, Write};

use super::{GateName, Number};
use crate::table::TABLE;

pub(super) fn write(out: &mut impl Write) -> fmt::Result {
    out.write_str("arch\tnr\tname\tstatus\tgate\n")?;
    for row in TABLE {
        writeln!(
            out,
            "{}\t{}\t{}\t{}\t{}",
            row.arch.name(),
            Number(row.nr),
            row.name,
            row.status.name(),
            GateName(&row.gate)
        )?;
    }
    Ok(())
}
