//! JSON: the members of an object, and strings.

use core::fmt::{self, Display, Write};

use super::{Field, Value};

/// An object of the fields that have a key.
pub(super) fn object(out: &mut dyn Write, fields: &[Field<'_>]) -> fmt::Result {
    out.write_str("  {")?;
    let members = fields.iter().filter(|field| !field.key.is_empty());
    for (nth, field) in members.enumerate() {
        let comma = if nth == 0 { "" } else { ", " };
        write!(out, "{comma}\"{}\": ", field.key)?;
        value(out, field.value)?;
    }
    out.write_str("}")
}

fn value(out: &mut dyn Write, given: Value<'_>) -> fmt::Result {
    match given {
        Value::Text(text) | Value::Code(text) => string(out, text),
        Value::Number(number) | Value::Hex(number) => write!(out, "{number}"),
        Value::Flag(flag) => write!(out, "{flag}"),
        Value::Missing(_) => out.write_str("null"),
        Value::List(each) => {
            let mut comma = "[";
            each(&mut |one| {
                out.write_str(core::mem::replace(&mut comma, ", "))?;
                value(out, one)
            })?;
            out.write_str(if comma == "[" { "[]" } else { "]" })
        }
        Value::Entries(each) => {
            let mut comma = "[";
            each(&mut |entry| {
                out.write_str(core::mem::replace(&mut comma, ", "))?;
                write!(out, "{{\"{}\": ", entry.key.0)?;
                string(out, entry.key.1)?;
                if let Some((key, note)) = entry.note {
                    write!(out, ", \"{key}\": ")?;
                    string(out, note)?;
                }
                out.write_str(", \"meaning\": ")?;
                string(out, entry.meaning)?;
                out.write_str("}")
            })?;
            out.write_str(if comma == "[" { "[]" } else { "]" })
        }
    }
}

fn string(out: &mut dyn Write, text: &dyn Display) -> fmt::Result {
    out.write_str("\"")?;
    write!(Escape(out), "{text}")?;
    out.write_str("\"")
}

/// Escapes what JSON does not allow in a string.
struct Escape<'a>(&'a mut dyn Write);

impl Write for Escape<'_> {
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
    use std::string::String;

    /// The tables have no such characters today.
    #[test]
    fn strings_are_escaped() {
        let mut text = String::new();
        super::string(&mut text, &"a\"b\\c\n").unwrap();
        assert_eq!(text, r#""a\"b\\c\u000a""#);
    }
}
