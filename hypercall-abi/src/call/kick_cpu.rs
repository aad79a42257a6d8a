use crate::raw::low32;

/// `KVM_HC_KICK_CPU`: wake the vCPU of that APIC ID from HLT, or let its next
/// HLT fall through; then yield to it.
///
/// KVM answers 0 whether or not such a vCPU exists
/// (`kvm_pv_kick_cpu_op` and `kvm_sched_yield` in `arch/x86/kvm/x86.c`).
///
/// ```
/// use hypercall_abi::KickCpu;
///
/// assert_eq!(KickCpu::new(3).destination(), 3);
/// // The kick takes 32 bits of the register, the yield after it all 64.
/// let high = KickCpu { flags: 0, apic_id: 1 << 32 | 3 };
/// assert_eq!((high.destination(), high.yield_target()), (3, 1 << 32 | 3));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KickCpu {
    /// a0: reserved by the ABI and ignored by KVM. Linux passes 0.
    pub flags: u64,
    /// a1: the register that holds the destination's APIC ID.
    pub apic_id: u64,
}

impl KickCpu {
    /// The destination of a physical-mode kick to everyone: `0xff`, unless
    /// the VMM has turned the quirk off (`KVM_CAP_X2APIC_API` with
    /// `KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK`).
    pub const BROADCAST: u32 = 0xff;

    /// A kick of that vCPU.
    #[inline]
    #[must_use]
    pub const fn new(apic_id: u32) -> Self {
        Self {
            flags: 0,
            apic_id: apic_id as u64,
        }
    }

    /// The APIC ID to kick: KVM takes the low 32 bits of a1, in either mode.
    #[inline]
    #[must_use]
    pub const fn destination(&self) -> u32 {
        low32(self.apic_id)
    }

    /// The APIC ID to yield to after the kick: all of a1. With a bit above 31
    /// set there is no such vCPU, so that the kick arrives and the yield does
    /// not happen.
    #[inline]
    #[must_use]
    pub const fn yield_target(&self) -> u64 {
        self.apic_id
    }
}
