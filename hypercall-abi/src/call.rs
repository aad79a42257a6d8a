//! The typed calls of x86.

mod clock_pairing;
mod kick_cpu;
mod map_gpa_range;
mod mmu_op;
mod sched_yield;
mod send_ipi;

pub use clock_pairing::{ClockPairing, ClockPairingData};
pub use kick_cpu::KickCpu;
pub use map_gpa_range::{GpaRange, MapGpaRange, PageSize};
pub use mmu_op::MmuOp;
pub use sched_yield::SchedYield;
pub use send_ipi::{Ipi, IpiTargets, SendIpi};

use crate::nr::HypercallNr;
use crate::raw::{Mode, RawHypercall};

/// An x86 hypercall, typed. Made by [`RawHypercall::decode`].
///
/// The fields of the calls are the registers as they count in the caller's
/// mode; what they mean is behind their methods.
///
/// ```
/// use hypercall_abi::{Hypercall, HypercallNr, KickCpu, Mode};
///
/// let call = Hypercall::KickCpu(KickCpu::new(3));
/// assert_eq!(call.nr(), HypercallNr::KICK_CPU);
/// let raw = call.encode(Mode::Bits64, 0);
/// assert_eq!((raw.nr, raw.args), (5, [0, 3, 0, 0]));
/// assert_eq!(raw.decode(), call);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Hypercall {
    /// `KVM_HC_VAPIC_POLL_IRQ`: the exit is the effect.
    VapicPollIrq,
    /// `KVM_HC_MMU_OP`: deprecated, KVM has no code for it.
    MmuOp(MmuOp),
    /// `KVM_HC_KICK_CPU`: wake a vCPU from HLT.
    KickCpu(KickCpu),
    /// `KVM_HC_CLOCK_PAIRING`: the host's clock and the guest's TSC of one
    /// instant.
    ClockPairing(ClockPairing),
    /// `KVM_HC_SEND_IPI`: one interrupt to many vCPUs.
    SendIpi(SendIpi),
    /// `KVM_HC_SCHED_YIELD`: let that vCPU run in this one's place.
    SchedYield(SchedYield),
    /// `KVM_HC_MAP_GPA_RANGE`: attributes of guest memory.
    MapGpaRange(MapGpaRange),
    /// A number that no call of the table has on x86.
    Unknown {
        /// The number, truncated to the mode.
        nr: HypercallNr,
        /// The arguments, truncated to the mode.
        args: [u64; 4],
    },
}

impl Hypercall {
    /// The number of this call.
    #[inline]
    #[must_use]
    pub const fn nr(&self) -> HypercallNr {
        match self {
            Self::VapicPollIrq => HypercallNr::VAPIC_POLL_IRQ,
            Self::MmuOp(_) => HypercallNr::MMU_OP,
            Self::KickCpu(_) => HypercallNr::KICK_CPU,
            Self::ClockPairing(_) => HypercallNr::CLOCK_PAIRING,
            Self::SendIpi(_) => HypercallNr::SEND_IPI,
            Self::SchedYield(_) => HypercallNr::SCHED_YIELD,
            Self::MapGpaRange(_) => HypercallNr::MAP_GPA_RANGE,
            Self::Unknown { nr, .. } => *nr,
        }
    }

    /// The registers that ask for this call; the inverse of
    /// [`RawHypercall::decode`]. Registers that the call does not use are 0.
    ///
    /// In [`Mode::Bits32`] the upper halves of the fields do not survive the
    /// way back, as they do not in a guest.
    #[inline]
    #[must_use]
    pub const fn encode(&self, mode: Mode, cpl: u8) -> RawHypercall {
        let args = match *self {
            Self::VapicPollIrq => [0; 4],
            Self::MmuOp(MmuOp { args }) | Self::Unknown { args, .. } => args,
            Self::KickCpu(KickCpu { flags, apic_id }) => [flags, apic_id, 0, 0],
            Self::ClockPairing(ClockPairing { gpa, clock_type }) => [gpa, clock_type, 0, 0],
            Self::SendIpi(SendIpi {
                bitmap: [low, high],
                first_apic_id,
                icr,
                mode: _,
            }) => [low, high, first_apic_id, icr],
            Self::SchedYield(SchedYield { apic_id }) => [apic_id, 0, 0, 0],
            Self::MapGpaRange(MapGpaRange {
                gpa,
                pages,
                attributes,
            }) => [gpa, pages, attributes, 0],
        };
        RawHypercall {
            nr: self.nr().0,
            args,
            mode,
            cpl,
        }
    }
}
