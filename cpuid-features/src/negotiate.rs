//! What the host has, what the VMM does and what the user wants, made into
//! the leaf the guest sees.

use core::error::Error;
use core::fmt;

use crate::bits::{KvmFeatures, KvmHints};
use crate::leaf::{CpuidRegs, KVM_CPUID_FEATURES, KVM_CPUID_SIGNATURE, KVM_SIGNATURE_WORDS};
use crate::reason::{Bit, Decision, Outcome, Reason};
use crate::select::Selection;
use crate::table::{FEATURES, Provider};

/// Who puts a vCPU that executed HLT to sleep. See [`VmmSupport`] for an
/// example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HaltService {
    /// KVM: it has the local APIC (full or split irqchip), and HLT does not
    /// leave it. Also what to say when HLT exits are disabled in such a VM.
    Kernel,
    /// The VMM: no local APIC in the kernel, HLT exits and the VMM parks the
    /// vCPU.
    Userspace,
    /// Nobody: HLT leaves the guest, and the VMM does not put the vCPU to sleep.
    #[default]
    None,
}

/// Who answers the guest's hypercalls, the kick above all. See [`VmmSupport`]
/// for an example.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KickService {
    /// KVM: the guest executes VMCALL or VMMCALL, and KVM answers without an exit to
    /// the VMM.
    Kernel,
    /// The VMM: they reach it by a port doorbell or a Xen exit.
    Userspace,
    /// Nobody: no hypercall of the guest wakes a vCPU.
    #[default]
    None,
}

/// What the VMM itself does, as far as the leaf depends on it.
///
/// The default does nothing: fill in what is true.
///
/// ```
/// use cpuid_features::{HaltService, KickService, KvmFeatures, VmmSupport, offer};
///
/// // No in-kernel irqchip: this VMM parks vCPUs and wakes them.
/// let vmm = VmmSupport {
///     halts: HaltService::Userspace,
///     kicks: KickService::Userspace,
///     hlt_exits: true,
///     implements: KvmFeatures::PV_UNHALT,
///     ..VmmSupport::default()
/// };
/// assert!(offer(KvmFeatures::empty(), &vmm).features.contains(KvmFeatures::PV_UNHALT));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VmmSupport {
    /// Who puts a halted vCPU to sleep.
    pub halts: HaltService,
    /// Who serves the kick that wakes a halted vCPU.
    pub kicks: KickService,
    /// HLT exits are on, as they are unless `KVM_CAP_X86_DISABLE_EXITS` has
    /// turned them off.
    pub hlt_exits: bool,
    /// `KVM_CAP_EXIT_HYPERCALL` is enabled for hypercall 12 and answered.
    pub exit_hypercall: bool,
    /// MSI addresses are translated with the extended destination id.
    pub msi_ext_dest_id: bool,
    /// An MSR filter is set and the migration control MSR served.
    pub migration_control: bool,
    /// vCPUs the guest may ever have; `None` where that is not known: then no
    /// decision says that a guest with one vCPU makes no use of a feature.
    pub vcpus: Option<u32>,
    /// Features the VMM serves itself whatever KVM reports.
    pub implements: KvmFeatures,
    /// Features the VMM leaves out, with its reasons, even if KVM or the VMM
    /// serves them. For confidential guests there are those of a
    /// [`Profile`](crate::Profile).
    pub excludes: &'static [Exclusion],
}

/// Features that a VMM leaves out, and why: its own, or a
/// [`Profile`](crate::Profile)'s.
///
/// ```
/// use cpuid_features::{Exclusion, KvmFeatures, Reason, VmmSupport, offer};
///
/// let vmm = VmmSupport {
///     excludes: &[Exclusion {
///         features: KvmFeatures::CLOCKSOURCE,
///         why: "its MSRs are filtered",
///         source: "this VMM's MSR filter",
///     }],
///     ..VmmSupport::default()
/// };
/// let offered = offer(KvmFeatures::CLOCKSOURCE, &vmm);
/// assert_eq!(
///     offered.reason(KvmFeatures::CLOCKSOURCE).unwrap().to_string(),
///     "clocksource dropped: the VMM leaves it out: its MSRs are filtered"
/// );
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exclusion {
    /// The features that are left out.
    pub features: KvmFeatures,
    /// Why, as the end of a sentence.
    pub why: &'static str,
    /// The source of that: a kernel file, or the name of who judged so.
    pub source: &'static str,
}

