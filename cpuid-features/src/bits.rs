//! The two words of the KVM feature leaf as sets of bits.
//!
//! Both sets are open: a bit this crate has no row for is kept, compared and
//! printed (`bit18`), never dropped, because a kernel newer than this crate
//! may report it.

use core::fmt;

use bitflags::bitflags;

use crate::table::{FEATURES, FeatureRow, HINTS, HintRow};

bitflags! {
    /// What KVM offers its guest: `eax` of leaf `base | 0x4000_0001`.
    ///
    /// Numbers: `arch/x86/include/uapi/asm/kvm_para.h`. Meaning, MSRs, gated
    /// hypercalls and conditions of each: [`FEATURES`](crate::FEATURES).
    ///
    /// bitflags' own `from_name` knows the Rust constants (`"PV_UNHALT"`);
    /// the names that users type are looked up by [`KvmFeatures::by_name`].
    ///
    /// ```
    /// use cpuid_features::KvmFeatures;
    ///
    /// let features = KvmFeatures::from_bits_retain(1 << 7 | 1 << 18);
    /// assert!(features.contains(KvmFeatures::PV_UNHALT));
    /// assert_eq!(features.to_string(), "pv-unhalt,bit18");
    /// assert_eq!(KvmFeatures::by_name("KVM_FEATURE_PV_UNHALT"), Some(KvmFeatures::PV_UNHALT));
    /// assert_eq!(features.singles().count(), 2);
    /// assert_eq!(features.row().unwrap().bit, 7);
    /// ```
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct KvmFeatures: u32 {
        /// kvmclock at MSRs 0x11 and 0x12, the deprecated pair.
        const CLOCKSOURCE = 1 << 0;
        /// Port I/O needs no delays.
        const NOP_IO_DELAY = 1 << 1;
        /// Hypercall 2, MMU operations; KVM's code for it is gone.
        const MMU_OP = 1 << 2;
        /// kvmclock at MSRs 0x4b564d00 and 0x4b564d01.
        const CLOCKSOURCE2 = 1 << 3;
        /// Asynchronous page faults.
        const ASYNC_PF = 1 << 4;
        /// Steal time, and the preempted flag beside it.
        const STEAL_TIME = 1 << 5;
        /// End of interrupt without an exit.
        const PV_EOI = 1 << 6;
        /// A vCPU halted with interrupts off can be kicked awake: hypercall 5
        /// and a HLT that returns when a kick is, or was, pending. What a
        /// guest looks for before it turns on paravirtual spinlocks.
        ///
        /// This is bit **7**. The patch that proposed it in 2012 (RFC V8
        /// 17/17) documented it as 6; in every kernel released 6 is
        /// [`PV_EOI`](Self::PV_EOI), and code that took the number from the
        /// patch tests the wrong bit.
        const PV_UNHALT = 1 << 7;
        /// A TLB flush of a preempted vCPU is left to its next entry.
        const PV_TLB_FLUSH = 1 << 9;
        /// Asynchronous page faults as exits to a nested hypervisor.
        const ASYNC_PF_VMEXIT = 1 << 10;
        /// Hypercall 10: one exit for an IPI to many vCPUs.
        const PV_SEND_IPI = 1 << 11;
        /// The guest may turn the host's halt polling off.
        const POLL_CONTROL = 1 << 12;
        /// Hypercall 11: yield to a preempted vCPU.
        const PV_SCHED_YIELD = 1 << 13;
        /// Page-ready events of asynchronous page faults come as interrupts.
        const ASYNC_PF_INT = 1 << 14;
        /// 15-bit destination ids in MSI addresses.
        const MSI_EXT_DEST_ID = 1 << 15;
        /// Hypercall 12: the guest announces pages it shares or makes private.
        const HC_MAP_GPA_RANGE = 1 << 16;
        /// The guest says when it may be migrated.
        const MIGRATION_CONTROL = 1 << 17;
        /// kvmclock is monotonic across vCPUs.
        const CLOCKSOURCE_STABLE_BIT = 1 << 24;

        // The kernel owns this word: every other bit is unknown, not invalid.
        const _ = !0;
    }
}

