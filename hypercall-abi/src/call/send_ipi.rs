use crate::errno::KvmErrno;
use crate::raw::{Mode, low32};

/// `KVM_HC_SEND_IPI`: one interrupt to up to 128 vCPUs, 64 in 32-bit mode
/// (`kvm_pv_send_ipi` in `arch/x86/kvm/lapic.c`).
///
/// ```
/// use hypercall_abi::{KvmErrno, Mode, SendIpi};
///
/// let call = SendIpi { bitmap: [0b101, 1], first_apic_id: 8, icr: 0xfd, mode: Mode::Bits64 };
/// let ipi = call.check().unwrap();
/// assert_eq!((ipi.vector(), ipi.delivery_mode()), (0xfd, 0));
/// assert_eq!((ipi.asserted(), ipi.level_triggered()), (false, false));
/// assert!(ipi.targets().eq([8, 10, 72]));
/// let logical = SendIpi { icr: 0x8fd, ..call };
/// assert_eq!(logical.check(), Err(KvmErrno::EINVAL));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SendIpi {
    /// a0 and a1: the destinations. Bit 0 of the first word is
    /// [`first_apic_id`](Self::first_apic_id); bit 0 of the second is 64 ids
    /// above it, or 32 in 32-bit mode.
    pub bitmap: [u64; 2],
    /// a2: the register that holds the APIC ID of bit 0.
    pub first_apic_id: u64,
    /// a3: the low word of the interrupt command register.
    pub icr: u64,
    /// The mode of the caller: one word of the bitmap has 64 ids in 64-bit mode
    /// and 32 otherwise.
    pub mode: Mode,
}

impl SendIpi {
    /// The ICR's destination mode bit.
    const ICR_LOGICAL: u64 = 0x800;
    /// The ICR's destination shorthand.
    const ICR_SHORTHAND: u64 = 0xc_0000;

    /// The interrupt and its targets, if it is one KVM would send.
    ///
    /// # Errors
    /// [`KvmErrno::EINVAL`] for an ICR with a logical destination or a
    /// shorthand.
    #[inline]
    pub const fn check(&self) -> Result<Ipi, KvmErrno> {
        if self.icr & (Self::ICR_LOGICAL | Self::ICR_SHORTHAND) != 0 {
            return Err(KvmErrno::EINVAL);
        }
        Ok(Ipi { call: *self })
    }
}

/// An interrupt that passed KVM's test; from [`SendIpi::check`].
///
/// See [`SendIpi`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ipi {
    call: SendIpi,
}

impl Ipi {
    /// ICR bits 7:0.
    #[inline]
    #[must_use]
    pub const fn vector(&self) -> u8 {
        (self.call.icr & 0xff) as u8
    }

    /// ICR bits 10:8: 0 fixed, 3 remote read (which is a kick), 4 NMI, and so
    /// on. KVM allows them all.
    #[inline]
    #[must_use]
    pub const fn delivery_mode(&self) -> u8 {
        ((self.call.icr >> 8) & 7) as u8
    }

    /// ICR bit 14: asserted.
    #[inline]
    #[must_use]
    pub const fn asserted(&self) -> bool {
        self.call.icr & 0x4000 != 0
    }

    /// ICR bit 15: level-triggered.
    #[inline]
    #[must_use]
    pub const fn level_triggered(&self) -> bool {
        self.call.icr & 0x8000 != 0
    }

    /// The APIC IDs, lowest bit first.
    ///
    /// As in KVM the id of bit 0 is the low 32 bits of a2, an id of the first
    /// word above 2^32 - 1 does not exist, and the base of the second word
    /// wraps.
    #[inline]
    #[must_use]
    pub const fn targets(&self) -> IpiTargets {
        let width = match self.call.mode {
            Mode::Bits64 => 64,
            Mode::Bits32 => 32,
        };
        let first = low32(self.call.first_apic_id);
        let [low, high] = self.call.bitmap;
        IpiTargets {
            words: [
                (first, self.call.mode.truncate(low)),
                (first.wrapping_add(width), self.call.mode.truncate(high)),
            ],
        }
    }
}

/// The APIC IDs an [`Ipi`] goes to.
///
/// See [`SendIpi`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpiTargets {
    /// Base and bits left of each word.
    words: [(u32, u64); 2],
}

impl Iterator for IpiTargets {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        for (base, bits) in &mut self.words {
            while *bits != 0 {
                let bit = bits.trailing_zeros();
                *bits &= *bits - 1;
                if let Some(apic_id) = base.checked_add(bit) {
                    return Some(apic_id);
                }
            }
        }
        None
    }
}
