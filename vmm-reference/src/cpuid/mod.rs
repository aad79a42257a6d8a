//! The CPUID a guest sees: the only file that edits it.

mod apic;
mod topology;

use cpuid_features::kvm::{read, verify, write};
use cpuid_features::{
    Bit, Exclusion, HaltService, KickService, KvmFeatures, NegotiateError, Negotiated, Selection,
    VmmSupport, negotiate,
};
use kvm_bindings::CpuId;
use kvm_ioctls::Kvm;

use crate::halt_mode::HaltMode;
use crate::transport::{HaltKick, Transport};

pub use apic::{ApicFeatures, physical_address_bits};

const LEAF_BASIC: u32 = 0x1;
const LEAF_TOPOLOGY: u32 = 0xb;
const LEAF_TOPOLOGY_V2: u32 = 0x1f;

/// Why no CPUID could be made for the guest.
#[derive(Debug, thiserror::Error)]
pub enum CpuidError {
    /// KVM_GET_SUPPORTED_CPUID.
    #[error("KVM_GET_SUPPORTED_CPUID: {0}")]
    Supported(vmm_sys_util::errno::Error),
    /// A feature that was asked for can't be had.
    #[error("{0}")]
    Negotiate(NegotiateError),
    /// More entries than KVM takes.
    #[error("guest CPUID: {0} entries are more than KVM takes")]
    TooMany(usize),
    /// The leaf could not be written.
    #[error("guest CPUID: {0}")]
    Write(cpuid_features::kvm::WriteError),
    /// KVM changed what it was given.
    #[error("guest CPUID as KVM keeps it: {0}")]
    NotKept(cpuid_features::kvm::Verified),
}

/// What this VMM does for a guest of `vcpus` vCPUs that halt and are kicked like
/// this, as far as its features depend on it; and whether it serves steal time, which
/// KVM does not under the Xen intercept.
pub fn support(halt_kick: HaltKick, vcpus: u32, own_steal_time: bool) -> VmmSupport {
    // A kick that comes to this process is served here, whatever KVM reports;
    // where KVM halts the vCPUs it is passed on to KVM.
    let (kicks, mut implements) = match halt_kick.kicks_come_here() {
        true => (KickService::Userspace, KvmFeatures::PV_UNHALT),
        false => (KickService::Kernel, KvmFeatures::empty()),
    };
    if own_steal_time {
        implements |= KvmFeatures::STEAL_TIME | KvmFeatures::PV_SCHED_YIELD;
    }
    VmmSupport {
        halts: match halt_kick.halt {
            HaltMode::Userspace => HaltService::Userspace,
            HaltMode::Kernel => HaltService::Kernel,
        },
        kicks,
        hlt_exits: true,
        exit_hypercall: false,
        msi_ext_dest_id: false,
        migration_control: false,
        vcpus: Some(vcpus),
        implements,
        excludes: match halt_kick.transport {
            Transport::Xen if own_steal_time => &[FLUSH_OVERWRITTEN],
            Transport::Xen => &[BLIND_BY_XEN],
            Transport::Port | Transport::Kvm | Transport::Hosted => &[],
        },
    }
}

/// Steal time, and with it what needs it. In all other cases KVM serves it, for
/// vCPUs that halt in this process too: whatever is not in KVM_RUN is preempted.
const BLIND_BY_XEN: Exclusion = Exclusion {
    features: KvmFeatures::STEAL_TIME,
    why: "with the Xen intercept KVM keeps Xen's records of a vCPU's states in its place",
    source: "record_steal_time and kvm_arch_vcpu_put in arch/x86/kvm/x86.c",
};

/// What a guest asks for in its steal time area, where that is served here.
const FLUSH_OVERWRITTEN: Exclusion = Exclusion {
    features: KvmFeatures::PV_TLB_FLUSH,
    why: "with the Xen intercept KVM writes a vCPU's state over a flush that is asked for",
    source: "kvm_xen_update_runstate_guest in arch/x86/kvm/xen.c",
};

/// KVM's CPUID for this host, and the paravirtual features in it.
pub fn supported(kvm: &Kvm) -> Result<(CpuId, KvmFeatures), CpuidError> {
    let cpuid = kvm
        .get_supported_cpuid(kvm_bindings::KVM_MAX_CPUID_ENTRIES)
        .map_err(CpuidError::Supported)?;
    let features = read(&cpuid).map_or(KvmFeatures::empty(), |leaf| leaf.features);
    Ok((cpuid, features))
}