bitflags! {
    /// What the VMM tells the guest about how it is run: `edx` of leaf
    /// `base | 0x4000_0001`.
    ///
    /// KVM reports none of these: a hint is always a promise of the VMM.
    ///
    /// ```
    /// use cpuid_features::KvmHints;
    ///
    /// assert_eq!(KvmHints::by_name("realtime"), Some(KvmHints::REALTIME));
    /// assert_eq!(KvmHints::from_bits_retain(1 << 4).to_string(), "hint4");
    /// ```
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct KvmHints: u32 {
        /// vCPUs are never preempted for an unlimited time; a Linux guest
        /// then turns its paravirtual spinlocks, TLB flushes and yields off.
        const REALTIME = 1 << 0;

        // The kernel owns this word: every other bit is unknown, not invalid.
        const _ = !0;
    }
}

impl KvmFeatures {
    /// The feature a user means by `name`: this crate's name (`pv-unhalt`),
    /// the kernel's (`KVM_FEATURE_PV_UNHALT`), QEMU's (`kvm-pv-unhalt`) or a
    /// bit by number (`bit7`, 0 to 31).
    ///
    /// QEMU's `kvmclock` is two bits and gives both.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        if let Some(bit) = numbered(name, "bit") {
            return Some(Self::from_bits_retain(bit));
        }
        let found = FEATURES
            .iter()
            .filter(|row| row.name == name || row.kernel_name == name || row.qemu == Some(name))
            .fold(Self::empty(), |set, row| set | row.features());
        (!found.is_empty()).then_some(found)
    }

    /// The table row of the lowest bit of this set; `None` for the empty set
    /// and for a bit without a row.
    #[must_use]
    pub fn row(self) -> Option<&'static FeatureRow> {
        let lowest = self.singles().next()?;
        FEATURES.iter().find(|row| row.features() == lowest)
    }

    /// Each bit of the set by itself, lowest first, unknown ones included.
    #[must_use]
    pub fn singles(self) -> Singles<Self> {
        Singles {
            rest: self.bits(),
            wrap: Self::from_bits_retain,
        }
    }
}

impl KvmHints {
    /// The hint a user means by `name`: this crate's name (`realtime`), the
    /// kernel's (`KVM_HINTS_REALTIME`), QEMU's (`kvm-hint-dedicated`) or a
    /// hint by number (`hint0`, 0 to 31).
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        if let Some(bit) = numbered(name, "hint") {
            return Some(Self::from_bits_retain(bit));
        }
        HINTS
            .iter()
            .find(|row| row.name == name || row.kernel_name == name || row.qemu == Some(name))
            .map(HintRow::hints)
    }

    /// The table row of the lowest bit of this set; `None` for the empty set
    /// and for a bit without a row.
    #[must_use]
    pub fn row(self) -> Option<&'static HintRow> {
        let lowest = self.singles().next()?;
        HINTS.iter().find(|row| row.hints() == lowest)
    }

    /// Each bit of the set by itself, lowest first, unknown ones included.
    #[must_use]
    pub fn singles(self) -> Singles<Self> {
        Singles {
            rest: self.bits(),
            wrap: Self::from_bits_retain,
        }
    }
}

/// The mask of `prefix` followed by a decimal bit number below 32.
fn numbered(name: &str, prefix: &str) -> Option<u32> {
    let digits = name.strip_prefix(prefix)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    1u32.checked_shl(digits.parse().ok()?)
}

/// Iterator over the single bits of a [`KvmFeatures`] or [`KvmHints`].
///
/// See [`KvmFeatures`] for an example.
#[derive(Clone, Debug)]
pub struct Singles<T> {
    rest: u32,
    wrap: fn(u32) -> T,
}

impl<T> Iterator for Singles<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.rest == 0 {
            return None;
        }
        let lowest = self.rest & self.rest.wrapping_neg();
        self.rest ^= lowest;
        Some((self.wrap)(lowest))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.rest.count_ones() as usize;
        (left, Some(left))
    }
}

impl<T> ExactSizeIterator for Singles<T> {}

/// Names joined by commas, as [`Selection`](crate::Selection) reads them back
/// when signed; the empty set prints nothing.
impl fmt::Display for KvmFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, bit) in self.singles().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match bit.row() {
                Some(row) => write!(f, "{comma}{}", row.name)?,
                None => write!(f, "{comma}bit{}", bit.bits().trailing_zeros())?,
            }
        }
        Ok(())
    }
}

/// Names joined by commas; the empty set prints nothing.
impl fmt::Display for KvmHints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, bit) in self.singles().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            match bit.row() {
                Some(row) => write!(f, "{comma}{}", row.name)?,
                None => write!(f, "{comma}hint{}", bit.bits().trailing_zeros())?,
            }
        }
        Ok(())
    }
}
