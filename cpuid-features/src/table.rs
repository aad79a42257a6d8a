//! One row a bit: the table from which names, rules and documents derive.
//!

mod loongarch;
mod powerpc;
mod x86;

pub use loongarch::{LOONGARCH_CPUCFG_FEATURE, LOONGARCH_CPUCFG_SIGNATURE, LOONGARCH_FEATURES};
pub use powerpc::POWERPC_FEATURES;
pub use x86::{FEATURES, HINTS};

use core::fmt;

use crate::bits::{KvmFeatures, KvmHints};
use crate::msr::Msr;
use crate::since::Since;

/// The architecture a feature word belongs to; the same bit number means
/// different things on different ones.
///
/// ```
/// use cpuid_features::{Arch, features_of};
///
/// assert_eq!(features_of(Arch::LoongArch)[0].name, "ipi");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Arch {
    /// CPUID leaf `base | 0x4000_0001`, `eax`.
    X86,
    /// CPUCFG word [`LOONGARCH_CPUCFG_FEATURE`].
    LoongArch,
    /// The result of the hypercall `KVM_HC_FEATURES`.
    PowerPc,
}

impl Arch {
    /// Every architecture with a feature word.
    pub const ALL: [Self; 3] = [Self::X86, Self::LoongArch, Self::PowerPc];

    /// The name on a command line; also what `Display` prints.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86 => "x86",
            Self::LoongArch => "loongarch",
            Self::PowerPc => "powerpc",
        }
    }
}

/// Who makes a feature work, and so who may put its bit into the leaf.
///
/// ```
/// use cpuid_features::{KvmFeatures, Provider};
///
/// let row = KvmFeatures::MIGRATION_CONTROL.row().unwrap();
/// assert!(matches!(row.provider, Provider::Userspace(_)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Provider {
    /// KVM reports it in `KVM_GET_SUPPORTED_CPUID` and serves it.
    Kvm,
    /// KVM never reports it: a VMM may advertise it once it has done what the
    /// sentence says.
    Userspace(&'static str),
    /// Nobody: the code behind the bit has been removed from KVM.
    Removed,
}

/// What a Linux guest wants to see besides the bit and its `needs`, before it
/// uses the feature (`arch/x86/kernel/kvm.c`).
///
/// ```
/// use cpuid_features::KvmFeatures;
///
/// assert!(KvmFeatures::PV_TLB_FLUSH.row().unwrap().guest.no_mwait);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuestConditions {
    /// More than one possible CPU.
    pub several_vcpus: bool,
    /// No MWAIT in the guest's CPUID.
    pub no_mwait: bool,
}

/// All that is known of one bit of a feature word.
///
/// ```
/// use cpuid_features::KvmFeatures;
///
/// let row = KvmFeatures::PV_TLB_FLUSH.row().unwrap();
/// assert_eq!((row.bit, row.needs), (9, KvmFeatures::STEAL_TIME));
/// assert_eq!(row.features(), KvmFeatures::PV_TLB_FLUSH);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FeatureRow {
    /// The word the bit is in.
    pub arch: Arch,
    /// Bit number in that word, 0 to 31.
    pub bit: u8,
    /// The name that users type, as in `+pv-unhalt`: the kernel's without
    /// `KVM_FEATURE_`, in lower case and with dashes.
    pub name: &'static str,
    /// The name of the macro in the kernel's headers.
    pub kernel_name: &'static str,
    /// QEMU's property, where it has one.
    pub qemu: Option<&'static str>,
    /// MSRs by which the guest uses it.
    pub msrs: &'static [Msr],
    /// Hypercalls that a guest may issue once it sees the bit, by the kernel's
    /// names. hypercall-abi has their numbers.
    pub hypercalls: &'static [&'static str],
    /// Features without which a guest makes no use of it.
    pub needs: KvmFeatures,
    /// Hints under which a guest makes no use of it.
    pub conflicts: KvmHints,
    /// Who serves it: KVM, the VMM, or nobody.
    pub provider: Provider,
    /// What else a guest wants.
    pub guest: GuestConditions,
    /// What goes wrong if KVM has no local APIC of its own; `None` where the
    /// feature does not care.
    pub without_lapic: Option<&'static str>,
    /// What a guest has of the feature, in a sentence.
    pub purpose: &'static str,
    /// The first release of Linux that has it, as far as a source says so.
    pub since: Since,
}

