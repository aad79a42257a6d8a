//! The table, printed. One file a format; `core::fmt` only.

mod json;
mod kernel;
mod markdown;
mod tsv;

use core::fmt;

use crate::table::{Arch, FeatureRow, GuestConditions, HINTS, HintRow, Provider, features_of};

/// A form to print the table in. `Display` of a format is x86's document;
/// [`Format::document`] gives another architecture's.
///
/// ```
/// use cpuid_features::Format;
///
/// let tsv = Format::Tsv.to_string();
/// assert!(tsv.starts_with("register\tbit\tname\n"));
/// assert!(tsv.contains("\neax\t7\tpv-unhalt\n"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Text in the shape of the kernel's own `cpuid.txt`.
    Kernel,
    /// Markdown: what the crate keeps as `docs/FEATURES.md`.
    Markdown,
    /// Tab-separated values with a line of headings: register, bit, name.
    Tsv,
    /// One JSON array, an object a bit.
    Json,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Kernel, Self::Markdown, Self::Tsv, Self::Json];

    /// The name on a command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Markdown => "markdown",
            Self::Tsv => "tsv",
            Self::Json => "json",
        }
    }

    /// The format of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The table of `arch` in this format.
    #[must_use]
    pub const fn document(self, arch: Arch) -> Document {
        Document { format: self, arch }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.document(Arch::X86).fmt(f)
    }
}

/// The table of one architecture, to be printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document {
    format: Format,
    arch: Arch,
}

impl Document {
    fn features(&self) -> &'static [FeatureRow] {
        features_of(self.arch)
    }

    /// Only x86 has a word of hints.
    fn hints(&self) -> &'static [HintRow] {
        match self.arch {
            Arch::X86 => HINTS,
            Arch::LoongArch => &[],
        }
    }

    /// Where the features are.
    fn register(&self) -> &'static str {
        match self.arch {
            Arch::X86 => "eax",
            Arch::LoongArch => "cpucfg",
        }
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.format {
            Format::Kernel => kernel::write(f, self),
            Format::Markdown => markdown::write(f, self),
            Format::Tsv => tsv::write(f, self),
            Format::Json => json::write(f, self),
        }
    }
}

/// Items joined by commas.
fn join<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    items: impl IntoIterator<Item = T>,
) -> fmt::Result {
    for (at, item) in items.into_iter().enumerate() {
        write!(f, "{}{item}", if at == 0 { "" } else { ", " })?;
    }
    Ok(())
}

/// Items joined by commas, `none` if there are none.
fn list<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    items: impl IntoIterator<Item = T>,
) -> fmt::Result {
    let mut items = items.into_iter().peekable();
    if items.peek().is_none() {
        return f.write_str("none");
    }
    join(f, items)
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kvm => f.write_str("KVM"),
            Self::Userspace(duty) => write!(f, "the VMM, when {duty}"),
            Self::Removed => f.write_str("nobody: removed from KVM"),
        }
    }
}

impl fmt::Display for GuestConditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let conditions = [
            (self.several_vcpus, "more than one possible vCPU"),
            (self.no_mwait, "no MWAIT"),
        ];
        list(
            f,
            conditions
                .iter()
                .filter(|(wanted, _)| *wanted)
                .map(|(_, text)| text),
        )
    }
}
