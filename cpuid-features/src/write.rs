//! Putting KVM's leaves into a VMM's table, whatever that is made of.

use core::error::Error;
use core::fmt;

use crate::leaf::{
    CpuidReader, CpuidRegs, HYPERVISOR_BASE_END, HYPERVISOR_BASE_STEP, KVM_CPUID_FEATURES,
    KVM_CPUID_SIGNATURE, KVM_SIGNATURE_WORDS, possible_bases,
};
use crate::negotiate::Negotiated;

/// A table of CPUID leaves that can be changed: a VMM's own, or with the
/// feature `kvm-bindings` a `kvm_bindings::CpuId`.
///
/// ```
/// use std::collections::HashMap;
/// use std::convert::Infallible;
///
/// use cpuid_features::{
///     CpuidReader, CpuidRegs, CpuidTable, KvmFeatures, KvmLeaf, VmmSupport, offer, write,
/// };
///
/// #[derive(Default)]
/// struct Table(HashMap<u32, CpuidRegs>);
///
/// impl CpuidReader for Table {
///     fn leaf(&self, leaf: u32) -> Option<CpuidRegs> {
///         self.0.get(&leaf).copied()
///     }
/// }
///
/// impl CpuidTable for Table {
///     type Error = Infallible;
///
///     fn set_leaf(&mut self, leaf: u32, regs: CpuidRegs) -> Result<(), Infallible> {
///         self.0.insert(leaf, regs);
///         Ok(())
///     }
///
///     fn remove_leaf(&mut self, leaf: u32) {
///         self.0.remove(&leaf);
///     }
/// }
///
/// let mut table = Table::default();
/// let offered = offer(KvmFeatures::CLOCKSOURCE2, &VmmSupport::default());
/// write(&mut table, &offered)?;
/// assert_eq!(KvmLeaf::read(&table).unwrap().features, KvmFeatures::CLOCKSOURCE2);
/// # Ok::<(), cpuid_features::WriteError<Infallible>>(())
/// ```
pub trait CpuidTable: CpuidReader {
    /// Why a leaf could not be added.
    type Error;

    /// Sets the registers of `leaf`, sub-leaf 0, and adds it if the table does
    /// not have it. Setting a leaf that the table already has must not fail.
    ///
    /// # Errors
    /// The table has no room.
    fn set_leaf(&mut self, leaf: u32, regs: CpuidRegs) -> Result<(), Self::Error>;

    /// Takes `leaf` out, with all its sub-leaves; nothing if it is not there.
    fn remove_leaf(&mut self, leaf: u32);

    /// Whether the table has any of the 0x100 leaves from `base` on. A table
    /// that finds it faster may implement this too.
    fn has_leaves(&self, base: u32) -> bool {
        block(base).any(|leaf| self.leaf(leaf).is_some())
    }

    /// Moves the 0x100 leaves from `from` on to `to`, where none are.
    ///
    /// # Errors
    /// The table has no room.
    fn move_leaves(&mut self, from: u32, to: u32) -> Result<(), Self::Error> {
        for (old, new) in block(from).zip(block(to)) {
            if let Some(regs) = self.leaf(old) {
                self.remove_leaf(old);
                self.set_leaf(new, regs)?;
            }
        }
        Ok(())
    }
}

/// The leaves that belong to a base.
fn block(base: u32) -> impl Iterator<Item = u32> {
    let first = base & !(HYPERVISOR_BASE_STEP - 1);
    (0..HYPERVISOR_BASE_STEP).map(move |at| first | at)
}

/// Why the leaves could not be written. The table is then as it was.
///
/// See [`write_at`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteError<E> {
    /// The table could not take a leaf.
    Table(E),
    /// Not a multiple of 0x100 from 0x40000000 up to 0x4000ff00.
    NotABase(u32),
    /// Another hypervisor's leaves start there.
    Occupied(u32),
    /// Every base has another hypervisor's leaves.
    NoFreeBase,
}