/// All that is known of one hint.
///
/// ```
/// use cpuid_features::KvmHints;
///
/// let row = KvmHints::REALTIME.row().unwrap();
/// assert_eq!((row.kernel_name, row.hints()), ("KVM_HINTS_REALTIME", KvmHints::REALTIME));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HintRow {
    /// Bit number in `edx`, 0 to 31.
    pub bit: u8,
    /// The name that users type, as in `+realtime`.
    pub name: &'static str,
    /// The name of the macro in the kernel's headers.
    pub kernel_name: &'static str,
    /// QEMU's property, where it has one.
    pub qemu: Option<&'static str>,
    /// What the hint tells a guest, in a sentence.
    pub purpose: &'static str,
}

impl FeatureRow {
    /// The bit as a set of x86 features; empty for another architecture's row.
    #[must_use]
    pub const fn features(&self) -> KvmFeatures {
        match self.arch {
            Arch::X86 => KvmFeatures::from_bits_retain(1 << self.bit),
            Arch::LoongArch | Arch::PowerPc => KvmFeatures::empty(),
        }
    }
}

impl HintRow {
    /// The hint as a set.
    #[must_use]
    pub const fn hints(&self) -> KvmHints {
        KvmHints::from_bits_retain(1 << self.bit)
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The rows of `arch`.
///
/// See [`Arch`] for an example.
#[must_use]
pub const fn features_of(arch: Arch) -> &'static [FeatureRow] {
    match arch {
        Arch::X86 => FEATURES,
        Arch::LoongArch => LOONGARCH_FEATURES,
        Arch::PowerPc => POWERPC_FEATURES,
    }
}

/// What a row says unless it says otherwise.
const ROW: FeatureRow = FeatureRow {
    arch: Arch::X86,
    bit: 0,
    name: "",
    kernel_name: "",
    qemu: None,
    msrs: &[],
    hypercalls: &[],
    needs: KvmFeatures::empty(),
    conflicts: KvmHints::empty(),
    provider: Provider::Kvm,
    guest: GuestConditions {
        several_vcpus: false,
        no_mwait: false,
    },
    without_lapic: None,
    purpose: "",
    since: Since::AtLatest {
        release: "6.1",
        file: "arch/x86/include/uapi/asm/kvm_para.h",
    },
};

/// The row of the kernel's name on `arch`. Constant, so that a table can refer
/// to a row.
///
/// ```
/// use cpuid_features::{Arch, feature_named};
///
/// let row = feature_named(Arch::LoongArch, "KVM_FEATURE_USER_HCALL").unwrap();
/// assert_eq!(row.bit, 25);
/// assert_eq!(feature_named(Arch::X86, "KVM_FEATURE_USER_HCALL"), None);
/// ```
#[must_use]
pub const fn feature_named(arch: Arch, kernel_name: &str) -> Option<&'static FeatureRow> {
    let mut rest = features_of(arch);
    while let [row, tail @ ..] = rest {
        if same(row.kernel_name.as_bytes(), kernel_name.as_bytes()) {
            return Some(row);
        }
        rest = tail;
    }
    None
}

/// `==` on strings, for constants.
const fn same(mut a: &[u8], mut b: &[u8]) -> bool {
    while let ([x, xs @ ..], [y, ys @ ..]) = (a, b) {
        if *x != *y {
            return false;
        }
        (a, b) = (xs, ys);
    }
    a.is_empty() && b.is_empty()
}
