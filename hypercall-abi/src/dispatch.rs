//! From registers to a handler, with KVM's order of checks.

use cpuid_features::KvmFeatures;

use crate::arch::Arch;
use crate::call::{ClockPairing, Hypercall, KickCpu, MapGpaRange, MmuOp, SchedYield, SendIpi};
use crate::errno::{HypercallResult, KvmErrno, to_rax};
use crate::nr::HypercallNr;
use crate::raw::RawHypercall;
use crate::table::{Gate, TABLE};

/// Whether a call needs its CPUID bit.
///
/// KVM lets a guest call what its CPUID does not show, unless the VMM has
/// enabled `KVM_CAP_ENFORCE_PV_FEATURE_CPUID` on the vCPU (`guest_pv_has` in
/// `arch/x86/kvm/cpuid.h`).
///
/// ```
/// use cpuid_features::KvmFeatures;
/// use hypercall_abi::{Enforcement, HypercallNr};
///
/// let shown = Enforcement::Enforced(KvmFeatures::PV_UNHALT);
/// assert!(shown.admits(HypercallNr::KICK_CPU));
/// assert!(!shown.admits(HypercallNr::SEND_IPI));
/// assert!(Enforcement::NotEnforced.admits(HypercallNr::SEND_IPI));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Enforcement {
    /// Every call passes its gate: KVM's default.
    NotEnforced,
    /// A call passes if its bit is among these, the features in the guest's
    /// CPUID.
    Enforced(KvmFeatures),
}

impl Enforcement {
    /// Whether a call of this number passes its gate. Numbers without an
    /// enforced gate pass, unknown ones too. See [`Enforcement`] for an example.
    #[inline]
    #[must_use]
    pub const fn admits(&self, nr: HypercallNr) -> bool {
        match self {
            Self::NotEnforced => true,
            Self::Enforced(shown) => shown.contains(required(nr)),
        }
    }
}

/// The bits that enforcement asks for, from the table.
#[inline]
const fn required(nr: HypercallNr) -> KvmFeatures {
    /// By number, so that the look-up is one load.
    const REQUIRED: [KvmFeatures; 13] = {
        let mut required = [KvmFeatures::empty(); 13];
        let mut rest = TABLE;
        while let [row, tail @ ..] = rest {
            if let (Arch::X86, Gate::Enforced(feature)) = (row.arch, row.gate) {
                #[expect(clippy::indexing_slicing, reason = "evaluated at compile time")]
                #[expect(clippy::cast_possible_truncation, reason = "evaluated at compile time")]
                {
                    required[row.nr as usize] = feature;
                }
            }
            rest = tail;
        }
        required
    };
    if nr.0 < REQUIRED.len() as u64 {
        #[expect(
            clippy::indexing_slicing,
            reason = "below the length, by the test above"
        )]
        #[expect(
            clippy::cast_possible_truncation,
            reason = "below 13, by the test above"
        )]
        REQUIRED[nr.0 as usize]
    } else {
        KvmFeatures::empty()
    }
}

/// The call, if KVM would serve it: CPL first, then the number, then the gate
/// (`kvm_emulate_hypercall` in `arch/x86/kvm/x86.c`).
///
/// [`dispatch`] is this and a handler; use it alone where a `match` on
/// [`Hypercall`] reads better than a trait.
///
/// # Errors
/// [`KvmErrno::EPERM`] from any other CPL than 0, whatever the number;
/// [`KvmErrno::ENOSYS`] for a gate that is closed. An unknown number is not an
/// error here: it comes as [`Hypercall::Unknown`].
///
/// ```
/// use hypercall_abi::{Enforcement, Hypercall, KvmErrno, Mode, RawHypercall, admit};
///
/// let raw = RawHypercall { nr: 1, args: [0; 4], mode: Mode::Bits64, cpl: 0 };
/// assert_eq!(admit(&raw, Enforcement::NotEnforced), Ok(Hypercall::VapicPollIrq));
/// let user = RawHypercall { cpl: 3, ..raw };
/// assert_eq!(admit(&user, Enforcement::NotEnforced), Err(KvmErrno::EPERM));
/// ```
#[inline]
pub const fn admit(raw: &RawHypercall, features: Enforcement) -> Result<Hypercall, KvmErrno> {
    if raw.cpl != 0 {
        return Err(KvmErrno::EPERM);
    }
    let call = raw.decode();
    if features.admits(call.nr()) {
        Ok(call)
    } else {
        Err(KvmErrno::ENOSYS)
    }
}

