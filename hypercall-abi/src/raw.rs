//! A hypercall as the registers hold it.

use crate::call::{ClockPairing, Hypercall, KickCpu, MapGpaRange, MmuOp, SchedYield, SendIpi};
use crate::nr::HypercallNr;

/// The width of the calling code, which decides how much of each register
/// counts.
///
/// KVM takes a call for a 64-bit one when the vCPU is in long mode with a
/// 64-bit code segment (EFER.LMA and CS.L), and always when the guest's state
/// is protected: SEV-ES, SEV-SNP, TDX (`is_64_bit_hypercall` in
/// `arch/x86/kvm/`).
///
/// ```
/// use hypercall_abi::Mode;
///
/// assert_eq!(Mode::Bits32.truncate(0x1_0000_0005), 5);
/// assert_eq!(Mode::from_longmode(1), Mode::Bits64);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// 64-bit mode: registers count whole.
    Bits64,
    /// Anything else: the low halves count, and so does the result's.
    Bits32,
}

impl Mode {
    /// The mode of a `longmode` or `flags` word of `kvm_run`: bit 0 set means
    /// 64 bits (`KVM_EXIT_HYPERCALL_LONG_MODE`). See [`Mode`] for an example.
    #[inline]
    #[must_use]
    pub const fn from_longmode(longmode: u64) -> Self {
        if longmode & 1 != 0 {
            Self::Bits64
        } else {
            Self::Bits32
        }
    }

    /// The part of a register's value that counts in this mode. See [`Mode`]
    /// for an example.
    #[inline]
    #[must_use]
    pub const fn truncate(self, register: u64) -> u64 {
        register
            & match self {
                Self::Bits64 => u64::MAX,
                Self::Bits32 => u32::MAX as u64,
            }
    }
}

/// The low half of a register.
#[expect(
    clippy::cast_possible_truncation,
    reason = "it is what the ABI asks for"
)]
#[inline]
pub(crate) const fn low32(register: u64) -> u32 {
    register as u32
}

/// A hypercall of x86 as the registers hold it, whatever way it came. Those of
/// other architectures are [`Request`](crate::Request)s.
///
/// | | number | arguments | result | CPL |
/// |---|---|---|---|---|
/// | VMCALL, VMMCALL | rax | rbx, rcx, rdx, rsi | rax | the vCPU's |
/// | [`doorbell`](crate::doorbell) | rax | rbx, rcx, rdx, rsi | rax | the vCPU's |
/// | SEV-ES, SEV-SNP | rax in the GHCB | rbx, rcx, rdx, rsi in the GHCB | rax in the GHCB | the GHCB's |
/// | TDX (`TDG.VP.VMCALL`) | r10, not 0 | r11, r12, r13, r14 | r10 | always 0 |
///
/// The last two are always [`Mode::Bits64`].
///
/// ```
/// use hypercall_abi::{Hypercall, KVM_HC_KICK_CPU, Mode, RawHypercall};
///
/// let raw = RawHypercall { nr: KVM_HC_KICK_CPU, args: [0, 3, 0, 0], mode: Mode::Bits64, cpl: 0 };
/// let Hypercall::KickCpu(kick) = raw.decode() else { unreachable!() };
/// assert_eq!(kick.destination(), 3);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RawHypercall {
    /// The number register, untruncated.
    pub nr: u64,
    /// The four argument registers, untruncated.
    pub args: [u64; 4],
    /// The width of the calling code.
    pub mode: Mode,
    /// The privilege level of the calling code, 0 to 3.
    pub cpl: u8,
}

impl RawHypercall {
    /// The hypercall of a `KVM_EXIT_HYPERCALL`, from the fields of
    /// `kvm_run.hypercall` or of `kvm_ioctls::HypercallExit`. KVM has checked
    /// the CPL before it exits, so that it is 0; of the six argument slots
    /// x86 uses four.
    ///
    /// The answer goes to `ret`, as [`to_rax`](crate::to_rax) makes it.
    ///
    /// ```
    /// use hypercall_abi::{Hypercall, KVM_HC_MAP_GPA_RANGE, RawHypercall};
    ///
    /// let args = [0x1000, 1, 0x10, 0, 0, 0];
    /// let raw = RawHypercall::from_hypercall_exit(KVM_HC_MAP_GPA_RANGE, &args, 1);
    /// assert!(matches!(raw.decode(), Hypercall::MapGpaRange(_)));
    /// ```
    #[inline]
    #[must_use]
    pub const fn from_hypercall_exit(nr: u64, args: &[u64; 6], longmode: u64) -> Self {
        let [a0, a1, a2, a3, ..] = *args;
        Self {
            nr,
            args: [a0, a1, a2, a3],
            mode: Mode::from_longmode(longmode),
            cpl: 0,
        }
    }

    /// What was asked for on x86. See [`RawHypercall`] for an example. Total: every number and argument decodes, those
    /// KVM does not know to [`Hypercall::Unknown`]. Truncates number and
    /// arguments in [`Mode::Bits32`], and judges nothing: privilege and
    /// features are for [`admit`](crate::admit), the arguments for the call's
    /// own `check`.
    #[inline]
    #[must_use]
    pub const fn decode(&self) -> Hypercall {
        let nr = HypercallNr(self.mode.truncate(self.nr));
        let [a0, a1, a2, a3] = self.args;
        let a0 = self.mode.truncate(a0);
        let a1 = self.mode.truncate(a1);
        let a2 = self.mode.truncate(a2);
        let a3 = self.mode.truncate(a3);
        match nr {
            HypercallNr::VAPIC_POLL_IRQ => Hypercall::VapicPollIrq,
            HypercallNr::MMU_OP => Hypercall::MmuOp(MmuOp {
                args: [a0, a1, a2, a3],
            }),
            HypercallNr::KICK_CPU => Hypercall::KickCpu(KickCpu {
                flags: a0,
                apic_id: a1,
            }),
            HypercallNr::CLOCK_PAIRING => Hypercall::ClockPairing(ClockPairing {
                gpa: a0,
                clock_type: a1,
            }),
            HypercallNr::SEND_IPI => Hypercall::SendIpi(SendIpi {
                bitmap: [a0, a1],
                first_apic_id: a2,
                icr: a3,
                mode: self.mode,
            }),
            HypercallNr::SCHED_YIELD => Hypercall::SchedYield(SchedYield { apic_id: a0 }),
            HypercallNr::MAP_GPA_RANGE => Hypercall::MapGpaRange(MapGpaRange {
                gpa: a0,
                pages: a1,
                attributes: a2,
            }),
            nr => Hypercall::Unknown {
                nr,
                args: [a0, a1, a2, a3],
            },
        }
    }
}
