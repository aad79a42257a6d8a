//! Since which release of Linux there is something, and what says so.

use core::fmt;

/// The first release of Linux with a hypercall or a feature, as exactly as a
/// source says it.
///
/// ```
/// use cpuid_features::{KvmFeatures, Since};
///
/// let since = KvmFeatures::PV_UNHALT.row().unwrap().since;
/// assert!(matches!(since, Since::Linux { release: "3.12", .. }));
/// assert_eq!(since.release(), Some("3.12"));
/// assert_eq!(since.source(), "QEMU's docs/system/i386/kvm-pv.rst");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Since {
    /// Exactly that release, as the record says.
    Linux {
        /// The release's number, as in `3.12`.
        release: &'static str,
        /// The document that says so.
        record: &'static str,
    },
    /// That release or an earlier one: it is the oldest that was read.
    AtLatest {
        /// The release's number, as in `6.1`.
        release: &'static str,
        /// The file that has it there.
        file: &'static str,
    },
    /// A later release than that one, which was read and does not have it.
    After {
        /// The release's number, as in `6.12`.
        release: &'static str,
        /// The file that has it in a later tree.
        file: &'static str,
    },
    /// No release that was read: patches propose it.
    Proposed {
        /// Which patches: their title, or where they were sent.
        record: &'static str,
    },
}

impl Since {
    /// The first release, where it is known exactly.
    #[must_use]
    pub const fn release(&self) -> Option<&'static str> {
        match self {
            Self::Linux { release, .. } => Some(release),
            _ => None,
        }
    }

    /// What says so: a document, a file of the kernel, or patches.
    #[must_use]
    pub const fn source(&self) -> &'static str {
        match self {
            Self::Linux { record, .. } | Self::Proposed { record } => record,
            Self::AtLatest { file, .. } | Self::After { file, .. } => file,
        }
    }
}

/// The release in words, without the source.
impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linux { release, .. } => write!(f, "{release}"),
            Self::AtLatest { release, .. } => write!(f, "{release} or before"),
            Self::After { release, .. } => write!(f, "after {release}"),
            Self::Proposed { .. } => f.write_str("no release, proposed only"),
        }
    }
}
