//! A vCPU of KVM as values: out of one, and into another.
//!
//! All that KVM gives of a vCPU, in the order in which it takes it. What it does
//! not give is a kick that waits for a running vCPU (`pv_unhalted`):
//! KVM_GET_MP_STATE says RUNNABLE with it and without.

#![expect(
    unsafe_code,
    reason = "KVM_SET_XSAVE reads as much as the guest's features take"
)]

use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, KVM_MP_STATE_RUNNABLE, Msrs, kvm_cpuid_entry2, kvm_debugregs,
    kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
    kvm_xsave,
};
use kvm_ioctls::VcpuFd;
use serde::{Deserialize, Serialize};

use super::backend_error::{BackendError, ioctl};

/// KVM takes fewer than 256 MSRs at a time (`MAX_IO_MSRS`).
const MSRS_AT_ONCE: usize = 128;
/// IA32_TSC_DEADLINE: a timer, which starts only in a local APIC whose mode of
/// the timer is there already.
const TSC_DEADLINE: u32 = 0x6e0;
/// Memory types: state of the guest that KVM_GET_MSR_INDEX_LIST does not name.
/// SDM volume 4, table "IA-32 Architectural MSRs".
const MEMORY_TYPES: &[u32] = &[
    0x200, 0x201, 0x202, 0x203, 0x204, 0x205, 0x206, 0x207, 0x208, 0x209, 0x20a, 0x20b, 0x20c,
    0x20d, 0x20e, 0x20f, 0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e,
    0x26f, 0x277, 0x2ff,
];

/// All of a vCPU of KVM that can be saved.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedVcpu {
    cpuid: Vec<kvm_cpuid_entry2>,
    /// Ticks of its TSC in a millisecond, if KVM knows them.
    tsc_khz: Option<u32>,
    mp_state: kvm_mp_state,
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: Box<kvm_xsave>,
    xcrs: kvm_xcrs,
    debug: kvm_debugregs,
    /// KVM's local APIC, if there is one.
    lapic: Option<Box<kvm_lapic_state>>,
    msrs: Vec<(u32, u64)>,
    events: kvm_vcpu_events,
}

impl SavedVcpu {
    /// The state of `vcpu`, which does not run, with these MSRs.
    pub(super) fn of(vcpu: &VcpuFd, msrs: &[u32]) -> Result<Self, BackendError> {
        /// EFER.SVME and CR4.VMXE.
        const SVME: u64 = 1 << 12;
        const VMXE: u64 = 1 << 13;
        // First: KVM does what INIT and SIPI ask for when it is asked for this.
        let mp_state = vcpu.get_mp_state().map_err(ioctl("KVM_GET_MP_STATE"))?;
        let sregs = vcpu.get_sregs().map_err(ioctl("KVM_GET_SREGS"))?;
        if sregs.efer & SVME != 0 || sregs.cr4 & VMXE != 0 {
            return Err(BackendError::Nested);
        }
        Ok(Self {
            mp_state,
            cpuid: (vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES))
                .map_err(ioctl("KVM_GET_CPUID2"))?
                .as_slice()
                .to_vec(),
            tsc_khz: vcpu.get_tsc_khz().ok().filter(|&khz| khz != 0),
            regs: vcpu.get_regs().map_err(ioctl("KVM_GET_REGS"))?,
            sregs,
            // 4 KiB are enough: what has more room (AMX) a guest gets only if its
            // VMM has asked for it by arch_prctl.
            xsave: Box::new(vcpu.get_xsave().map_err(ioctl("KVM_GET_XSAVE"))?),
            xcrs: vcpu.get_xcrs().map_err(ioctl("KVM_GET_XCRS"))?,
            debug: vcpu.get_debug_regs().map_err(ioctl("KVM_GET_DEBUGREGS"))?,
            // It fails exactly where KVM has no interrupt controllers.
            lapic: vcpu.get_lapic().ok().map(Box::new),
            msrs: read_msrs(vcpu, msrs)?,
            events: vcpu
                .get_vcpu_events()
                .map_err(ioctl("KVM_GET_VCPU_EVENTS"))?,
        })
    }

    /// Puts it into `vcpu`, which has not run yet.
    pub(super) fn put_into(&self, vcpu: &VcpuFd) -> Result<(), BackendError> {
        let too_many = |what, count| BackendError::TooMany { what, count };
        let cpuid = CpuId::from_entries(&self.cpuid)
            .map_err(|_| too_many("guest CPUID", self.cpuid.len()))?;
        vcpu.set_cpuid2(&cpuid).map_err(ioctl("KVM_SET_CPUID2"))?;
        self.set_tsc_rate(vcpu)?;
        vcpu.set_mp_state(self.mp_state)
            .map_err(ioctl("KVM_SET_MP_STATE"))?;
        vcpu.set_regs(&self.regs).map_err(ioctl("KVM_SET_REGS"))?;
        vcpu.set_sregs(&self.sregs)
            .map_err(ioctl("KVM_SET_SREGS"))?;
        // SAFETY: KVM reads 4 KiB, which the structure has, unless this process
        // has been permitted larger features by arch_prctl, which it never asks.
        unsafe { vcpu.set_xsave(&self.xsave) }.map_err(ioctl("KVM_SET_XSAVE"))?;
        vcpu.set_xcrs(&self.xcrs).map_err(ioctl("KVM_SET_XCRS"))?;
        vcpu.set_debug_regs(&self.debug)
            .map_err(ioctl("KVM_SET_DEBUGREGS"))?;
        if let Some(lapic) = &self.lapic {
            vcpu.set_lapic(lapic).map_err(ioctl("KVM_SET_LAPIC"))?;
        }
        write_msrs(vcpu, &self.msrs)?;
        vcpu.set_vcpu_events(&self.events)
            .map_err(ioctl("KVM_SET_VCPU_EVENTS"))?;
        // So that its watchdogs do not take the time between for a lock-up. It fails
        // exactly for a guest that has no kvmclock.
        let _ = vcpu.kvmclock_ctrl();
        Ok(())
    }

    fn set_tsc_rate(&self, vcpu: &VcpuFd) -> Result<(), BackendError> {
        let here = vcpu.get_tsc_khz().unwrap_or(0);
        match self.tsc_khz {
            Some(saved) if saved != here => {
                (vcpu.set_tsc_khz(saved)).map_err(|_| BackendError::TscRate { saved, here })
            }
            _ => Ok(()),
        }
    }

    /// What its guest saw by CPUID.
    pub fn cpuid(&self) -> &[kvm_cpuid_entry2] {
        &self.cpuid
    }

    /// It was not halted in KVM, nor did it wait for a SIPI: a kick may have
    /// waited for it there.
    pub fn ran(&self) -> bool {
        self.mp_state.mp_state == KVM_MP_STATE_RUNNABLE
    }

    /// Its general registers.
    pub fn regs(&self) -> &kvm_regs {
        &self.regs
    }

    /// An NMI waits for it.
    pub(super) fn has_nmi(&self) -> bool {
        self.events.nmi.pending != 0
    }

    pub(super) fn cr8(&self) -> u64 {
        self.sregs.cr8
    }
}