impl<E: fmt::Display> fmt::Display for WriteError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(error) => error.fmt(f),
            Self::NotABase(base) => write!(
                f,
                "{base:#x} is no place for a hypervisor's leaves: they start at a multiple of \
                 0x100 from 0x40000000 up to 0x4000ff00"
            ),
            Self::Occupied(base) => {
                write!(
                    f,
                    "the CPUID leaves at {base:#x} belong to another hypervisor"
                )
            }
            Self::NoFreeBase => write!(f, "no place is left for KVM's CPUID leaves"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> Error for WriteError<E> {}

/// Puts the negotiated words into `table`. See [`CpuidTable`] for an example.
///
/// KVM's leaves stay where they are. If there are none they go to the first
/// base that nobody uses, which behind Hyper-V's leaves is 0x40000100. The
/// highest leaf is raised to cover the feature leaf and never lowered.
///
/// # Errors
///
/// No room, in the table or among the bases; `table` is then unchanged.
pub fn write<T: CpuidTable + ?Sized>(
    table: &mut T,
    negotiated: &Negotiated,
) -> Result<(), WriteError<T::Error>> {
    let base = match table.kvm_base() {
        Some(base) => base,
        None => possible_bases()
            .find(|&base| !table.has_leaves(base))
            .ok_or(WriteError::NoFreeBase)?,
    };
    write_at(table, base, negotiated)
}

/// Puts the negotiated words into `table` with KVM's leaves at `base`, moving
/// them there from wherever they are: for a VMM that shows Hyper-V's leaves at
/// 0x40000000 and KVM's at 0x40000100.
///
/// # Errors
///
/// `base` is none, or another hypervisor's leaves are there, or no room is
/// left in the table; `table` is then unchanged.
///
/// ```
/// use std::convert::Infallible;
///
/// use cpuid_features::{
///     CpuidReader, CpuidRegs, CpuidTable, KvmFeatures, VmmSupport, WriteError, offer, write_at,
/// };
///
/// #[derive(Default)]
/// struct Table(std::collections::HashMap<u32, CpuidRegs>);
///
/// impl CpuidReader for Table {
///     fn leaf(&self, leaf: u32) -> Option<CpuidRegs> {
///         self.0.get(&leaf).copied()
///     }
/// }
///
/// impl CpuidTable for Table {
///     type Error = Infallible;
///
///     fn set_leaf(&mut self, leaf: u32, regs: CpuidRegs) -> Result<(), Infallible> {
///         self.0.insert(leaf, regs);
///         Ok(())
///     }
///
///     fn remove_leaf(&mut self, leaf: u32) {
///         self.0.remove(&leaf);
///     }
/// }
///
/// let mut table = Table::default();
/// let offered = offer(KvmFeatures::CLOCKSOURCE2, &VmmSupport::default());
/// assert_eq!(write_at(&mut table, 0x4000_0100, &offered), Ok(()));
/// assert_eq!(table.leaf(0x4000_0101).unwrap().eax, KvmFeatures::CLOCKSOURCE2.bits());
/// let error = write_at(&mut table, 0x4000_0101, &offered);
/// assert_eq!(error, Err(WriteError::NotABase(0x4000_0101)));
/// ```
pub fn write_at<T: CpuidTable + ?Sized>(
    table: &mut T,
    base: u32,
    negotiated: &Negotiated,
) -> Result<(), WriteError<T::Error>> {
    let from = table.kvm_base();
    let moves = from != Some(base);
    if !(KVM_CPUID_SIGNATURE..HYPERVISOR_BASE_END).contains(&base)
        || base % HYPERVISOR_BASE_STEP != 0
    {
        return Err(WriteError::NotABase(base));
    }
    if moves && table.has_leaves(base) {
        return Err(WriteError::Occupied(base));
    }
    let from = from.unwrap_or(base);
    if moves {
        if let Err(error) = table.move_leaves(from, base) {
            // What was moved had room where it was.
            let _ = table.move_leaves(base, from);
            return Err(WriteError::Table(error));
        }
    }
    let features_at = base | KVM_CPUID_FEATURES;
    let before = [base, features_at].map(|leaf| (leaf, table.leaf(leaf)));
    if let Err(error) = set(table, from, base, negotiated) {
        for (leaf, regs) in before {
            // A leaf that is there takes its registers back.
            match regs {
                Some(regs) => drop(table.set_leaf(leaf, regs)),
                None => table.remove_leaf(leaf),
            }
        }
        if moves {
            let _ = table.move_leaves(base, from);
        }
        return Err(WriteError::Table(error));
    }
    Ok(())
}

/// Sets signature and features at `base`, whose leaves were at `from`.
fn set<T: CpuidTable + ?Sized>(
    table: &mut T,
    from: u32,
    base: u32,
    negotiated: &Negotiated,
) -> Result<(), T::Error> {
    let features_at = base | KVM_CPUID_FEATURES;
    let max_leaf = match table.leaf(base) {
        // The highest leaf moves with the leaves.
        Some(regs) if regs.eax >= from => base.saturating_add(regs.eax - from),
        _ => features_at,
    };
    let [ebx, ecx, edx] = KVM_SIGNATURE_WORDS;
    let signature = CpuidRegs {
        eax: max_leaf.max(features_at),
        ebx,
        ecx,
        edx,
    };
    table.set_leaf(base, signature)?;
    let features = CpuidRegs {
        eax: negotiated.features.bits(),
        ebx: 0,
        ecx: 0,
        edx: negotiated.hints.bits(),
    };
    table.set_leaf(features_at, features)
}
