//! The table, printed. One file a format; `core::fmt` only.

mod json;
mod kernel;
mod markdown;
mod prose;
mod tsv;
mod wrap;

use core::fmt;

use crate::table::{Gate, Since};

/// A form to print the table in.
///
/// `Display` of a format is the document.
///
/// ```
/// use hypercall_abi::Format;
///
/// let tsv = Format::Tsv.to_string();
/// assert_eq!(tsv.lines().next(), Some("arch\tnr\tname\tstatus\tgate"));
/// assert!(tsv.contains("x86\t5\tKVM_HC_KICK_CPU\tactive\tKVM_FEATURE_PV_UNHALT\n"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Text in the shape of the kernel's own `hypercalls.rst`.
    Kernel,
    /// Markdown, which is the crate's [reference page](crate::hypercalls).
    Markdown,
    /// Tab-separated values with a line of headings: arch, nr, name, status,
    /// gate. Numbers from 100 on in hexadecimal.
    Tsv,
    /// One JSON array, an object a row.
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
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel => kernel::write(f),
            Self::Markdown => markdown::write(f),
            Self::Tsv => tsv::write(f),
            Self::Json => json::write(f),
        }
    }
}

/// A number as it is written in its architecture's documents, near enough:
/// small ones decimal, function codes and identifiers hexadecimal.
struct Number(u64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 100 {
            write!(f, "{}", self.0)
        } else {
            write!(f, "{:#x}", self.0)
        }
    }
}

/// A gate in one name: the feature bit's, or the words of its architecture.
struct GateName<'a>(&'a Gate);

impl fmt::Display for GateName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Gate::None => f.write_str("none"),
            Gate::Enforced(feature) | Gate::Advertised(feature, _) => match feature.row() {
                Some(row) => f.write_str(row.kernel_name),
                None => write!(f, "{feature}"),
            },
            Gate::Other(text) => f.write_str(text),
            Gate::Unverified => f.write_str("unverified"),
        }
    }
}

/// A gate with where its bit is and who looks at it.
struct GateText<'a>(&'a Gate);

impl fmt::Display for GateText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        GateName(self.0).fmt(f)?;
        match self.0 {
            Gate::Enforced(feature) => write!(
                f,
                ", CPUID leaf 0x40000001 eax bit {}; KVM insists on it only with \
                 KVM_CAP_ENFORCE_PV_FEATURE_CPUID",
                feature.bits().trailing_zeros()
            ),
            Gate::Advertised(feature, host) => write!(
                f,
                ", CPUID leaf 0x40000001 eax bit {}, for the guest to look at; the host goes \
                 by {host}",
                feature.bits().trailing_zeros()
            ),
            Gate::None | Gate::Other(_) | Gate::Unverified => Ok(()),
        }
    }
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linux(release) => write!(f, "Linux {release}"),
            Self::Unverified => f.write_str("unverified"),
        }
    }
}