/// The values of those of `msrs` that the vCPU has, and of the memory types.
fn read_msrs(vcpu: &VcpuFd, msrs: &[u32]) -> Result<Vec<(u32, u64)>, BackendError> {
    let extra = MEMORY_TYPES.iter().filter(|index| !msrs.contains(index));
    let wanted: Vec<kvm_msr_entry> = msrs.iter().chain(extra).copied().map(entry).collect();
    let mut values = Vec::with_capacity(wanted.len());
    let mut rest = wanted.as_slice();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(MSRS_AT_ONCE));
        let mut list = list(now)?;
        let read = vcpu.get_msrs(&mut list).map_err(ioctl("KVM_GET_MSRS"))?;
        let got = list.as_slice().iter().take(read);
        values.extend(got.map(|entry| (entry.index, entry.data)));
        // KVM stops at the first that this vCPU does not have.
        rest = match read < now.len() {
            true => rest.get(read + 1..).unwrap_or_default(),
            false => later,
        };
    }
    Ok(values)
}

/// Writes saved values: the timer's deadline last.
fn write_msrs(vcpu: &VcpuFd, values: &[(u32, u64)]) -> Result<(), BackendError> {
    let is_timer = |&&(index, _): &&(u32, u64)| index == TSC_DEADLINE;
    let (timer, others): (Vec<_>, Vec<_>) = values.iter().partition(is_timer);
    let entries: Vec<kvm_msr_entry> = others.into_iter().chain(timer).map(with_value).collect();
    let mut rest = entries.as_slice();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(MSRS_AT_ONCE));
        let written = vcpu.set_msrs(&list(now)?).map_err(ioctl("KVM_SET_MSRS"))?;
        rest = match now.get(written) {
            None => later,
            Some(refused) => {
                check_refused(vcpu, refused)?;
                rest.get(written + 1..).unwrap_or_default()
            }
        };
    }
    Ok(())
}

/// A value that KVM does not take is no loss if the vCPU has it already, or if it
/// is the 0 of an MSR that this KVM does not know.
fn check_refused(vcpu: &VcpuFd, refused: &kvm_msr_entry) -> Result<(), BackendError> {
    let (index, value) = (refused.index, refused.data);
    let mut one = list(&[entry(index)])?;
    let read = vcpu.get_msrs(&mut one).map_err(ioctl("KVM_GET_MSRS"))?;
    let here = one.as_slice().first().filter(|_| read == 1);
    if here.map_or(0, |entry| entry.data) == value {
        return Ok(());
    }
    Err(BackendError::Msr { index, value })
}

fn entry(index: u32) -> kvm_msr_entry {
    with_value(&(index, 0))
}

fn with_value(&(index, data): &(u32, u64)) -> kvm_msr_entry {
    kvm_msr_entry {
        index,
        data,
        ..Default::default()
    }
}

fn list(entries: &[kvm_msr_entry]) -> Result<Msrs, BackendError> {
    Msrs::from_entries(entries).map_err(|_| BackendError::TooMany {
        what: "MSRs",
        count: entries.len(),
    })
}
