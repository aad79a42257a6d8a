//! JSON.

use core::fmt::{self, Display, Write};

use super::GateName;
use crate::table::{Row, Since, TABLE};

pub(super) fn write(out: &mut impl Write) -> fmt::Result {
    out.write_str("[")?;
    for (nth, row) in TABLE.iter().enumerate() {
        out.write_str(if nth == 0 { "\n" } else { ",\n" })?;
        object(out, row)?;
    }
    out.write_str("\n]\n")
}

fn object(out: &mut impl Write, row: &Row) -> fmt::Result {
    write!(out, "  {{\"arch\": {}", Quoted(row.arch.name()))?;
    write!(out, ", \"nr\": {}", row.nr)?;
    write!(out, ", \"number_register\": {}", row.number_register())?;
    write!(out, ", \"name\": {}", Quoted(row.name))?;
    write!(out, ", \"status\": {}", Quoted(row.status.name()))?;
    write!(out, ", \"purpose\": {}", Quoted(row.purpose))?;
    for (name, fields) in [("inputs", row.inputs), ("outputs", row.outputs)] {
        let pairs = fields.iter().map(|field| (field.place, field.meaning));
        array(out, name, "place", pairs)?;
    }
    let pairs = row.returns.iter().map(|code| (code.value, code.meaning));
    array(out, "returns", "value", pairs)?;
    write!(out, ", \"gate\": {}", Quoted(GateName(&row.gate)))?;
    match row.since {
        Since::Linux(release) => write!(out, ", \"since\": {}", Quoted(release))?,
        Since::Unverified => out.write_str(", \"since\": null")?,
    }
    write!(out, ", \"served_by\": {}", Quoted(row.server.name()))?;
    write!(out, ", \"source\": {}}}", Quoted(row.source))
}

/// A member that holds objects of `key` and "meaning".
fn array(
    out: &mut impl Write,
    name: &str,
    key: &str,
    pairs: impl Iterator<Item = (&'static str, &'static str)>,
) -> fmt::Result {
    write!(out, ", \"{name}\": [")?;
    for (nth, (value, meaning)) in pairs.enumerate() {
        let comma = if nth == 0 { "" } else { ", " };
        write!(
            out,
            "{comma}{{\"{key}\": {}, \"meaning\": {}}}",
            Quoted(value),
            Quoted(meaning)
        )?;
    }
    out.write_str("]")
}

/// A JSON string.
struct Quoted<T>(T);

impl<T: Display> Display for Quoted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"")?;
        write!(Escape(f), "{}", self.0)?;
        write!(f, "\"")
    }
}

/// Escapes what JSON does not allow in a string.
struct Escape<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Write for Escape<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            match c {
                '"' | '\\' => write!(self.0, "\\{c}")?,
                c if c.is_control() => write!(self.0, "\\u{:04x}", u32::from(c))?,
                c => self.0.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::Quoted;

    /// The table has no such characters today.
    #[test]
    fn strings_are_escaped() {
        assert_eq!(Quoted("a\"b\\c\n").to_string(), r#""a\"b\\c\u000a""#);
    }
}
