//! Whether a guest can go on elsewhere with the features it was shown.

use core::fmt;

use crate::bits::{KvmFeatures, KvmHints};
use crate::leaf::KvmLeaf;
use crate::msr::Msr;
use crate::negotiate::Negotiated;
use crate::reason::{Bit, Decision, Outcome, Reason};

/// What keeps a guest from going on at another host. [`migratable`] gives it,
/// and has an example.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Migration<'a> {
    /// Features that the guest was shown and that the destination does not
    /// offer.
    pub missing: KvmFeatures,
    /// Hints that the guest was given. They are promises of the VMM, of which
    /// KVM knows nothing: the VMM at the destination has to keep them.
    pub promised: KvmHints,
    shown: KvmFeatures,
    there: &'a Negotiated,
}

/// Compares what a guest was shown, as read from its vCPUs' CPUID, with what
/// the destination would offer it, which [`offer`](crate::offer) says.
///
/// CPUID cannot change under a running guest: all that it was shown must be
/// there, and what the destination offers beyond that stays hidden from it.
///
/// ```
/// use cpuid_features::{
///     HaltService, KickService, KvmFeatures, KvmHints, KvmLeaf, VmmSupport, migratable, offer,
/// };
///
/// let vmm = VmmSupport {
///     halts: HaltService::Kernel,
///     kicks: KickService::Kernel,
///     hlt_exits: true,
///     ..VmmSupport::default()
/// };
/// let mut shown = KvmLeaf::read(&|leaf| {
///     offer(KvmFeatures::from_bits_retain(0x0100_7efb), &vmm).leaves().get(leaf)
/// }).unwrap();
///
/// // To a host whose KVM is older.
/// let there = offer(KvmFeatures::from_bits_retain(0x0100_04fb), &vmm);
/// let migration = migratable(&shown, &there);
/// assert!(!migration.is_possible());
/// assert_eq!(migration.missing, shown.features - there.features);
/// let first = migration.obstacles().next().unwrap();
/// assert!(first.to_string().starts_with("async-pf dropped: it is of no use without"));
/// assert!(migration.to_string().starts_with("async-pf: it is of no use without async-pf-int"));
///
/// // And back.
/// shown.features = there.features;
/// let back = offer(KvmFeatures::from_bits_retain(0x0100_7efb), &vmm);
/// assert!(migratable(&shown, &back).is_possible());
/// ```
#[must_use]
pub fn migratable<'a>(shown: &KvmLeaf, there: &'a Negotiated) -> Migration<'a> {
    Migration {
        missing: shown.features - there.features,
        promised: shown.hints,
        shown: shown.features,
        there,
    }
}

impl Migration<'_> {
    /// Whether nothing is missing. Hints do not count here: the VMM has to keep
    /// them ([`promised`](Self::promised)).
    #[must_use]
    pub fn is_possible(&self) -> bool {
        self.missing.is_empty()
    }

    /// Each missing feature, and why the destination does not offer it.
    pub fn obstacles(&self) -> impl Iterator<Item = Decision> + '_ {
        self.missing.singles().map(|bit| {
            self.there.reason(bit).copied().unwrap_or(Decision {
                bit: Bit::Feature(bit),
                outcome: Outcome::Absent,
                reason: Reason::NotReported,
            })
        })
    }

    /// The MSRs by which the guest uses what it was shown: their values have to
    /// go with it (`KVM_GET_MSRS`, `KVM_SET_MSRS`). Some may come twice.
    ///
    /// ```
    /// use cpuid_features::{KvmFeatures, KvmHints, KvmLeaf, VmmSupport, migratable, msr, offer};
    ///
    /// let there = offer(KvmFeatures::CLOCKSOURCE2, &VmmSupport::default());
    /// let shown = KvmLeaf::read(&|leaf| there.leaves().get(leaf)).unwrap();
    /// let migration = migratable(&shown, &there);
    /// assert!(migration.msrs().eq([msr::WALL_CLOCK_NEW, msr::SYSTEM_TIME_NEW]));
    /// ```
    pub fn msrs(&self) -> impl Iterator<Item = Msr> {
        let rows = self.shown.singles().filter_map(KvmFeatures::row);
        rows.flat_map(|row| row.msrs).copied()
    }
}

/// One line: each obstacle, or that there is none.
impl fmt::Display for Migration<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_possible() {
            f.write_str("the destination offers all that the guest was shown")?;
        }
        for (nth, obstacle) in self.obstacles().enumerate() {
            let between = if nth == 0 { "" } else { "; " };
            write!(f, "{between}{}: {}", obstacle.bit, obstacle.reason)?;
        }
        if !self.promised.is_empty() {
            write!(f, "; the VMM has to keep its promise {}", self.promised)?;
        }
        Ok(())
    }
}