impl VmmSupport {
    /// Every feature the VMM makes work: `implements`, and those of
    /// `exit_hypercall`, `msi_ext_dest_id` and `migration_control`.
    ///
    /// ```
    /// use cpuid_features::{KvmFeatures, VmmSupport};
    ///
    /// let vmm = VmmSupport { msi_ext_dest_id: true, ..VmmSupport::default() };
    /// assert_eq!(vmm.serves(), KvmFeatures::MSI_EXT_DEST_ID);
    /// ```
    #[must_use]
    pub fn serves(&self) -> KvmFeatures {
        let mut served = self.implements;
        served.set(
            KvmFeatures::HC_MAP_GPA_RANGE,
            self.exit_hypercall || served.contains(KvmFeatures::HC_MAP_GPA_RANGE),
        );
        served.set(
            KvmFeatures::MSI_EXT_DEST_ID,
            self.msi_ext_dest_id || served.contains(KvmFeatures::MSI_EXT_DEST_ID),
        );
        served.set(
            KvmFeatures::MIGRATION_CONTROL,
            self.migration_control || served.contains(KvmFeatures::MIGRATION_CONTROL),
        );
        served
    }
}

/// The most decisions there can be: two words of 32 bits.
const MAX_DECISIONS: usize = 64;

/// What the guest is to see, and why. [`negotiate`] and [`offer`] give it, and
/// have examples.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// `eax` of the feature leaf.
    pub features: KvmFeatures,
    /// `edx` of the feature leaf.
    pub hints: KvmHints,
    decisions: [Decision; MAX_DECISIONS],
    count: usize,
}

impl Negotiated {
    /// One decision for every bit that has a row, that KVM reports or that
    /// somebody asked for: features by number, then hints.
    #[must_use]
    pub fn decisions(&self) -> &[Decision] {
        self.decisions.get(..self.count).unwrap_or_default()
    }

    /// The two leaves at the lowest base, for a VMM that sets them by itself.
    ///
    /// ```
    /// use cpuid_features::{KVM_CPUID_FEATURES, KvmFeatures, VmmSupport, offer};
    ///
    /// let offered = offer(KvmFeatures::CLOCKSOURCE2, &VmmSupport::default());
    /// let regs = offered.leaves().get(KVM_CPUID_FEATURES).unwrap();
    /// assert_eq!(regs.eax, KvmFeatures::CLOCKSOURCE2.bits());
    /// ```
    #[must_use]
    pub const fn leaves(&self) -> Leaves {
        Leaves {
            features: self.features,
            hints: self.hints,
        }
    }

    /// The decision on one feature.
    #[must_use]
    pub fn reason(&self, bit: KvmFeatures) -> Option<&Decision> {
        self.decision(Bit::Feature(bit))
    }

    /// The decision on one hint.
    ///
    /// ```
    /// use cpuid_features::{KvmFeatures, KvmHints, Outcome, VmmSupport, offer};
    ///
    /// let offered = offer(KvmFeatures::CLOCKSOURCE2, &VmmSupport::default());
    /// let realtime = offered.hint_reason(KvmHints::REALTIME).unwrap();
    /// assert_eq!(realtime.outcome, Outcome::Absent); // nobody asked for it
    /// ```
    #[must_use]
    pub fn hint_reason(&self, bit: KvmHints) -> Option<&Decision> {
        self.decision(Bit::Hint(bit))
    }

    fn decision(&self, bit: Bit) -> Option<&Decision> {
        self.decisions().iter().find(|decision| decision.bit == bit)
    }

    fn push(&mut self, decision: Decision) {
        if let Some(slot) = self.decisions.get_mut(self.count) {
            *slot = decision;
            self.count += 1;
        }
    }
}

/// The two leaves that hold what was negotiated, at the lowest base.
/// [`Negotiated::leaves`] gives it, and has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaves {
    features: KvmFeatures,
    hints: KvmHints,
}

impl Leaves {
    /// The registers of `leaf`; `None` for any other than the two. See
    /// [`Negotiated::leaves`] for an example.
    #[must_use]
    pub const fn get(&self, leaf: u32) -> Option<CpuidRegs> {
        let [ebx, ecx, edx] = KVM_SIGNATURE_WORDS;
        match leaf {
            KVM_CPUID_SIGNATURE => Some(CpuidRegs {
                eax: KVM_CPUID_FEATURES,
                ebx,
                ecx,
                edx,
            }),
            KVM_CPUID_FEATURES => Some(CpuidRegs {
                eax: self.features.bits(),
                ebx: 0,
                ecx: 0,
                edx: self.hints.bits(),
            }),
            _ => None,
        }
    }
}

