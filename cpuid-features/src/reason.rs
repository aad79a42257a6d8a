//! Why a bit is in the leaf, or is not.

use core::fmt;

use crate::bits::{KvmFeatures, KvmHints};
use crate::negotiate::Exclusion;

/// One bit of either word.
///
/// ```
/// use cpuid_features::{Bit, KvmHints};
///
/// assert_eq!(Bit::Hint(KvmHints::REALTIME).to_string(), "realtime");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bit {
    /// A feature: a bit of the leaf's `eax`.
    Feature(KvmFeatures),
    /// A hint: a bit of the leaf's `edx`.
    Hint(KvmHints),
}

impl fmt::Display for Bit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Feature(bit) => bit.fmt(f),
            Self::Hint(bit) => bit.fmt(f),
        }
    }
}

/// What became of a bit. See [`Decision`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// KVM reports it and the guest sees it.
    Kept,
    /// KVM reports it, or the VMM has it, and the guest does not see it.
    Dropped,
    /// KVM does not report it and the guest sees it, because the VMM serves it.
    Added,
    /// The user asked for it and it cannot be had; only in an error.
    Refused,
    /// Nobody has it and nobody asked.
    Absent,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kept => "kept",
            Self::Dropped => "dropped",
            Self::Added => "added",
            Self::Refused => "refused",
            Self::Absent => "absent",
        })
    }
}

/// One bit, what became of it, and why.
///
/// ```
/// use cpuid_features::{KvmFeatures, Outcome, Reason, VmmSupport, offer};
///
/// let offered = offer(KvmFeatures::CLOCKSOURCE2, &VmmSupport::default());
/// let decision = offered.reason(KvmFeatures::CLOCKSOURCE2).unwrap();
/// assert_eq!((decision.outcome, decision.reason), (Outcome::Kept, Reason::HostReports));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// The feature or hint that was decided on.
    pub bit: Bit,
    /// Whether the guest gets it.
    pub outcome: Outcome,
    /// Why. Prints as one sentence.
    pub reason: Reason,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.bit, self.outcome, self.reason)
    }
}

/// Why a bit stays, goes or comes. Prints as one sentence without a full stop.
///
/// Each rule names what it rests on: the kernel, or this crate's judgement. See
/// [`Decision`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Kept: KVM reports it and no rule is against it.
    HostReports,
    /// Kept: KVM reports a bit that has no row here.
    UnknownToThisCrate,
    /// Dropped: KVM reports a bit that has no row here, and KVM has no local
    /// APIC. Half of what KVM reports breaks without one, so a bit about
    /// which nothing is known is left out. A rule of this crate.
    UnknownWithoutLapic,
    /// Kept or added: [`VmmSupport::implements`](crate::VmmSupport) has it, or
    /// the VMM did its part.
    VmmServes,
    /// Kept or added, but a Linux guest with one possible CPU ignores it
    /// (`arch/x86/kernel/kvm.c`).
    UnusedByOneVcpu,
    /// Kept or added, but a Linux guest ignores it under these hints
    /// (`arch/x86/kernel/kvm.c`). For PV_UNHALT keeping is the better choice:
    /// older guests that see the hint and not the bit fall back to a
    /// test-and-set lock instead of the native queue.
    UnusedUnderHint(KvmHints),
    /// Hint given: the user asked.
    HintAsked,
    /// Hint not given: nobody asked, and KVM reports none.
    HintNotAsked,
    /// Dropped: the user turned it off.
    TurnedOff,
    /// Dropped: the VMM leaves it out, for this reason of its own
    /// ([`VmmSupport::excludes`](crate::VmmSupport)).
    Excluded(&'static Exclusion),
    /// Refused: the selection has the bit both on and off.
    OnAndOff,
    /// Absent or refused: neither KVM nor the VMM has it.
    NotReported,
    /// Absent, dropped or refused: only the VMM can make it work, and has not
    /// done what the sentence says.
    NeedsVmm(&'static str),
    /// Absent, dropped or refused: KVM's code for it is gone.
    Removed,
    /// Dropped: with HLT exits disabled `KVM_SET_CPUID2` clears the bit
    /// (`arch/x86/kvm/cpuid.c`).
    HltExitsDisabled,
    /// Dropped: neither KVM nor the VMM puts a halted vCPU to sleep.
    NobodyHalts,
    /// Dropped: neither KVM nor the VMM wakes a halted vCPU.
    NobodyKicks,
    /// Dropped: without a local APIC in the kernel KVM's kick returns 0 and
    /// reaches nobody.
    KernelKickMissesUserspaceHalt,
    /// Dropped: KVM has no local APIC, and without one the feature fails in the
    /// way that the sentence says.
    NoKernelLapic(&'static str),
    /// Dropped: hypercalls are answered by the VMM, which does not list this
    /// feature among what it implements. A rule of this crate.
    HypercallNotServed,
    /// Dropped: a guest makes no use of it without these.
    Needs(KvmFeatures),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HostReports => "KVM reports it and no rule is against it",
            Self::UnknownToThisCrate => "KVM reports it; its meaning is not known here",
            Self::UnknownWithoutLapic => {
                "its meaning is not known here, and it may need the local APIC that KVM does \
                 not have"
            }
            Self::VmmServes => "the VMM serves it",
            Self::UnusedByOneVcpu => "offered, but a Linux guest with one vCPU makes no use of it",
            Self::UnusedUnderHint(hints) => {
                return write!(
                    f,
                    "offered, but a Linux guest that sees the hint {hints} makes no use of it"
                );
            }
            Self::HintAsked => "the user asked for it: a hint is the VMM's word, not KVM's",
            Self::HintNotAsked => "nobody asked for it, and KVM gives no hints",
            Self::TurnedOff => "the user turned it off",
            Self::Excluded(one) => return write!(f, "the VMM leaves it out: {}", one.why),
            Self::OnAndOff => "it is asked for both on and off",
            Self::NotReported => "this KVM does not report it and the VMM does not serve it",
            Self::NeedsVmm(duty) => {
                return write!(
                    f,
                    "a VMM may offer it only when {duty}, and this one does not"
                );
            }
            Self::Removed => "deprecated: the code behind it has been removed from KVM",
            Self::HltExitsDisabled => {
                "HLT exits are disabled, so no halt can be woken and KVM clears the bit"
            }
            Self::NobodyHalts => "nobody puts a halted vCPU to sleep in this configuration",
            Self::NobodyKicks => "nobody wakes a halted vCPU in this configuration",
            Self::KernelKickMissesUserspaceHalt => {
                "vCPUs halt in the VMM, where a kick that KVM serves wakes nobody"
            }
            Self::NoKernelLapic(effect) => {
                return write!(f, "KVM has no local APIC here: {effect}");
            }
            Self::HypercallNotServed => {
                "the guest's hypercalls go to the VMM, which does not serve this one"
            }
            Self::Needs(missing) => {
                return write!(
                    f,
                    "it is of no use without {missing}, which the guest is not offered"
                );
            }
        })
    }
}
