//! The printer of tables: this crate's of features, and hypercall-abi's of
//! calls. One file a format; nothing is allocated.
//!
//! A document is a sequence of pieces: headings, paragraphs, facts, tables and
//! records. [`Format::Kernel`] and [`Format::Markdown`] print them all,
//! [`Format::Tsv`] prints tables and [`Format::Json`] prints records.
//!
//! ```
//! use cpuid_features::print::{Field, Format, Printer, Value};
//!
//! let mut text = String::new();
//! let mut printer = Printer::new(Format::Json, &mut text)?;
//! printer.record(&"1. KVM_HC_VAPIC_POLL_IRQ", &[
//!     Field { key: "nr", label: "Value", value: Value::Number(1) },
//!     Field { key: "status", label: "Status", value: Value::Text(&"active") },
//! ])?;
//! printer.finish()?;
//! assert_eq!(text, "[\n  {\"nr\": 1, \"status\": \"active\"}\n]\n");
//! # Ok::<(), std::fmt::Error>(())
//! ```

mod escape;
mod json;
mod markdown;
mod rst;
mod tsv;
mod wrap;

use core::error::Error;
use core::fmt::{self, Display, Write};
use core::str::FromStr;

/// A form to print a table in.
///
/// ```
/// use cpuid_features::print::Format;
///
/// assert_eq!("tsv".parse(), Ok(Format::Tsv));
/// assert_eq!(Format::Json.to_string(), "json");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// reStructuredText in the shape of the kernel's own documents
    /// (`Documentation/virt/kvm/x86/cpuid.rst`, `hypercalls.rst`).
    Kernel,
    /// Markdown (of GitHub's kind), with tables.
    Markdown,
    /// Tab-separated values with a line of headings.
    Tsv,
    /// One JSON array of objects.
    Json,
}

impl Format {
    /// All formats there are, in the order in which an error names them.
    pub const ALL: [Self; 4] = [Self::Kernel, Self::Markdown, Self::Tsv, Self::Json];

    /// The name on a command line. See [`Format`] for an example.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Markdown => "markdown",
            Self::Tsv => "tsv",
            Self::Json => "json",
        }
    }
}

/// The name on a command line.
impl Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == name)
            .ok_or(UnknownFormat)
    }
}

/// No format has that name. Prints the names that there are.
///
/// ```
/// use cpuid_features::print::{Format, UnknownFormat};
///
/// assert_eq!("xml".parse::<Format>(), Err(UnknownFormat));
/// assert_eq!(UnknownFormat.to_string(), "expected one of kernel, markdown, tsv, json");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownFormat;

impl Display for UnknownFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected one of ")?;
        joined(f, Format::ALL)
    }
}

impl Error for UnknownFormat {}

/// Several values: a function that calls its argument with each of them.
pub type Values<'a> = &'a dyn Fn(&mut dyn FnMut(Value<'_>) -> fmt::Result) -> fmt::Result;

/// Several values with their meanings: a function that calls its argument with
/// each.
pub type Entries<'a> = &'a dyn Fn(&mut dyn FnMut(&Entry<'_>) -> fmt::Result) -> fmt::Result;

/// The rows of a table: a function that calls its argument with the cells of
/// each row.
pub type Rows<'a> = &'a dyn Fn(&mut dyn FnMut(&[Value<'_>]) -> fmt::Result) -> fmt::Result;

/// What a field holds. See the [module](self) for an example.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum Value<'a> {
    /// Text, printed as it displays itself.
    Text(&'a dyn Display),
    /// A name of the kernel's, printed as code where the format has it.
    Code(&'a dyn Display),
    /// A number, printed in decimal.
    Number(u64),
    /// A number, printed in hexadecimal where the format has it (JSON has
    /// not).
    Hex(u64),
    /// Whether something is so: `yes` or `no`, in JSON `true` or `false`.
    Flag(bool),
    /// No value, and the word that is printed in its place; `null` in JSON.
    Missing(&'static str),
    /// Several values in one field, joined by commas; an array in JSON.
    List(Values<'a>),
    /// Several values with their meanings, one a line.
    Entries(Entries<'a>),
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Value({self})")
    }
}

/// The value in words; `none` for an empty list.
impl Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Code(text) => text.fmt(f),
            Self::Number(number) => write!(f, "{number}"),
            Self::Hex(number) => write!(f, "{number:#x}"),
            Self::Flag(true) => f.write_str("yes"),
            Self::Flag(false) => f.write_str("no"),
            Self::Missing(word) => f.write_str(word),
            Self::List(each) => {
                let mut empty = true;
                each(&mut |value| {
                    let between = if core::mem::take(&mut empty) {
                        ""
                    } else {
                        ", "
                    };
                    write!(f, "{between}{value}")
                })?;
                if empty { f.write_str("none") } else { Ok(()) }
            }
            Self::Entries(each) => {
                let mut empty = true;
                each(&mut |entry| {
                    let between = if core::mem::take(&mut empty) {
                        ""
                    } else {
                        "; "
                    };
                    write!(f, "{between}{}: {}", entry.head(), entry.meaning)
                })?;
                if empty { f.write_str("none") } else { Ok(()) }
            }
        }
    }
}

/// One of several values of a field, with its meaning.
///
/// ```
/// use cpuid_features::print::Entry;
///
/// let entry = Entry {
///     key: ("place", &"rcx"),
///     note: Some(("width", &"32 bits")),
///     meaning: &"APIC ID",
/// };
/// assert_eq!(entry.head().to_string(), "rcx (32 bits)");
/// ```
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    /// JSON's member for the value, and the value.
    pub key: (&'static str, &'a dyn Display),
    /// Something said of the value, in parentheses, with JSON's member for it.
    pub note: Option<(&'static str, &'a dyn Display)>,
    /// What it means; JSON's member is `meaning`.
    pub meaning: &'a dyn Display,
}

impl Entry<'_> {
    /// The value and its note.
    pub fn head(&self) -> impl Display {
        struct Head<'a>(&'a Entry<'a>);
        impl Display for Head<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.0.note {
                    Some((_, note)) => write!(f, "{} ({note})", self.0.key.1),
                    None => self.0.key.1.fmt(f),
                }
            }
        }
        Head(self)
    }
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({}: {})", self.head(), self.meaning)
    }
}

/// One field of a record. See the [module](self) for an example.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// JSON's member; empty for a field that JSON leaves out.
    pub key: &'static str,
    /// The name in prose; empty for a field that prose leaves out.
    pub label: &'static str,
    /// The value, printed behind its key or label.
    pub value: Value<'a>,
}

/// Prints the pieces of a document as they come. See the [module](self) for
/// an example.
pub struct Printer<'a> {
    format: Format,
    out: &'a mut dyn Write,
    records: usize,
}

