//! What the prose formats have in common: which entries there are, in which
//! order.

use core::fmt::{Display, Result};

use super::{GateText, Number};
use crate::arch::Arch;
use crate::table::Row;

/// A format that has an entry for each fact.
pub(super) trait Prose {
    /// A fact.
    fn text(&mut self, name: &str, text: impl Display) -> Result;

    /// Several of a kind, or none.
    fn list(
        &mut self,
        name: &str,
        entries: impl Iterator<Item = (&'static str, &'static str)>,
    ) -> Result;
}

/// How the calls of an architecture are made.
pub(super) fn convention(out: &mut impl Prose, arch: Arch) -> Result {
    let convention = arch.convention();
    out.text("Instruction", convention.instruction)?;
    out.text("Number", convention.number)?;
    out.text("Arguments", convention.arguments)?;
    out.text("Result", convention.result)?;
    out.text("Source", convention.source)
}

/// All of a row but its name.
pub(super) fn row(out: &mut impl Prose, row: &Row) -> Result {
    out.text("Value", Number(row.nr))?;
    if row.number_register() != row.nr {
        out.text(
            "Number register",
            format_args!("{:#x}", row.number_register()),
        )?;
    }
    out.text("Architecture", row.arch.name())?;
    out.text("Status", row.status.name())?;
    out.text("Purpose", row.purpose)?;
    let pairs = row.inputs.iter().map(|input| (input.place, input.meaning));
    out.list("Inputs", pairs)?;
    let pairs = row
        .outputs
        .iter()
        .map(|output| (output.place, output.meaning));
    out.list("Outputs", pairs)?;
    let pairs = row.returns.iter().map(|code| (code.value, code.meaning));
    out.list("Return codes", pairs)?;
    out.text("Feature", GateText(&row.gate))?;
    out.text("Since", row.since)?;
    out.text("Served by", row.server.name())?;
    out.text("Source", row.source)
}
