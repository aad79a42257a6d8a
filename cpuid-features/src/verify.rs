//! Whether the vCPU has what was negotiated.

use core::fmt;

use crate::bits::{KvmFeatures, KvmHints};
use crate::leaf::{CpuidReader, KvmLeaf};
use crate::negotiate::Negotiated;

/// What KVM made of the leaf it was given.
///
/// `KVM_SET_CPUID2` succeeds and changes bits: only reading back shows it. See
/// [`verify`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// The leaf the vCPU has; `None` if KVM's leaves are gone.
    pub leaf: Option<KvmLeaf>,
    /// Asked for, and the vCPU has it.
    pub kept: KvmFeatures,
    /// Asked for, and cleared by KVM.
    pub cleared: KvmFeatures,
    /// Not asked for, and the vCPU has it.
    pub extra: KvmFeatures,
    /// Hints asked for, and cleared.
    pub cleared_hints: KvmHints,
    /// Hints not asked for that the vCPU has.
    pub extra_hints: KvmHints,
}

impl Verified {
    /// Whether the guest sees exactly what was negotiated.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.leaf.is_some()
            && (self.cleared | self.extra).is_empty()
            && (self.cleared_hints | self.extra_hints).is_empty()
    }

    /// Each feature that KVM cleared, with a sentence.
    pub fn reasons(&self) -> impl Iterator<Item = (KvmFeatures, &'static str)> {
        let gone = self.leaf.is_none();
        self.cleared.singles().map(move |bit| {
            let why = if gone {
                "the vCPU has no KVM leaves at all"
            } else if bit == KvmFeatures::PV_UNHALT {
                "KVM clears it when the VM's HLT exits are disabled (KVM_CAP_X86_DISABLE_EXITS)"
            } else {
                "KVM did not keep it; no rule of KVM's for this bit is known here"
            };
            (bit, why)
        })
    }
}

/// One line: what differs and why, or that nothing does.
impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_exact() {
            return f.write_str("the vCPU has exactly what was negotiated");
        }
        let mut between = "";
        for (bit, why) in self.reasons() {
            write!(f, "{between}{bit} cleared: {why}")?;
            between = "; ";
        }
        if !self.cleared_hints.is_empty() {
            write!(f, "{between}hints cleared: {}", self.cleared_hints)?;
            between = "; ";
        }
        if !self.extra.is_empty() {
            write!(f, "{between}not asked for: {}", self.extra)?;
            between = "; ";
        }
        if !self.extra_hints.is_empty() {
            write!(f, "{between}hints not asked for: {}", self.extra_hints)?;
            between = "; ";
        }
        if between.is_empty() {
            f.write_str("the vCPU has no KVM leaves at all")?;
        }
        Ok(())
    }
}

/// Compares what was negotiated with what the vCPU has, by `KVM_GET_CPUID2` or
/// by a VMM's own table.
///
/// ```
/// use cpuid_features::{CpuidRegs, KvmFeatures, VmmSupport, offer, verify};
///
/// let offered = offer(KvmFeatures::CLOCKSOURCE2, &VmmSupport::default());
/// let none = |_leaf: u32| None::<CpuidRegs>;
/// let verified = verify(&offered, &none);
/// assert!(!verified.is_exact());
/// let why = "the vCPU has no KVM leaves at all";
/// assert!(verified.reasons().eq([(KvmFeatures::CLOCKSOURCE2, why)]));
/// assert_eq!(
///     verified.to_string(),
///     "clocksource2 cleared: the vCPU has no KVM leaves at all"
/// );
/// ```
#[must_use]
pub fn verify<R: CpuidReader + ?Sized>(asked: &Negotiated, kept: &R) -> Verified {
    let leaf = KvmLeaf::read(kept);
    let (features, hints) = leaf.map_or((KvmFeatures::empty(), KvmHints::empty()), |leaf| {
        (leaf.features, leaf.hints)
    });
    Verified {
        leaf,
        kept: asked.features & features,
        cleared: asked.features - features,
        extra: features - asked.features,
        cleared_hints: asked.hints - hints,
        extra_hints: hints - asked.hints,
    }
}