/// What the guest is offered of `host`'s features.
pub fn offer(
    host: KvmFeatures,
    support: &VmmSupport,
    want: &Selection,
) -> Result<Negotiated, CpuidError> {
    negotiate(host, support, want).map_err(CpuidError::Negotiate)
}

/// The CPUID of the vCPU with `apic_id`, of a guest with this local APIC.
pub fn for_vcpu(
    host: &CpuId,
    offered: &Negotiated,
    apic_id: u32,
    apic: ApicFeatures,
) -> Result<CpuId, CpuidError> {
    let mut cpuid = host.clone();
    apic.describe(cpuid.as_mut_slice());
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            // EBX 31:24 is the initial APIC ID: 8 bits are all it has.
            LEAF_BASIC => entry.ebx = (entry.ebx & 0x00ff_ffff) | (apic_id << 24),
            // EDX is the x2APIC ID, in every subleaf.
            LEAF_TOPOLOGY | LEAF_TOPOLOGY_V2 => entry.edx = apic_id,
            _ => {}
        }
    }
    write(&mut cpuid, offered).map_err(CpuidError::Write)?;
    Ok(cpuid)
}

/// The CPUID of the vCPU with `apic_id` of a guest that believes what it reads
/// about its `vcpus` processors and its local APIC.
pub fn for_smp_vcpu(
    host: &CpuId,
    offered: &Negotiated,
    apic_id: u32,
    vcpus: u32,
    apic: ApicFeatures,
) -> Result<CpuId, CpuidError> {
    let mut entries = host.as_slice().to_vec();
    topology::describe(&mut entries, apic_id, vcpus);
    apic.describe(&mut entries);
    let mut cpuid =
        CpuId::from_entries(&entries).map_err(|_| CpuidError::TooMany(entries.len()))?;
    write(&mut cpuid, offered).map_err(CpuidError::Write)?;
    Ok(cpuid)
}

/// What `--pv` changed, one sentence a bit: the bits that `want` names, and those
/// whose decision is another one than without it.
pub fn effects(negotiated: &Negotiated, want: &Selection, without: &Negotiated) -> Vec<String> {
    let named = |bit: Bit| match bit {
        Bit::Feature(bit) => (want.on | want.off).contains(bit),
        Bit::Hint(bit) => (want.hints_on | want.hints_off).contains(bit),
    };
    let decisions = negotiated.decisions().iter();
    decisions
        .filter(|decision| named(decision.bit) || !without.decisions().contains(decision))
        .map(ToString::to_string)
        .collect()
}

/// Whether the vCPU got what its guest was offered: KVM_SET_CPUID2 succeeds and
/// clears bits all the same.
pub fn check_kept(offered: &Negotiated, kept: &CpuId) -> Result<(), CpuidError> {
    let verified = verify(offered, kept);
    if verified.is_exact() {
        Ok(())
    } else {
        Err(CpuidError::NotKept(verified))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_steal_time_where_kvm_keeps_xen_s_records_of_states() {
        let host = KvmFeatures::STEAL_TIME | KvmFeatures::PV_TLB_FLUSH;
        for halt in [HaltMode::Userspace, HaltMode::Kernel] {
            let offered = |transport| {
                let support = support(HaltKick { halt, transport }, 2, false);
                offer(host, &support, &Selection::default()).unwrap()
            };
            let by_xen = offered(Transport::Xen);
            assert!(!by_xen.features.intersects(host));
            let why = by_xen.reason(KvmFeatures::STEAL_TIME).unwrap().to_string();
            assert!(why.contains("the Xen intercept"), "{why}");
            assert!(offered(Transport::Kvm).features.contains(host));
        }
    }

    #[test]
    fn steal_time_of_ours_without_flushes() {
        let halt_kick = HaltKick {
            halt: HaltMode::Userspace,
            transport: Transport::Xen,
        };
        let host = KvmFeatures::STEAL_TIME | KvmFeatures::PV_TLB_FLUSH;
        let ours = support(halt_kick, 2, true);
        let offered = offer(host, &ours, &Selection::default()).unwrap();
        let served = KvmFeatures::STEAL_TIME | KvmFeatures::PV_SCHED_YIELD;
        assert!(offered.features.contains(served));
        let flush = offered.reason(KvmFeatures::PV_TLB_FLUSH).unwrap();
        assert!(flush.to_string().contains("over a flush"), "{flush}");
    }
}
