//! One JSON array.

use core::fmt::{self, Write};

use super::{Document, join};
use crate::table::Provider;

pub(super) fn write(f: &mut fmt::Formatter<'_>, document: &Document) -> fmt::Result {
    let mut between = "[\n";
    for row in document.features() {
        write!(
            f,
            "{between}  {{\"arch\": \"{}\", \"register\": \"{}\", \"bit\": {}, \"name\": \"{}\", \
             \"kernel_name\": \"{}\", \"qemu\": {}, \"msrs\": [",
            row.arch,
            document.register(),
            row.bit,
            row.name,
            row.kernel_name,
            Text(row.qemu),
        )?;
        join(f, row.msrs.iter().map(|msr| msr.index))?;
        f.write_str("], \"hypercalls\": [")?;
        join(f, row.gates.iter().map(|gate| gate.nr))?;
        f.write_str("], \"needs\": [")?;
        join(f, row.needs.singles().map(Quoted))?;
        f.write_str("], \"ignored_under\": [")?;
        join(f, row.conflicts.singles().map(Quoted))?;
        let (provider, duty) = match row.provider {
            Provider::Kvm => ("kvm", None),
            Provider::Userspace(duty) => ("userspace", Some(duty)),
            Provider::Removed => ("removed", None),
        };
        write!(
            f,
            "], \"provider\": \"{provider}\", \"vmm_duty\": {}, \"several_vcpus\": {}, \
             \"no_mwait\": {}, \"without_lapic\": {}, \"since\": {}, \"purpose\": {}}}",
            Text(duty),
            row.guest.several_vcpus,
            row.guest.no_mwait,
            Text(row.without_lapic),
            Text(row.since),
            Text(Some(row.purpose)),
        )?;
        between = ",\n";
    }
    for hint in document.hints() {
        write!(
            f,
            "{between}  {{\"arch\": \"x86\", \"register\": \"edx\", \"bit\": {}, \
             \"name\": \"{}\", \"kernel_name\": \"{}\", \"qemu\": {}, \"provider\": \"userspace\", \
             \"purpose\": {}}}",
            hint.bit,
            hint.name,
            hint.kernel_name,
            Text(hint.qemu),
            Text(Some(hint.purpose)),
        )?;
        between = ",\n";
    }
    f.write_str("\n]\n")
}

/// A name, which never needs an escape.
struct Quoted<T>(T);

impl<T: fmt::Display> fmt::Display for Quoted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0)
    }
}

/// A JSON string, or null.
struct Text(Option<&'static str>);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(text) = self.0 else {
            return f.write_str("null");
        };
        f.write_char('"')?;
        for c in text.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                c if c.is_control() => write!(f, "\\u{:04x}", u32::from(c))?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}
