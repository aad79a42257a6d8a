//! Which features a confidential guest can use.

use core::fmt;

use crate::bits::KvmFeatures;
use crate::negotiate::Exclusion;

/// A kind of confidential guest. KVM reports what ordinary guests can use, so
/// the VMM must choose the features of such a guest.
///
/// ```
/// use cpuid_features::{HaltService, KickService, KvmFeatures, Profile, VmmSupport, offer};
///
/// let vmm = VmmSupport {
///     halts: HaltService::Kernel,
///     kicks: KickService::Kernel,
///     hlt_exits: true,
///     excludes: Profile::Tdx.exclusions(),
///     ..VmmSupport::default()
/// };
/// let offered = offer(KvmFeatures::from_bits_retain(0x0100_7efb), &vmm);
/// assert_eq!(offered.features.to_string(), "nop-io-delay,pv-unhalt,pv-send-ipi,poll-control");
/// assert_eq!(
///     offered.reason(KvmFeatures::STEAL_TIME).unwrap().to_string(),
///     "steal-time dropped: the VMM leaves it out: KVM refuses a TD its MSR"
/// );
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Profile {
    /// AMD SEV-SNP: the host cannot read the guest's registers and memory.
    /// Linux guests share what steal time and end of interrupt use
    /// (`sev_map_percpu_data` in `arch/x86/kernel/kvm.c`), so those stay.
    SevSnp,
    /// Intel TDX: the guest, a TD, also runs under Intel's module, by which its
    /// accesses to MSRs come to KVM as calls.
    Tdx,
}

/// Why no MSR of KVM's but one works in a TD.
const NO_MSR: &str = "KVM refuses a TD its MSR";
const TDX_MSRS: &str = "arch/x86/kvm/vmx/tdx.c of later kernels than 6.12, tdx_has_emulated_msr: of KVM's MSRs only \
     MSR_KVM_POLL_CONTROL; QEMU's target/i386/kvm/tdx.c leaves the same features out";

const SEV_SNP: &[Exclusion] = &[
    Exclusion {
        features: KvmFeatures::ASYNC_PF
            .union(KvmFeatures::ASYNC_PF_VMEXIT)
            .union(KvmFeatures::ASYNC_PF_INT),
        why: "private memory comes from guest_memfd, for which KVM never waits asynchronously",
        source: "arch/x86/kvm/mmu/mmu.c, kvm_faultin_pfn_private",
    },
    Exclusion {
        features: KvmFeatures::PV_TLB_FLUSH,
        why: "the guest would leave a flush of its TLB to the host, which it does not trust",
        source: "a judgement of this crate; a Linux guest would use it",
    },
    Exclusion {
        features: KvmFeatures::MIGRATION_CONTROL,
        why: "KVM has no commands to send or receive an SEV-SNP guest",
        source: "arch/x86/kvm/svm/sev.c, sev_mem_enc_ioctl",
    },
];

const TDX: &[Exclusion] = &[
    Exclusion {
        features: KvmFeatures::CLOCKSOURCE
            .union(KvmFeatures::CLOCKSOURCE2)
            .union(KvmFeatures::CLOCKSOURCE_STABLE_BIT),
        why: "KVM refuses a TD the MSRs of kvmclock; its TSC is the module's and stable",
        source: TDX_MSRS,
    },
    Exclusion {
        features: KvmFeatures::ASYNC_PF
            .union(KvmFeatures::ASYNC_PF_VMEXIT)
            .union(KvmFeatures::ASYNC_PF_INT),
        why: NO_MSR,
        source: TDX_MSRS,
    },
    Exclusion {
        features: KvmFeatures::STEAL_TIME,
        why: NO_MSR,
        source: TDX_MSRS,
    },
    Exclusion {
        features: KvmFeatures::PV_EOI,
        why: NO_MSR,
        source: TDX_MSRS,
    },
    Exclusion {
        features: KvmFeatures::MIGRATION_CONTROL,
        why: NO_MSR,
        source: TDX_MSRS,
    },
    Exclusion {
        features: KvmFeatures::HC_MAP_GPA_RANGE,
        why: "a TD asks by the module's MapGPA, which KVM hands to the VMM as the same exit",
        source: "QEMU's target/i386/kvm/tdx.c, TDX_SUPPORTED_KVM_FEATURES",
    },
];

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 2] = [Self::SevSnp, Self::Tdx];

    /// The name on a command line; also what `Display` prints.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SevSnp => "sev-snp",
            Self::Tdx => "tdx",
        }
    }

    /// What such a guest is not to be shown, for
    /// [`VmmSupport::excludes`](crate::VmmSupport::excludes). Features that rest
    /// on these go with them by negotiation. See [`Profile`] for an example.
    #[must_use]
    pub const fn exclusions(self) -> &'static [Exclusion] {
        match self {
            Self::SevSnp => SEV_SNP,
            Self::Tdx => TDX,
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
