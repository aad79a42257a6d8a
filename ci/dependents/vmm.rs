//! What a VMM takes from the crates, as its own code: features by name onto the
//! vCPU and verified, and hypercalls out of a stopped vCPU's registers. Built
//! with the oldest and with the newest kvm-bindings.

use cpuid_features::{
    HaltService, KickService, KvmFeatures, Selection, VmmSupport, kvm, negotiate,
};
use hypercall_abi::{
    Enforcement, HypercallHandler, HypercallResult, KickCpu, RawHypercall, dispatch, write_result,
};
use kvm_bindings::{CpuId, kvm_cpuid_entry2, kvm_regs, kvm_sregs};

// ANCHOR: features
/// Puts what the user wants into the table that goes to `KVM_SET_CPUID2`.
///
/// # Errors
/// One line: what cannot be had, or that the table is full.
pub fn set_features(cpuid: &mut CpuId, want: &str, vcpus: u32) -> Result<KvmFeatures, String> {
    let want: Selection = want.parse().map_err(|error| format!("--pv: {error}"))?;
    let vmm = VmmSupport {
        halts: HaltService::Kernel,
        kicks: KickService::Kernel,
        hlt_exits: true,
        vcpus: Some(vcpus),
        ..VmmSupport::default()
    };
    let host = kvm::read(cpuid).map_or(KvmFeatures::empty(), |leaf| leaf.features);
    let negotiated = negotiate(host, &vmm, &want).map_err(|error| error.to_string())?;
    kvm::write(cpuid, &negotiated).map_err(|error| error.to_string())?;
    let verified = kvm::verify(&negotiated, cpuid);
    if verified.is_exact() {
        Ok(negotiated.features)
    } else {
        Err(verified.to_string())
    }
}
// ANCHOR_END: features

// ANCHOR: hypercalls
/// Who was kicked.
#[derive(Debug, Default)]
pub struct Kicks(pub Vec<u32>);

impl HypercallHandler for Kicks {
    fn kick_cpu(&mut self, call: KickCpu) -> HypercallResult {
        self.0.push(call.destination());
        Ok(0)
    }
}

/// Serves the hypercall that the registers of a stopped vCPU hold.
pub fn serve(kicks: &mut Kicks, regs: &mut kvm_regs, sregs: &kvm_sregs) {
    let call = RawHypercall::from_vcpu(regs, sregs);
    write_result(regs, dispatch(&call, Enforcement::NotEnforced, kicks));
}
// ANCHOR_END: hypercalls

/// A host's report, as `KVM_GET_SUPPORTED_CPUID` gives it.
///
/// # Errors
/// kvm-bindings'.
pub fn host() -> Result<CpuId, String> {
    let entry = |function, eax, [ebx, ecx, edx]: [u32; 3]| kvm_cpuid_entry2 {
        function,
        eax,
        ebx,
        ecx,
        edx,
        ..Default::default()
    };
    let signature = cpuid_features::KVM_SIGNATURE_WORDS;
    CpuId::from_entries(&[
        entry(0x4000_0000, 0x4000_0001, signature),
        entry(0x4000_0001, 0x0100_7efb, [0; 3]),
    ])
    .map_err(|error| format!("{error:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_set_and_verified() {
        let mut cpuid = host().unwrap();
        let set = set_features(&mut cpuid, "+pv-unhalt:-steal-time", 2).unwrap();
        assert!(set.contains(KvmFeatures::PV_UNHALT) && !set.contains(KvmFeatures::STEAL_TIME));
        let refused = set_features(&mut host().unwrap(), "+msi-ext-dest-id", 2).unwrap_err();
        assert!(
            refused.starts_with("msi-ext-dest-id cannot be had"),
            "{refused}"
        );
    }

    #[test]
    fn a_kick_comes_out_of_registers() {
        let mut sregs = kvm_sregs {
            cr0: 1,
            efer: 1 << 10,
            ..Default::default()
        };
        sregs.cs.l = 1;
        let mut regs = kvm_regs {
            rax: 5,
            rcx: 3,
            ..Default::default()
        };
        let mut kicks = Kicks::default();
        serve(&mut kicks, &mut regs, &sregs);
        assert_eq!((regs.rax, &kicks.0[..]), (0, &[3][..]));
        // User space of the guest may not call.
        sregs.ss.dpl = 3;
        regs.rax = 5;
        serve(&mut kicks, &mut regs, &sregs);
        assert_eq!(regs.rax, u64::MAX);
    }
}