/// The user asked for a bit that the guest cannot get.
///
/// ```
/// use cpuid_features::{KvmFeatures, Selection, VmmSupport, negotiate};
///
/// let want: Selection = "+pv-eoi".parse().unwrap();
/// let error = negotiate(KvmFeatures::empty(), &VmmSupport::default(), &want).unwrap_err();
/// assert_eq!(error.refused, KvmFeatures::PV_EOI);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NegotiateError {
    /// The lowest bit refused, and why.
    pub decision: Decision,
    /// All features that were asked for and cannot be had.
    pub refused: KvmFeatures,
    /// All hints that were asked for and cannot be had.
    pub refused_hints: KvmHints,
}

impl fmt::Display for NegotiateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Decision { bit, reason, .. } = self.decision;
        write!(f, "{bit} cannot be had: {reason}")?;
        let count = self.refused.bits().count_ones() + self.refused_hints.bits().count_ones();
        if count > 1 {
            write!(f, " (refused in all: {}", self.refused)?;
            if !self.refused.is_empty() && !self.refused_hints.is_empty() {
                f.write_str(",")?;
            }
            write!(f, "{})", self.refused_hints)?;
        }
        Ok(())
    }
}

impl Error for NegotiateError {}

/// Decides on every bit.
///
/// Without a word from the user the guest is offered all that KVM reports and
/// the VMM serves and that can work. A bit that cannot is dropped, with a
/// decision that says why; if the user asked for it by name, that is an error.
///
/// The result never holds more than `host` and what the VMM serves; more in
/// `host` never takes a bit away; and negotiating with the result in place of
/// `host` changes nothing.
///
/// ```
/// use cpuid_features::{KvmFeatures, Selection, VmmSupport, negotiate};
///
/// let host = KvmFeatures::CLOCKSOURCE2 | KvmFeatures::STEAL_TIME;
/// let want: Selection = "-steal-time".parse().unwrap();
/// let negotiated = negotiate(host, &VmmSupport::default(), &want).unwrap();
/// assert_eq!(negotiated.features, KvmFeatures::CLOCKSOURCE2);
/// ```
///
/// # Errors
///
/// The user's `on` has a bit that cannot be had, or that is in `off` too.
pub fn negotiate(
    host: KvmFeatures,
    vmm: &VmmSupport,
    want: &Selection,
) -> Result<Negotiated, NegotiateError> {
    let negotiated = decide(host, vmm, want);
    check_asked(&negotiated, want)?;
    Ok(negotiated)
}

/// [`negotiate`] without a selection of the user: it cannot fail.
///
/// ```
/// use cpuid_features::{KvmFeatures, VmmSupport, offer};
///
/// let offered = offer(KvmFeatures::CLOCKSOURCE2, &VmmSupport::default());
/// assert_eq!(offered.features, KvmFeatures::CLOCKSOURCE2);
/// ```
#[must_use]
pub fn offer(host: KvmFeatures, vmm: &VmmSupport) -> Negotiated {
    decide(host, vmm, &Selection::default())
}

/// Decides on every bit, whether the user gets what was asked for or not.
fn decide(host: KvmFeatures, vmm: &VmmSupport, want: &Selection) -> Negotiated {
    let served = vmm.serves();
    let verdict = |bit| feature_verdict(bit, host, served, vmm, want);
    let mut features = (host | served)
        .singles()
        .filter(|&bit| verdict(bit).is_ok())
        .fold(KvmFeatures::empty(), |set, bit| set | bit);
    // A feature that goes may take others with it; each round that changes
    // something removes at least one of 32.
    loop {
        let useless = features
            .singles()
            .filter(|&bit| !features.contains(needs(bit)))
            .fold(KvmFeatures::empty(), |set, bit| set | bit);
        if useless.is_empty() {
            break;
        }
        features -= useless;
    }
    let hints = want.hints_on - want.hints_off;

    let mut negotiated = Negotiated {
        features,
        hints,
        decisions: [Decision {
            bit: Bit::Feature(KvmFeatures::empty()),
            outcome: Outcome::Absent,
            reason: Reason::NotReported,
        }; MAX_DECISIONS],
        count: 0,
    };
    let rows = FEATURES
        .iter()
        .fold(KvmFeatures::empty(), |set, row| set | row.features());
    for bit in (rows | host | served | want.on | want.off).singles() {
        let (offered, reason) = match verdict(bit) {
            Ok(_) if !features.contains(bit) => (false, Reason::Needs(needs(bit) - features)),
            Ok(reason) => (true, unused(bit, vmm, hints).unwrap_or(reason)),
            Err(reason) => (false, reason),
        };
        let outcome = match (offered, host.contains(bit)) {
            (true, true) => Outcome::Kept,
            (true, false) => Outcome::Added,
            (false, false) if !served.contains(bit) => Outcome::Absent,
            (false, _) => Outcome::Dropped,
        };
        negotiated.push(Decision {
            bit: Bit::Feature(bit),
            outcome,
            reason,
        });
    }
    for bit in (KvmHints::REALTIME | want.hints_on | want.hints_off).singles() {
        let (outcome, reason) = if hints.contains(bit) {
            (Outcome::Added, Reason::HintAsked)
        } else if want.hints_off.contains(bit) {
            (Outcome::Absent, Reason::TurnedOff)
        } else {
            (Outcome::Absent, Reason::HintNotAsked)
        };
        negotiated.push(Decision {
            bit: Bit::Hint(bit),
            outcome,
            reason,
        });
    }
    negotiated
}

