use crate::errno::KvmErrno;

/// `KVM_HC_CLOCK_PAIRING`: read a host clock and the guest's TSC at one
/// instant, into guest memory (`kvm_pv_clock_pairing` in
/// `arch/x86/kvm/x86.c`).
///
/// ```
/// use hypercall_abi::{ClockPairing, KvmErrno};
///
/// let call = ClockPairing { gpa: 0x1000, clock_type: ClockPairing::WALLCLOCK };
/// assert_eq!(call.check(), Ok(0x1000));
/// let other = ClockPairing { clock_type: 1, ..call };
/// assert_eq!(other.check(), Err(KvmErrno::EOPNOTSUPP));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClockPairing {
    /// a0: guest physical address of the [`ClockPairingData`] to fill.
    pub gpa: u64,
    /// a1: which clock; [`WALLCLOCK`](Self::WALLCLOCK) is the only one.
    pub clock_type: u64,
}

impl ClockPairing {
    /// `KVM_CLOCK_PAIRING_WALLCLOCK`: the host's `CLOCK_REALTIME`.
    pub const WALLCLOCK: u64 = 0;

    /// The address to write [`ClockPairingData`] to.
    ///
    /// # Errors
    /// [`KvmErrno::EOPNOTSUPP`] for any other clock than
    /// [`WALLCLOCK`](Self::WALLCLOCK). A handler answers the same while the
    /// host's clock source is not the TSC, and [`KvmErrno::EFAULT`] when the
    /// write fails.
    #[inline]
    pub const fn check(&self) -> Result<u64, KvmErrno> {
        if self.clock_type == Self::WALLCLOCK {
            Ok(self.gpa)
        } else {
            Err(KvmErrno::EOPNOTSUPP)
        }
    }
}

/// `struct kvm_clock_pairing` (`arch/x86/include/uapi/asm/kvm_para.h`) without
/// its padding: what the guest finds at [`ClockPairing::gpa`].
///
/// ```
/// use hypercall_abi::ClockPairingData;
///
/// let data = ClockPairingData { sec: 1, nsec: 2, tsc: 3, flags: 0 };
/// let bytes = data.to_bytes();
/// assert_eq!(bytes.len(), ClockPairingData::SIZE);
/// assert_eq!(ClockPairingData::from_bytes(&bytes), data);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClockPairingData {
    /// Seconds of the clock.
    pub sec: i64,
    /// Nanoseconds within the second.
    pub nsec: i64,
    /// The guest's TSC at that instant.
    pub tsc: u64,
    /// No flag is defined: 0.
    pub flags: u32,
}

impl ClockPairingData {
    /// Size in guest memory in bytes, padding included.
    pub const SIZE: usize = 64;

    /// The bytes for guest memory, little-endian, padding 0.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        let fields = self
            .sec
            .to_le_bytes()
            .into_iter()
            .chain(self.nsec.to_le_bytes())
            .chain(self.tsc.to_le_bytes())
            .chain(self.flags.to_le_bytes());
        for (to, from) in bytes.iter_mut().zip(fields) {
            *to = from;
        }
        bytes
    }

    /// The reading of those bytes. The padding is not looked at.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::SIZE]) -> Self {
        fn word<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
            let mut word = [0; N];
            for (to, from) in word.iter_mut().zip(bytes.iter().skip(at)) {
                *to = *from;
            }
            word
        }
        Self {
            sec: i64::from_le_bytes(word(bytes, 0)),
            nsec: i64::from_le_bytes(word(bytes, 8)),
            tsc: u64::from_le_bytes(word(bytes, 16)),
            flags: u32::from_le_bytes(word(bytes, 24)),
        }
    }
}