/// Who serves hypercalls. Implement the calls that the VMM serves; the others
/// are answered as by a KVM without them.
///
/// Calls arrive checked for privilege and gate. Their arguments are for the
/// handler to check, by the call's `check` where it has one, as KVM does after
/// its gate.
///
/// ```
/// use hypercall_abi::{
///     Enforcement, HypercallHandler, HypercallResult, KvmErrno, Mode, RawHypercall, SchedYield,
///     dispatch, from_rax,
/// };
///
/// struct Vmm;
/// impl HypercallHandler for Vmm {
///     fn sched_yield(&mut self, _call: SchedYield) -> HypercallResult {
///         std::thread::yield_now();
///         Ok(0)
///     }
/// }
///
/// let raw = |nr| RawHypercall { nr, args: [0; 4], mode: Mode::Bits64, cpl: 0 };
/// assert_eq!(dispatch(&raw(11), Enforcement::NotEnforced, &mut Vmm), 0);
/// let kick = dispatch(&raw(5), Enforcement::NotEnforced, &mut Vmm);
/// assert_eq!(from_rax(kick, Mode::Bits64), Err(KvmErrno::ENOSYS));
/// ```
pub trait HypercallHandler {
    /// `KVM_HC_VAPIC_POLL_IRQ`. Its effect is the exit, which has happened, so
    /// that the default answers 0 as KVM does.
    ///
    /// # Errors
    /// Any code: it goes to the guest.
    fn vapic_poll_irq(&mut self) -> HypercallResult {
        Ok(0)
    }

    /// `KVM_HC_MMU_OP`.
    ///
    /// # Errors
    /// Any code: it goes to the guest. The default is `KVM_ENOSYS`.
    fn mmu_op(&mut self, _call: MmuOp) -> HypercallResult {
        Err(KvmErrno::ENOSYS)
    }

    /// `KVM_HC_KICK_CPU`. KVM answers 0, for an absent APIC ID too.
    ///
    /// # Errors
    /// Any code: it goes to the guest. The default is `KVM_ENOSYS`.
    fn kick_cpu(&mut self, _call: KickCpu) -> HypercallResult {
        Err(KvmErrno::ENOSYS)
    }

    /// `KVM_HC_CLOCK_PAIRING`. See [`ClockPairing::check`].
    ///
    /// # Errors
    /// Any code: it goes to the guest. The default is `KVM_ENOSYS`.
    fn clock_pairing(&mut self, _call: ClockPairing) -> HypercallResult {
        Err(KvmErrno::ENOSYS)
    }

    /// `KVM_HC_SEND_IPI`. See [`SendIpi::check`]. Answers how many vCPUs
    /// accepted the interrupt.
    ///
    /// # Errors
    /// Any code: it goes to the guest. The default is `KVM_ENOSYS`.
    fn send_ipi(&mut self, _call: SendIpi) -> HypercallResult {
        Err(KvmErrno::ENOSYS)
    }

    /// `KVM_HC_SCHED_YIELD`. KVM answers 0, whether it yielded or not.
    ///
    /// # Errors
    /// Any code: it goes to the guest. The default is `KVM_ENOSYS`.
    fn sched_yield(&mut self, _call: SchedYield) -> HypercallResult {
        Err(KvmErrno::ENOSYS)
    }

    /// `KVM_HC_MAP_GPA_RANGE`. See [`MapGpaRange::check`].
    ///
    /// # Errors
    /// Any code: it goes to the guest. The default is `KVM_ENOSYS`, which is
    /// KVM's answer while `KVM_CAP_EXIT_HYPERCALL` is off.
    fn map_gpa_range(&mut self, _call: MapGpaRange) -> HypercallResult {
        Err(KvmErrno::ENOSYS)
    }

    /// Any other number.
    ///
    /// # Errors
    /// Any code: it goes to the guest. The default is `KVM_ENOSYS`.
    fn unknown(&mut self, _nr: HypercallNr, _args: [u64; 4]) -> HypercallResult {
        Err(KvmErrno::ENOSYS)
    }
}

/// Serves one hypercall and gives the value for the guest's RAX.
///
/// The order of checks is KVM's: CPL, number, gate, and then the handler. See
/// [`HypercallHandler`] for an example.
#[inline]
pub fn dispatch<H: HypercallHandler + ?Sized>(
    raw: &RawHypercall,
    features: Enforcement,
    handler: &mut H,
) -> u64 {
    let result = match admit(raw, features) {
        Err(errno) => Err(errno),
        Ok(Hypercall::VapicPollIrq) => handler.vapic_poll_irq(),
        Ok(Hypercall::MmuOp(call)) => handler.mmu_op(call),
        Ok(Hypercall::KickCpu(call)) => handler.kick_cpu(call),
        Ok(Hypercall::ClockPairing(call)) => handler.clock_pairing(call),
        Ok(Hypercall::SendIpi(call)) => handler.send_ipi(call),
        Ok(Hypercall::SchedYield(call)) => handler.sched_yield(call),
        Ok(Hypercall::MapGpaRange(call)) => handler.map_gpa_range(call),
        Ok(Hypercall::Unknown { nr, args }) => handler.unknown(nr, args),
    };
    to_rax(result, raw.mode)
}