/// Whether one bit may be offered, looked at by itself.
fn feature_verdict(
    bit: KvmFeatures,
    host: KvmFeatures,
    served: KvmFeatures,
    vmm: &VmmSupport,
    want: &Selection,
) -> Result<Reason, Reason> {
    let by_vmm = served.contains(bit);
    let row = bit.row();
    match row.map(|row| row.provider) {
        Some(Provider::Userspace(duty)) if !by_vmm => return Err(Reason::NeedsVmm(duty)),
        Some(Provider::Removed) if !by_vmm => return Err(Reason::Removed),
        _ if !by_vmm && !host.contains(bit) => return Err(Reason::NotReported),
        _ => {}
    }
    if want.off.contains(bit) {
        return Err(Reason::TurnedOff);
    }
    if let Some(exclusion) = vmm.excludes.iter().find(|one| one.features.contains(bit)) {
        return Err(Reason::Excluded(exclusion));
    }
    if bit == KvmFeatures::PV_UNHALT {
        unhalt_verdict(vmm)?;
    }
    if by_vmm {
        return Ok(Reason::VmmServes);
    }
    let kernel_lapic = vmm.halts == HaltService::Kernel;
    let Some(row) = row else {
        return if kernel_lapic {
            Ok(Reason::UnknownToThisCrate)
        } else {
            Err(Reason::UnknownWithoutLapic)
        };
    };
    match row.without_lapic {
        Some(effect) if !kernel_lapic => return Err(Reason::NoKernelLapic(effect)),
        _ => {}
    }
    if !row.hypercalls.is_empty()
        && bit != KvmFeatures::PV_UNHALT
        && vmm.kicks == KickService::Userspace
    {
        return Err(Reason::HypercallNotServed);
    }
    Ok(Reason::HostReports)
}

/// PV_UNHALT promises two things: a halted vCPU sleeps, and a kick wakes it.
fn unhalt_verdict(vmm: &VmmSupport) -> Result<(), Reason> {
    if !vmm.hlt_exits {
        return Err(Reason::HltExitsDisabled);
    }
    match (vmm.halts, vmm.kicks) {
        (HaltService::None, _) => Err(Reason::NobodyHalts),
        (_, KickService::None) => Err(Reason::NobodyKicks),
        (HaltService::Userspace, KickService::Kernel) => Err(Reason::KernelKickMissesUserspaceHalt),
        (HaltService::Kernel, _) | (HaltService::Userspace, KickService::Userspace) => Ok(()),
    }
}

fn needs(bit: KvmFeatures) -> KvmFeatures {
    bit.row().map_or(KvmFeatures::empty(), |row| row.needs)
}

/// Why a guest that is offered `bit` makes no use of it.
fn unused(bit: KvmFeatures, vmm: &VmmSupport, hints: KvmHints) -> Option<Reason> {
    let row = bit.row()?;
    let against = row.conflicts & hints;
    if !against.is_empty() {
        Some(Reason::UnusedUnderHint(against))
    } else if row.guest.several_vcpus && vmm.vcpus.is_some_and(|vcpus| vcpus <= 1) {
        Some(Reason::UnusedByOneVcpu)
    } else {
        None
    }
}

/// Whether the user got all that was asked for.
fn check_asked(negotiated: &Negotiated, want: &Selection) -> Result<(), NegotiateError> {
    let refused = want.on - negotiated.features;
    let refused_hints = want.hints_on - negotiated.hints;
    let lowest = refused
        .singles()
        .next()
        .map(Bit::Feature)
        .or_else(|| refused_hints.singles().next().map(Bit::Hint));
    let Some(bit) = lowest else {
        return Ok(());
    };
    let twice = match bit {
        Bit::Feature(bit) => want.off.contains(bit),
        Bit::Hint(bit) => want.hints_off.contains(bit),
    };
    let reason = if twice {
        Reason::OnAndOff
    } else {
        negotiated
            .decision(bit)
            .map_or(Reason::NotReported, |decision| decision.reason)
    };
    Err(NegotiateError {
        decision: Decision {
            bit,
            outcome: Outcome::Refused,
            reason,
        },
        refused,
        refused_hints,
    })
}
