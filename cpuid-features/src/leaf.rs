//! Finding and reading the KVM leaves, whatever the source.

use crate::bits::{KvmFeatures, KvmHints};

/// The leaf with KVM's signature, and the lowest base.
///
/// See [`CpuidReader`] for an example.
pub const KVM_CPUID_SIGNATURE: u32 = 0x4000_0000;
/// The leaf with the features in `eax` and the hints in `edx`, at the lowest
/// base; elsewhere it is `base | 0x4000_0001`.
///
/// See [`CpuidReader`] for an example.
pub const KVM_CPUID_FEATURES: u32 = 0x4000_0001;
/// The signature as bytes: `ebx`, `ecx`, `edx`, each least significant byte
/// first.
///
/// See [`CpuidRegs`] for an example.
pub const KVM_SIGNATURE: &[u8; 12] = b"KVMKVMKVM\0\0\0";
/// The signature as `ebx`, `ecx`, `edx`.
///
/// See [`CpuidRegs`] for an example.
pub const KVM_SIGNATURE_WORDS: [u32; 3] = [0x4b4d_564b, 0x564b_4d56, 0x4d];
/// Distance between the places where a hypervisor's leaves may start.
///
/// See [`possible_bases`] for an example.
pub const HYPERVISOR_BASE_STEP: u32 = 0x100;
/// End, exclusive, of the places where a hypervisor's leaves may start, as
/// Linux guests and KVM search them.
///
/// See [`possible_bases`] for an example.
pub const HYPERVISOR_BASE_END: u32 = 0x4001_0000;

/// The four registers that CPUID returns; on x86-64 also from and to
/// `core::arch::x86_64::CpuidResult`.
///
/// ```
/// use cpuid_features::{CpuidRegs, KVM_SIGNATURE_WORDS};
///
/// let [ebx, ecx, edx] = KVM_SIGNATURE_WORDS;
/// assert!(CpuidRegs { eax: 0x4000_0001, ebx, ecx, edx }.is_kvm_signature());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuidRegs {
    /// `eax`
    pub eax: u32,
    /// `ebx`
    pub ebx: u32,
    /// `ecx`
    pub ecx: u32,
    /// `edx`
    pub edx: u32,
}

impl CpuidRegs {
    /// Whether `ebx`, `ecx` and `edx` hold KVM's signature.
    #[must_use]
    pub const fn is_kvm_signature(&self) -> bool {
        let [ebx, ecx, edx] = KVM_SIGNATURE_WORDS;
        self.ebx == ebx && self.ecx == ecx && self.edx == edx
    }
}

#[cfg(target_arch = "x86_64")]
impl From<core::arch::x86_64::CpuidResult> for CpuidRegs {
    fn from(regs: core::arch::x86_64::CpuidResult) -> Self {
        Self {
            eax: regs.eax,
            ebx: regs.ebx,
            ecx: regs.ecx,
            edx: regs.edx,
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl From<CpuidRegs> for core::arch::x86_64::CpuidResult {
    fn from(regs: CpuidRegs) -> Self {
        Self {
            eax: regs.eax,
            ebx: regs.ebx,
            ecx: regs.ecx,
            edx: regs.edx,
        }
    }
}

/// A source of CPUID leaves: the running CPU, a `kvm_bindings::CpuId`, a
/// dump, or a closure over whatever a caller has.
///
/// ```
/// use cpuid_features::{
///     CpuidReader, CpuidRegs, KVM_CPUID_FEATURES, KVM_CPUID_SIGNATURE, KVM_SIGNATURE_WORDS,
/// };
///
/// let [ebx, ecx, edx] = KVM_SIGNATURE_WORDS;
/// let closure = |leaf: u32| match leaf {
///     KVM_CPUID_SIGNATURE => Some(CpuidRegs { eax: KVM_CPUID_FEATURES, ebx, ecx, edx }),
///     _ => None,
/// };
/// assert_eq!(closure.kvm_base(), Some(0x4000_0000));
/// assert_eq!(closure.leaf(1), None);
/// ```
pub trait CpuidReader {
    /// `leaf`, sub-leaf 0; `None` if the source does not have it.
    fn leaf(&self, leaf: u32) -> Option<CpuidRegs>;

    /// The lowest base with KVM's signature. A source that finds it faster than
    /// by asking for every possible base may implement this too.
    fn kvm_base(&self) -> Option<u32> {
        possible_bases().find(|&base| self.leaf(base).is_some_and(|regs| regs.is_kvm_signature()))
    }
}

impl<F: Fn(u32) -> Option<CpuidRegs>> CpuidReader for F {
    fn leaf(&self, leaf: u32) -> Option<CpuidRegs> {
        self(leaf)
    }
}

/// Every place where a hypervisor's leaves may start, lowest first:
/// 0x40000000, 0x40000100, up to 0x4000ff00.
///
/// KVM's are not always at the first: a VMM that shows Hyper-V's leaves puts
/// those there and KVM's behind.
///
/// ```
/// use cpuid_features::possible_bases;
///
/// let bases: Vec<u32> = possible_bases().collect();
/// assert_eq!((bases[0], bases[1], bases.len()), (0x4000_0000, 0x4000_0100, 256));
/// ```
pub fn possible_bases() -> impl Iterator<Item = u32> {
    (KVM_CPUID_SIGNATURE..HYPERVISOR_BASE_END).step_by(HYPERVISOR_BASE_STEP as usize)
}

/// KVM's leaves as a guest reads them.
///
/// See [`Dump`](crate::Dump) for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvmLeaf {
    /// The leaf at which they start.
    pub base: u32,
    /// The highest leaf, as the signature leaf says. An old host writes 0,
    /// which is read as `base | 0x4000_0001`; any other value is given as it
    /// is.
    pub max_leaf: u32,
    /// `eax` of the feature leaf; empty if there is no such leaf.
    pub features: KvmFeatures,
    /// `edx` of the feature leaf; empty if there is no such leaf.
    pub hints: KvmHints,
}

impl KvmLeaf {
    /// Finds KVM's leaves, or `None` if no base has the signature.
    ///
    /// Reads what a Linux guest reads: `max_leaf` does not decide whether the
    /// feature leaf counts.
    pub fn read<R: CpuidReader + ?Sized>(reader: &R) -> Option<Self> {
        let base = reader.kvm_base()?;
        let features_at = base | KVM_CPUID_FEATURES;
        let max_leaf = match reader.leaf(base)?.eax {
            0 => features_at,
            given => given,
        };
        let regs = reader.leaf(features_at).unwrap_or_default();
        Some(Self {
            base,
            max_leaf,
            features: KvmFeatures::from_bits_retain(regs.eax),
            hints: KvmHints::from_bits_retain(regs.edx),
        })
    }
}
