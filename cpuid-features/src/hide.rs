//! Hiding KVM from a guest altogether.

use core::fmt;

use crate::bits::KvmFeatures;
use crate::leaf::{HYPERVISOR_BASE_STEP, KvmLeaf, possible_bases};
use crate::write::{CpuidTable, WriteError};

/// Leaf 1, `ecx`: a hypervisor is there.
const HYPERVISOR: u32 = 1 << 31;

/// What a guest loses when it does not see KVM. [`hide`] gives it, and has an
/// example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hidden {
    /// What it would have been shown; `None` if the table had no leaves of KVM.
    pub leaf: Option<KvmLeaf>,
    /// Whether no other hypervisor has leaves: leaf 1 then no longer says that
    /// there is a hypervisor.
    pub bare: bool,
}

/// Takes KVM's leaves out of `table`, and if no other hypervisor has any, the
/// bit of leaf 1 that says that there is one.
///
/// It hides nothing from a guest that looks otherwise: without
/// `KVM_CAP_ENFORCE_PV_FEATURE_CPUID` hypercalls and MSRs go on working, and
/// exits cost time that can be measured.
///
/// ```
/// use std::collections::HashMap;
/// use std::convert::Infallible;
///
/// use cpuid_features::{CpuidReader, CpuidRegs, CpuidTable, Dump, KvmLeaf, hide};
///
/// struct Table(HashMap<u32, CpuidRegs>);
/// impl CpuidReader for Table {
///     fn leaf(&self, leaf: u32) -> Option<CpuidRegs> {
///         self.0.get(&leaf).copied()
///     }
/// }
/// impl CpuidTable for Table {
///     type Error = Infallible;
///     fn set_leaf(&mut self, leaf: u32, regs: CpuidRegs) -> Result<(), Infallible> {
///         self.0.insert(leaf, regs);
///         Ok(())
///     }
///     fn remove_leaf(&mut self, leaf: u32) {
///         self.0.remove(&leaf);
///     }
/// }
///
/// let dump = "\
/// 0x00000001 0x00: eax=0x0 ebx=0x0 ecx=0x80000000 edx=0x0
/// 0x40000000 0x00: eax=0x40000001 ebx=0x4b4d564b ecx=0x564b4d56 edx=0x4d
/// 0x40000001 0x00: eax=0x00000020 ebx=0x0 ecx=0x0 edx=0x0";
/// let mut table = Table(Dump::new(dump).entries().map(|one| (one.leaf, one.regs)).collect());
/// let hidden = hide(&mut table)?;
/// assert_eq!(KvmLeaf::read(&table), None);
/// assert_eq!(table.leaf(1).unwrap().ecx, 0);
/// assert_eq!(hidden.lost().count(), 1);
/// assert_eq!(
///     hidden.to_string(),
///     "lost: steal-time (the guest learns how long a vCPU waited for a host CPU, and whether it \
///      is preempted now)"
/// );
/// # Ok::<(), cpuid_features::WriteError<Infallible>>(())
/// ```
///
/// # Errors
/// The table refused to set leaf 1, which it has: by [`CpuidTable`]'s contract
/// that does not happen.
pub fn hide<T: CpuidTable + ?Sized>(table: &mut T) -> Result<Hidden, WriteError<T::Error>> {
    let leaf = KvmLeaf::read(table);
    // A guest stops at the first signature; there may be more.
    while let Some(base) = table.kvm_base() {
        for at in 0..HYPERVISOR_BASE_STEP {
            table.remove_leaf(base | at);
        }
    }
    let bare = !possible_bases().any(|base| table.has_leaves(base));
    if bare {
        if let Some(mut regs) = table.leaf(1) {
            regs.ecx &= !HYPERVISOR;
            table.set_leaf(1, regs).map_err(WriteError::Table)?;
        }
    }
    Ok(Hidden { leaf, bare })
}

impl Hidden {
    /// Each feature that the guest loses, and the purpose of that feature.
    pub fn lost(&self) -> impl Iterator<Item = (KvmFeatures, &'static str)> {
        let features = self.leaf.map_or(KvmFeatures::empty(), |leaf| leaf.features);
        features.singles().map(|bit| {
            let purpose = bit
                .row()
                .map_or("not known to this version", |row| row.purpose);
            (bit, purpose)
        })
    }
}

/// One line: what the guest loses.
impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lost = self.lost().peekable();
        if lost.peek().is_none() {
            return f.write_str("nothing is lost: no feature of KVM's was shown");
        }
        f.write_str("lost: ")?;
        for (nth, (bit, purpose)) in lost.enumerate() {
            let between = if nth == 0 { "" } else { ", " };
            write!(f, "{between}{bit} ({purpose})")?;
        }
        Ok(())
    }
}
