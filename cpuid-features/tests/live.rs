//! What KVM on this host, and this CPU, really do.
//!
//! Without `/dev/kvm` the tests that need it say so on stderr.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

use std::io::Write;

use cpuid_features::{
    CpuidReader, HaltService, KVM_CPUID_SIGNATURE, KickService, KvmFeatures, KvmHints, KvmLeaf,
    Native, Outcome, Reason, Selection, VmmSupport, kvm, negotiate,
};
use kvm_bindings::{
    CpuId, KVM_CAP_X86_DISABLE_EXITS, KVM_MAX_CPUID_ENTRIES, KVM_X86_DISABLE_EXITS_HLT,
    kvm_enable_cap,
};
use kvm_ioctls::{Kvm, VmFd};

/// What the machine these tests were written on reports.
const USUAL: u32 = 0x0100_7efb;

/// Past the test harness's capture: a test that could not run is seen.
#[expect(
    clippy::explicit_write,
    reason = "the harness captures what eprintln! writes"
)]
fn say(line: &str) {
    writeln!(std::io::stderr(), "live: {line}").unwrap();
}

/// `/dev/kvm`, or a line that says why these tests decide nothing here.
fn dev_kvm() -> Option<Kvm> {
    Kvm::new()
        .inspect_err(|error| say(&format!("NOT RUN, /dev/kvm does not open: {error}")))
        .ok()
}

fn supported(kvm: &Kvm) -> CpuId {
    kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).unwrap()
}

fn vmm(hlt_exits: bool) -> VmmSupport {
    VmmSupport {
        halts: HaltService::Kernel,
        kicks: KickService::Kernel,
        hlt_exits,
        vcpus: Some(2),
        ..VmmSupport::default()
    }
}

/// A VM with an in-kernel irqchip; `None` if HLT exits were to be disabled
/// and KVM does not let them be.
fn vm(kvm: &Kvm, hlt_exits: bool) -> Option<VmFd> {
    let vm = kvm.create_vm().unwrap();
    vm.create_irq_chip().unwrap();
    if !hlt_exits {
        let allowed = vm.check_extension_raw(KVM_CAP_X86_DISABLE_EXITS.into());
        if u32::try_from(allowed).unwrap() & KVM_X86_DISABLE_EXITS_HLT == 0 {
            say("NOT RUN, this KVM does not let HLT exits be disabled (mitigate_smt_rsb?)");
            return None;
        }
        let mut cap = kvm_enable_cap {
            cap: KVM_CAP_X86_DISABLE_EXITS,
            ..Default::default()
        };
        cap.args[0] = KVM_X86_DISABLE_EXITS_HLT.into();
        vm.enable_cap(&cap).unwrap();
    }
    Some(vm)
}

/// What a vCPU of `vm` has after it was given `cpuid`.
fn kept(vm: &VmFd, cpuid: &CpuId) -> CpuId {
    let vcpu = vm.create_vcpu(0).unwrap();
    vcpu.set_cpuid2(cpuid).unwrap();
    vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES).unwrap()
}

#[test]
fn what_kvm_reports_is_decoded() {
    let Some(kvm) = dev_kvm() else { return };
    let cpuid = supported(&kvm);
    // By hand: KVM's report always has its leaves at the lowest base.
    let eax = cpuid
        .as_slice()
        .iter()
        .find(|entry| entry.function == 0x4000_0001)
        .unwrap_or_else(|| panic!("KVM reports no feature leaf"))
        .eax;
    let leaf = kvm::read(&cpuid).unwrap();
    assert_eq!(leaf.base, KVM_CPUID_SIGNATURE);
    assert_eq!(leaf.features.bits(), eax);
    assert_eq!(leaf.hints, KvmHints::empty());
    if eax == USUAL {
        assert_eq!(
            leaf.features.to_string(),
            "clocksource,nop-io-delay,clocksource2,async-pf,steal-time,pv-eoi,pv-unhalt,\
             pv-tlb-flush,async-pf-vmexit,pv-send-ipi,poll-control,pv-sched-yield,async-pf-int,\
             clocksource-stable-bit"
        );
    } else {
        say(&format!("this KVM reports {eax:#010x}: {}", leaf.features));
    }
}

