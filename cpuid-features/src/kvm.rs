//! Reading, writing and checking a [`kvm_bindings::CpuId`].

use core::error::Error;
use core::fmt;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};

use crate::bits::{KvmFeatures, KvmHints};
use crate::dump::DumpEntry;
use crate::leaf::{
    CpuidReader, CpuidRegs, HYPERVISOR_BASE_END, HYPERVISOR_BASE_STEP, KVM_CPUID_FEATURES,
    KVM_CPUID_SIGNATURE, KVM_SIGNATURE_WORDS, KvmLeaf, possible_bases,
};
use crate::negotiate::Negotiated;

impl CpuidReader for CpuId {
    fn leaf(&self, leaf: u32) -> Option<CpuidRegs> {
        find(self.as_slice(), leaf).map(|entry| DumpEntry::from(entry).regs)
    }
}

impl From<&kvm_cpuid_entry2> for DumpEntry {
    fn from(entry: &kvm_cpuid_entry2) -> Self {
        Self {
            leaf: entry.function,
            subleaf: entry.index,
            regs: CpuidRegs {
                eax: entry.eax,
                ebx: entry.ebx,
                ecx: entry.ecx,
                edx: entry.edx,
            },
        }
    }
}

/// A dump does not say whether the sub-leaf is significant: `flags` is 0.
impl From<DumpEntry> for kvm_cpuid_entry2 {
    fn from(entry: DumpEntry) -> Self {
        Self {
            function: entry.leaf,
            index: entry.subleaf,
            eax: entry.regs.eax,
            ebx: entry.regs.ebx,
            ecx: entry.regs.ecx,
            edx: entry.regs.edx,
            ..Self::default()
        }
    }
}

fn find(entries: &[kvm_cpuid_entry2], leaf: u32) -> Option<&kvm_cpuid_entry2> {
    entries
        .iter()
        .find(|entry| entry.function == leaf && entry.index == 0)
}

/// KVM's leaves in `cpuid`, be it what `KVM_GET_SUPPORTED_CPUID` reports or
/// what a vCPU has; `None` if no base has the signature.
#[must_use]
pub fn read(cpuid: &CpuId) -> Option<KvmLeaf> {
    KvmLeaf::read(cpuid)
}

/// Why the leaves could not be written. `cpuid` is then as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// This many entries are needed and the list ends at
    /// [`KVM_MAX_CPUID_ENTRIES`].
    TooManyEntries(usize),
    /// Not a multiple of 0x100 from 0x40000000 up to 0x4000ff00.
    NotABase(u32),
    /// Another hypervisor's leaf is in the way.
    Occupied(u32),
    /// Every base has another hypervisor's leaves.
    NoFreeBase,
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyEntries(count) => write!(
                f,
                "{count} CPUID entries are needed and the limit is {KVM_MAX_CPUID_ENTRIES}"
            ),
            Self::NotABase(base) => write!(
                f,
                "{base:#x} is no place for a hypervisor's leaves: they start at a multiple of \
                 0x100 from 0x40000000 up to 0x4000ff00"
            ),
            Self::Occupied(leaf) => {
                write!(f, "CPUID leaf {leaf:#x} belongs to another hypervisor")
            }
            Self::NoFreeBase => write!(f, "no place is left for KVM's CPUID leaves"),
        }
    }
}

impl Error for WriteError {}

/// Puts the negotiated words into `cpuid`.
///
/// KVM's leaves stay where they are. If there are none they go to the first
/// base that nobody uses, which behind Hyper-V's leaves is 0x40000100. The
/// highest leaf is raised to cover the feature leaf and never lowered.
///
/// # Errors
///
/// No room, in the list or among the bases; `cpuid` is then unchanged.
pub fn write(cpuid: &mut CpuId, negotiated: &Negotiated) -> Result<(), WriteError> {
    let base = match cpuid.kvm_base() {
        Some(base) => base,
        None => possible_bases()
            .find(|&base| !cpuid.as_slice().iter().any(|entry| within(entry, base)))
            .ok_or(WriteError::NoFreeBase)?,
    };
    write_at(cpuid, base, negotiated)
}