impl fmt::Debug for Printer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Printer")
            .field("format", &self.format)
            .field("records", &self.records)
            .finish_non_exhaustive()
    }
}

impl<'a> Printer<'a> {
    /// A printer of `format` to `out`.
    ///
    /// # Errors
    /// Like those of all the methods: `out`'s.
    pub fn new(format: Format, out: &'a mut dyn Write) -> Result<Self, fmt::Error> {
        if format == Format::Json {
            out.write_str("[")?;
        }
        Ok(Self {
            format,
            out,
            records: 0,
        })
    }

    /// The format it prints.
    #[must_use]
    pub const fn format(&self) -> Format {
        self.format
    }

    /// A heading: level 1 is the title, level 2 a section, level 3 a record's.
    ///
    /// # Errors
    /// The writer's.
    pub fn heading(&mut self, level: u8, title: &dyn Display) -> fmt::Result {
        match self.format {
            Format::Kernel => rst::heading(self.out, level, title),
            Format::Markdown => markdown::heading(self.out, level, title),
            Format::Tsv | Format::Json => Ok(()),
        }
    }

    /// A paragraph.
    ///
    /// # Errors
    /// The writer's.
    pub fn text(&mut self, paragraph: &dyn Display) -> fmt::Result {
        match self.format {
            Format::Kernel => rst::text(self.out, paragraph),
            Format::Markdown => markdown::text(self.out, paragraph),
            Format::Tsv | Format::Json => Ok(()),
        }
    }

    /// Lines that are printed as they are.
    ///
    /// # Errors
    /// The writer's.
    pub fn literal(&mut self, lines: &str) -> fmt::Result {
        match self.format {
            Format::Kernel => rst::literal(self.out, lines),
            Format::Markdown => markdown::literal(self.out, lines),
            Format::Tsv | Format::Json => Ok(()),
        }
    }

    /// Facts in prose, outside any record.
    ///
    /// # Errors
    /// The writer's.
    pub fn facts(&mut self, fields: &[Field<'_>]) -> fmt::Result {
        match self.format {
            Format::Kernel => rst::fields(self.out, fields),
            Format::Markdown => markdown::fields(self.out, fields),
            Format::Tsv | Format::Json => Ok(()),
        }
    }

    /// A table: `rows` gives each row's cells, as many as there are columns,
    /// to the function it is called with. It may be called more than once.
    ///
    /// # Errors
    /// The writer's.
    pub fn table(&mut self, columns: &[&str], rows: Rows<'_>) -> fmt::Result {
        match self.format {
            Format::Kernel => rst::table(self.out, columns, rows),
            Format::Markdown => markdown::table(self.out, columns, rows),
            Format::Tsv => tsv::table(self.out, columns, rows),
            Format::Json => Ok(()),
        }
    }

    /// A record: one row of a table with all it has, under a heading of level
    /// 3.
    ///
    /// # Errors
    /// The writer's.
    pub fn record(&mut self, title: &dyn Display, fields: &[Field<'_>]) -> fmt::Result {
        let nth = self.records;
        self.records += 1;
        match self.format {
            Format::Kernel => {
                rst::heading(self.out, 3, title)?;
                rst::fields(self.out, fields)
            }
            Format::Markdown => {
                markdown::heading(self.out, 3, title)?;
                markdown::fields(self.out, fields)
            }
            Format::Tsv => Ok(()),
            Format::Json => {
                self.out.write_str(if nth == 0 { "\n" } else { ",\n" })?;
                json::object(self.out, fields)
            }
        }
    }

    /// The end of the document.
    ///
    /// # Errors
    /// The writer's.
    pub fn finish(self) -> fmt::Result {
        if self.format == Format::Json {
            self.out.write_str("\n]\n")?;
        }
        Ok(())
    }
}

/// Items joined by commas.
pub(crate) fn joined<T: Display>(
    f: &mut fmt::Formatter<'_>,
    items: impl IntoIterator<Item = T>,
) -> fmt::Result {
    for (at, item) in items.into_iter().enumerate() {
        write!(f, "{}{item}", if at == 0 { "" } else { ", " })?;
    }
    Ok(())
}
