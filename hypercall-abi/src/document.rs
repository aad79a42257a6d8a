//! The documents of the table; cpuid-features' `print` has the formats.

use core::fmt;

use cpuid_features::print::{Entry, Field, Format, Printer, Value};

use crate::arch::Arch;
use crate::errno::Errno;
use crate::table::{self, Row, TABLE};

/// The table, to be printed: its `Display` is the document.
///
/// TSV has the columns arch, nr, name, status, gate; numbers from 100 on are
/// hexadecimal.
///
/// ```
/// use hypercall_abi::{Document, Format};
///
/// let tsv = Document::new(Format::Tsv).to_string();
/// assert_eq!(tsv.lines().next(), Some("arch\tnr\tname\tstatus\tgate"));
/// assert!(tsv.contains("x86\t5\tKVM_HC_KICK_CPU\tactive\tKVM_FEATURE_PV_UNHALT\n"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document {
    format: Format,
}

impl Document {
    /// The table in that format.
    #[must_use]
    pub const fn new(format: Format) -> Self {
        Self { format }
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut printer = Printer::new(self.format, f)?;
        match self.format {
            Format::Kernel => kernel(&mut printer)?,
            Format::Markdown => markdown(&mut printer)?,
            Format::Tsv => overview(&mut printer, &["arch", "nr", "name", "status", "gate"])?,
            _ => {}
        }
        for arch in Arch::ALL {
            printer.heading(2, &arch.name())?;
            convention(&mut printer, arch)?;
            for row in TABLE.iter().filter(|row| row.arch == arch) {
                record(&mut printer, row)?;
            }
        }
        printer.finish()
    }
}

/// The kernel document's beginning: its template, with what that leaves out.
fn kernel(printer: &mut Printer<'_>) -> fmt::Result {
    printer.heading(1, &"Linux KVM Hypercall")?;
    printer.text(
        &"Hypercalls of KVM, by architecture. Each architecture has a number space of its own, \
          although x86, PowerPC and MIPS take theirs from one header, \
          include/uapi/linux/kvm_para.h. The number before a name is the hypercall's value. A \
          hypercall that no kernel has is \"proposed\".",
    )?;
    printer.text(
        &"The template for each hypercall is: its value and name, architecture, status (active, \
          deprecated, reserved, proposed), purpose, notes, inputs by register with units, \
          outputs, return codes, the feature that announces it, since when there is it, who \
          serves it and where the kernel has it.",
    )?;
    printer.heading(2, &"Return codes")?;
    printer.text(&"A guest reads the negative value.")?;
    printer.table(&["code", "value", "meaning"], &errnos)
}

fn markdown(printer: &mut Printer<'_>) -> fmt::Result {
    printer.heading(1, &"Hypercalls")?;
    printer.text(
        &"Every hypercall of KVM, by architecture. Printed from the crate's table by the example \
          hypercalls with --format markdown: do not edit.",
    )?;
    overview(
        printer,
        &["architecture", "number", "name", "status", "feature"],
    )?;
    printer.heading(2, &"Return codes")?;
    printer.text(&"A guest reads the negative value.")?;
    printer.table(&["code", "value", "meaning"], &errnos)
}

fn overview(printer: &mut Printer<'_>, columns: &[&str]) -> fmt::Result {
    printer.table(columns, &|each| {
        TABLE.iter().try_for_each(|row| {
            each(&[
                Value::Text(&row.arch.name()),
                Value::Text(&row.number()),
                Value::Code(&row.name),
                Value::Text(&row.status.name()),
                Value::Text(&row.gate),
            ])
        })
    })
}

fn errnos(each: &mut dyn FnMut(&[Value<'_>]) -> fmt::Result) -> fmt::Result {
    Errno::ALL.iter().try_for_each(|errno| {
        each(&[
            Value::Code(&errno.name),
            Value::Number(errno.code.into()),
            Value::Text(&errno.meaning),
        ])
    })
}

/// How the calls of an architecture are made.
fn convention(printer: &mut Printer<'_>, arch: Arch) -> fmt::Result {
    let convention = arch.convention();
    printer.facts(&[
        prose("Instruction", Value::Text(&convention.instruction)),
        prose("Number", Value::Text(&convention.number_text())),
        prose("Arguments", Value::Text(&convention.arguments_text())),
        prose("Result", Value::Text(&convention.result_text())),
        prose("Preserved", Value::Text(&convention.preserved)),
        prose("Source", Value::Text(&convention.source)),
    ])
}

fn record(printer: &mut Printer<'_>, row: &Row) -> fmt::Result {
    let register = if row.number_register() == row.nr {
        ""
    } else {
        "Number register"
    };
    let notes = if row.notes.is_empty() { "" } else { "Notes" };
    printer.record(
        &format_args!("{}. {}", row.number(), row.name),
        &[
            both("arch", "Architecture", Value::Text(&row.arch.name())),
            json("nr", Value::Number(row.nr)),
            prose("Value", Value::Text(&row.number())),
            both(
                "number_register",
                register,
                Value::Hex(row.number_register()),
            ),
            json("name", Value::Code(&row.name)),
            both("status", "Status", Value::Text(&row.status.name())),
            both("purpose", "Purpose", Value::Text(&row.purpose)),
            both("notes", notes, Value::Text(&row.notes)),
            both(
                "inputs",
                "Inputs",
                Value::Entries(&|each| operands(row.inputs, each)),
            ),
            both(
                "outputs",
                "Outputs",
                Value::Entries(&|each| operands(row.outputs, each)),
            ),
            both(
                "returns",
                "Return codes",
                Value::Entries(&|each| {
                    row.returns.iter().try_for_each(|answer| {
                        each(&Entry {
                            key: ("value", &answer.value),
                            note: None,
                            meaning: &answer.meaning,
                        })
                    })
                }),
            ),
            json("gate", Value::Text(&row.gate)),
            prose("Feature", Value::Text(&row.gate.explained())),
            both("since", "Since Linux", Value::Text(&row.since)),
            both(
                "since_source",
                "Release by",
                Value::Text(&row.since.source()),
            ),
            both("served_by", "Served by", Value::Text(&row.server.name())),
            both("source", "Source", Value::Text(&row.source)),
        ],
    )
}

fn operands(
    fields: &[table::Field],
    each: &mut dyn FnMut(&Entry<'_>) -> fmt::Result,
) -> fmt::Result {
    fields.iter().try_for_each(|field| {
        each(&Entry {
            key: ("place", &field.place),
            note: Some(("width", &field.width)),
            meaning: &field.meaning,
        })
    })
}

fn both<'a>(key: &'static str, label: &'static str, value: Value<'a>) -> Field<'a> {
    Field { key, label, value }
}

fn json<'a>(key: &'static str, value: Value<'a>) -> Field<'a> {
    both(key, "", value)
}

fn prose<'a>(label: &'static str, value: Value<'a>) -> Field<'a> {
    both("", label, value)
}