/// Puts the negotiated words into `cpuid` with KVM's leaves at `base`, moving
/// them there from wherever they are: for a VMM that shows Hyper-V's leaves at
/// 0x40000000 and KVM's at 0x40000100.
///
/// # Errors
///
/// `base` is none, or another hypervisor's leaves are there, or no room is
/// left in the list; `cpuid` is then unchanged.
pub fn write_at(cpuid: &mut CpuId, base: u32, negotiated: &Negotiated) -> Result<(), WriteError> {
    if !(KVM_CPUID_SIGNATURE..HYPERVISOR_BASE_END).contains(&base)
        || base % HYPERVISOR_BASE_STEP != 0
    {
        return Err(WriteError::NotABase(base));
    }
    let from = cpuid.kvm_base();
    if from != Some(base) {
        let mut entries = cpuid.as_slice().iter();
        if let Some(other) = entries.find(|entry| within(entry, base)) {
            return Err(WriteError::Occupied(other.function));
        }
    }
    let features_at = base | KVM_CPUID_FEATURES;
    // Work on a copy, so that a list that is full stays as it was.
    let mut written = cpuid.clone();
    if let Some(from) = from {
        for entry in written.as_mut_slice() {
            if within(entry, from) {
                entry.function = base | (entry.function & (HYPERVISOR_BASE_STEP - 1));
            }
        }
    }
    let max_leaf = match (from, find(written.as_slice(), base)) {
        // The highest leaf moves with the leaves.
        (Some(from), Some(entry)) if entry.eax >= from => base.saturating_add(entry.eax - from),
        _ => features_at,
    };
    let [ebx, ecx, edx] = KVM_SIGNATURE_WORDS;
    set(
        &mut written,
        base,
        CpuidRegs {
            eax: max_leaf.max(features_at),
            ebx,
            ecx,
            edx,
        },
    )?;
    set(
        &mut written,
        features_at,
        CpuidRegs {
            eax: negotiated.features.bits(),
            ebx: 0,
            ecx: 0,
            edx: negotiated.hints.bits(),
        },
    )?;
    *cpuid = written;
    Ok(())
}

/// Whether `entry` is one of the 0x100 leaves that start at `base`.
fn within(entry: &kvm_cpuid_entry2, base: u32) -> bool {
    entry.function & !(HYPERVISOR_BASE_STEP - 1) == base
}

/// Sets the registers of `leaf`, with a new entry if it has none.
fn set(cpuid: &mut CpuId, leaf: u32, regs: CpuidRegs) -> Result<(), WriteError> {
    let entry = kvm_cpuid_entry2::from(DumpEntry {
        leaf,
        subleaf: 0,
        regs,
    });
    let there = cpuid
        .as_mut_slice()
        .iter_mut()
        .find(|entry| entry.function == leaf && entry.index == 0);
    if let Some(there) = there {
        *there = entry;
        return Ok(());
    }
    let count = cpuid.as_slice().len() + 1;
    cpuid
        .push(entry)
        .map_err(|_| WriteError::TooManyEntries(count))
}

/// What KVM made of the leaf it was given.
///
/// `KVM_SET_CPUID2` succeeds and changes bits: only reading back shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The leaf the vCPU has; `None` if KVM's leaves are gone.
    pub leaf: Option<KvmLeaf>,
    /// Asked for and there.
    pub kept: KvmFeatures,
    /// Asked for and gone.
    pub cleared: KvmFeatures,
    /// There and not asked for.
    pub extra: KvmFeatures,
    /// Hints asked for and gone.
    pub cleared_hints: KvmHints,
    /// Hints there and not asked for.
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

/// Compares what was negotiated with what `KVM_GET_CPUID2` says the vCPU has.
#[must_use]
pub fn verify(asked: &Negotiated, kept: &CpuId) -> Verified {
    let leaf = read(kept);
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
