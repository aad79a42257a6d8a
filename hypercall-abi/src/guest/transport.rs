//! How a call leaves the guest.

use core::arch::asm;

use cpuid_features::{CpuidReader, KvmLeaf, Native};

use crate::doorbell;
use crate::raw::RawHypercall;

/// The instruction that hands a call to the hypervisor.
///
/// ```
/// use cpuid_features::{CpuidRegs, KVM_SIGNATURE_WORDS};
/// use hypercall_abi::guest::Transport;
///
/// let [ebx, ecx, edx] = KVM_SIGNATURE_WORDS;
/// let amd = |leaf: u32| match leaf {
///     0 => Some(CpuidRegs { eax: 1, ebx: 0x6874_7541, ecx: 0x444d_4163, edx: 0x6974_6e65 }),
///     0x4000_0000 => Some(CpuidRegs { eax: 0, ebx, ecx, edx }),
///     _ => None,
/// };
/// assert_eq!(Transport::from_cpuid(&amd), Some(Transport::Vmmcall));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Transport {
    /// VMCALL, `0f 01 c1`: Intel and compatible CPUs.
    Vmcall,
    /// VMMCALL, `0f 01 d9`: AMD and Hygon.
    Vmmcall,
    /// `out 0xe5, eax`: see [`doorbell`](crate::doorbell). Never detected: the
    /// guest has to be told.
    Doorbell,
}

impl Transport {
    /// The instruction for the CPU this runs on, or `None` outside of KVM.
    #[must_use]
    pub fn detect() -> Option<Self> {
        Self::from_cpuid(&Native)
    }

    /// The instruction for a CPU with that CPUID, or `None` if it has no
    /// leaves of KVM. AMD's and Hygon's CPUs take VMMCALL, as in Linux
    /// (`X86_FEATURE_VMMCALL`); KVM would accept the other one too, and patch
    /// the guest's code for it.
    #[must_use]
    pub fn from_cpuid(cpuid: &impl CpuidReader) -> Option<Self> {
        KvmLeaf::read(cpuid)?;
        let vendor = cpuid.leaf(0)?;
        let name = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes);
        let name = name.as_flattened();
        if name == b"AuthenticAMD" || name == b"HygonGenuine" {
            Some(Self::Vmmcall)
        } else {
            Some(Self::Vmcall)
        }
    }

    /// Issues a call and gives what it left in RAX. Every other register is
    /// as it was; memory may have changed.
    ///
    /// # Safety
    /// - This runs in a guest whose hypervisor serves this transport. Where it
    ///   does not the CPU raises an exception, or the port is another device.
    /// - The call keeps Rust's promises: memory that it lets the host write,
    ///   map, or unmap is the caller's to give.
    #[inline]
    pub(super) unsafe fn issue(self, call: &RawHypercall) -> u64 {
        let [a0, a1, a2, a3] = call.args;
        let rax;
        // LLVM keeps rbx to itself: it is swapped in and out around the call.
        macro_rules! issue {
            ($instruction:literal $(, $operand:ident = $value:expr)?) => {
                // SAFETY: the instruction reads the five registers and writes
                // rax, by the ABI; rbx is restored. What the hypervisor does
                // besides is the caller's promise, and memory is not declared
                // untouched.
                unsafe {
                    asm!(
                        "xchg {a0}, rbx",
                        $instruction,
                        "mov rbx, {a0}",
                        $($operand = const $value,)?
                        a0 = inout(reg) a0 => _,
                        inlateout("rax") call.nr => rax,
                        in("rcx") a1,
                        in("rdx") a2,
                        in("rsi") a3,
                        options(nostack),
                    )
                }
            };
        }
        match self {
            Self::Vmcall => issue!("vmcall"),
            Self::Vmmcall => issue!("vmmcall"),
            Self::Doorbell => issue!("out {port}, eax", port = doorbell::PORT),
        }
        rax
    }
}