#[test]
fn what_is_written_is_kept() {
    let Some(kvm) = dev_kvm() else { return };
    let host = supported(&kvm);
    let want: Selection = "-pv-eoi,+realtime".parse().unwrap();
    let asked = negotiate(kvm::read(&host).unwrap().features, &vmm(true), &want).unwrap();
    for base in [0x4000_0000, 0x4000_0100] {
        let mut cpuid = host.clone();
        kvm::write_at(&mut cpuid, base, &asked).unwrap();
        let verified = kvm::verify(&asked, &kept(&vm(&kvm, true).unwrap(), &cpuid));
        assert!(verified.is_exact(), "{base:#x}: {verified}");
        assert_eq!(verified.leaf.unwrap().base, base);
        assert_eq!(verified.leaf.unwrap().hints, KvmHints::REALTIME);
    }
}

/// A VMM that forgets to say that HLT exits are disabled asks for PV_UNHALT;
/// KVM takes the leaf without an error, clears the bit, and verify tells.
#[test]
fn kvm_clears_pv_unhalt_when_hlt_exits_are_disabled() {
    let Some(kvm) = dev_kvm() else { return };
    let host = supported(&kvm);
    let features = kvm::read(&host).unwrap().features;
    if !features.contains(KvmFeatures::PV_UNHALT) {
        return say("NOT RUN, this KVM reports no PV_UNHALT");
    }
    let asked = negotiate(features, &vmm(true), &Selection::default()).unwrap();
    for base in [0x4000_0000, 0x4000_0100] {
        let Some(vm) = vm(&kvm, false) else { return };
        let mut cpuid = host.clone();
        kvm::write_at(&mut cpuid, base, &asked).unwrap();
        let verified = kvm::verify(&asked, &kept(&vm, &cpuid));
        assert_eq!(verified.cleared, KvmFeatures::PV_UNHALT, "{base:#x}");
        assert!(verified.extra.is_empty());
        assert_eq!(
            verified.to_string(),
            "pv-unhalt cleared: KVM clears it when the VM's HLT exits are disabled \
             (KVM_CAP_X86_DISABLE_EXITS)"
        );
        if asked.features.bits() == USUAL {
            assert_eq!(verified.leaf.unwrap().features.bits(), 0x0100_7e7b);
        }
    }
}

/// The VMM that says so is told beforehand, and KVM keeps what is left.
#[test]
fn the_negotiation_foresees_it() {
    let Some(kvm) = dev_kvm() else { return };
    let host = supported(&kvm);
    let features = kvm::read(&host).unwrap().features;
    let asked = negotiate(features, &vmm(false), &Selection::default()).unwrap();
    if features.contains(KvmFeatures::PV_UNHALT) {
        let decision = asked.reason(KvmFeatures::PV_UNHALT).unwrap();
        assert_eq!(decision.outcome, Outcome::Dropped);
        assert_eq!(decision.reason, Reason::HltExitsDisabled);
    }
    let Some(vm) = vm(&kvm, false) else { return };
    let mut cpuid = host.clone();
    kvm::write(&mut cpuid, &asked).unwrap();
    let verified = kvm::verify(&asked, &kept(&vm, &cpuid));
    assert!(verified.is_exact(), "{verified}");
}

/// The CPU's own leaves, against what the kernel made of them.
#[test]
fn the_running_cpu_is_read() {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let field = |name: &str| {
        cpuinfo
            .lines()
            .find(|line| line.starts_with(name))
            .and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim().to_owned())
            .unwrap()
    };
    let zero = Native.leaf(0).unwrap();
    let vendor: Vec<u8> = [zero.ebx, zero.edx, zero.ecx]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    assert_eq!(String::from_utf8(vendor).unwrap(), field("vendor_id"));
    let hypervisor = field("flags").split(' ').any(|flag| flag == "hypervisor");
    assert_eq!(Native.leaf(KVM_CPUID_SIGNATURE).is_some(), hypervisor);
    match KvmLeaf::read(&Native) {
        Some(leaf) => say(&format!(
            "this machine is a KVM guest, {:#010x}: {}",
            leaf.features.bits(),
            leaf.features
        )),
        None => say("this machine is no KVM guest"),
    }
}
