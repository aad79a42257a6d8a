//! What announces a call to a guest, and whether the host insists on it.

use core::fmt;

use cpuid_features::{FeatureRow, KvmFeatures};

/// What a guest must see before it calls, and whether the host insists.
///
/// `Display` is the name alone; see [`Gate::explained`].
///
/// ```
/// use hypercall_abi::{Arch, Gate, find};
/// use cpuid_features::KvmFeatures;
///
/// let kick = find(Arch::X86, 5).unwrap();
/// assert_eq!(kick.gate, Gate::Enforced(KvmFeatures::PV_UNHALT));
/// assert_eq!(kick.gate.to_string(), "KVM_FEATURE_PV_UNHALT");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gate {
    /// Nothing: a guest finds out by calling.
    None,
    /// A bit of CPUID leaf `0x40000001` eax, without which KVM answers
    /// -`KVM_ENOSYS` once `KVM_CAP_ENFORCE_PV_FEATURE_CPUID` is on.
    Enforced(KvmFeatures),
    /// A bit of the same word that a guest must look for, and that KVM does
    /// not look at; and what the host looks at in its place.
    Advertised(KvmFeatures, HostGate),
    /// A bit of another architecture's feature word, which KVM insists on.
    Word(&'static FeatureRow),
    /// A node of the device tree, and the value of its property `compatible`.
    DeviceTree(&'static str, &'static str),
    /// The functions that KVM answers by the SMC calling convention's Call UID
    /// function of the vendor range, as its four registers.
    Uid([u32; 4]),
    /// The bit of that function number in the answer of arm64's
    /// `KVM_FEATURES`.
    Function(u8),
    /// The SMC calling convention's `ARCH_FEATURES`, asked for this function.
    ArchFeatures,
    /// arm64's `PV_TIME_FEATURES`, asked for this function.
    PvTimeFeatures,
    /// A gate that only patches have, in words.
    Proposed(&'static str),
}

/// What the host looks at before it serves a call that is
/// [advertised](Gate::Advertised) and not enforced.
///
/// ```
/// use hypercall_abi::{HostGate, KVM_HC_MAP_GPA_RANGE, Arch, Gate, find};
///
/// let row = find(Arch::X86, KVM_HC_MAP_GPA_RANGE).unwrap();
/// assert!(matches!(row.gate, Gate::Advertised(_, HostGate::ExitHypercall)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HostGate {
    /// `KVM_CAP_EXIT_HYPERCALL`, the bit of the call's number.
    ExitHypercall,
    /// Nothing: its code is gone.
    Gone,
}

impl Gate {
    /// The gate with where its bit is and who looks at it.
    ///
    /// ```
    /// use hypercall_abi::{Arch, find};
    ///
    /// let gate = find(Arch::LoongArch, 0x102).unwrap().gate;
    /// assert_eq!(
    ///     gate.explained().to_string(),
    ///     "KVM_FEATURE_USER_HCALL, bit 25 of the loongarch feature word, which the VMM sets"
    /// );
    /// ```
    #[must_use]
    pub fn explained(&self) -> impl fmt::Display + '_ {
        Explained(self)
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Enforced(feature) | Self::Advertised(feature, _) => match feature.row() {
                Some(row) => f.write_str(row.kernel_name),
                None => write!(f, "{feature}"),
            },
            Self::Word(row) => f.write_str(row.kernel_name),
            Self::DeviceTree(node, compatible) => {
                write!(
                    f,
                    "node {node} in the device tree, compatible with {compatible}"
                )
            }
            Self::Uid(_) => f.write_str("KVM's UID from the vendor range's Call UID function"),
            Self::Function(number) => write!(f, "bit {number} in the result of KVM_FEATURES"),
            Self::ArchFeatures => f.write_str("SMCCC 1.1 ARCH_FEATURES of this function id"),
            Self::PvTimeFeatures => f.write_str("PV_TIME_FEATURES of this function id"),
            Self::Proposed(text) => write!(f, "proposed: {text}"),
        }
    }
}

struct Explained<'a>(&'a Gate);

impl fmt::Display for Explained<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
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
            Gate::Word(row) => {
                write!(f, ", bit {} of the {} feature word", row.bit, row.arch)?;
                match row.provider {
                    cpuid_features::Provider::Userspace(_) => f.write_str(", which the VMM sets"),
                    _ => Ok(()),
                }
            }
            Gate::Uid(words) => {
                for (nth, word) in words.iter().enumerate() {
                    let between = if nth == 0 { ": " } else { ", " };
                    write!(f, "{between}{word:#x}")?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for HostGate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ExitHypercall => "KVM_CAP_EXIT_HYPERCALL, the bit of this number",
            Self::Gone => "nothing, as its code is gone",
        })
    }
}
