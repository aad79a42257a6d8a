//! What comes out on named hosts: the words that Firecracker's CPU fingerprints
//! hold for them (facts, from its public repository's
//! `tests/data/cpu_template_helper`), and KVM's reports in `tests/dumps`.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking")]

use cpuid_features::{
    HaltService, KickService, KvmFeatures, KvmHints, KvmLeaf, Negotiated, Profile, Reason,
    Selection, VmmSupport, migratable, negotiate, offer,
};

struct Host {
    name: &'static str,
    /// eax of leaf 0x40000001.
    eax: u32,
    /// Its features by name, worked out by hand.
    features: &'static str,
}

const OF_5_10: &str = "clocksource,nop-io-delay,clocksource2,async-pf,steal-time,pv-eoi,pv-unhalt,\
                       pv-tlb-flush,async-pf-vmexit,pv-send-ipi,poll-control,pv-sched-yield,\
                       async-pf-int,clocksource-stable-bit";

const HOSTS: [Host; 4] = [
    Host {
        name: "AMD Milan, Linux 4.14",
        eax: 0x0100_04fb,
        features: "clocksource,nop-io-delay,clocksource2,async-pf,steal-time,pv-eoi,pv-unhalt,\
                   async-pf-vmexit,clocksource-stable-bit",
    },
    Host {
        name: "Intel Cascade Lake, Linux 5.10",
        eax: 0x0100_7efb,
        features: OF_5_10,
    },
    Host {
        name: "Intel Ice Lake, Linux 6.1",
        eax: 0x0100_7efb,
        features: OF_5_10,
    },
    Host {
        name: "AMD Milan, Linux 6.18",
        eax: 0x0100_7efb,
        features: OF_5_10,
    },
];

impl Host {
    fn features(&self) -> KvmFeatures {
        KvmFeatures::from_bits_retain(self.eax)
    }
}

/// In-kernel irqchip, as Firecracker's.
const KERNEL: VmmSupport = VmmSupport {
    halts: HaltService::Kernel,
    kicks: KickService::Kernel,
    hlt_exits: true,
    exit_hypercall: false,
    msi_ext_dest_id: false,
    migration_control: false,
    vcpus: Some(2),
    implements: KvmFeatures::empty(),
    excludes: &[],
};

fn names(negotiated: &Negotiated) -> String {
    negotiated.features.to_string()
}

fn shown(negotiated: &Negotiated) -> KvmLeaf {
    KvmLeaf::read(&|leaf| negotiated.leaves().get(leaf)).unwrap()
}

#[test]
fn hosts_decode() {
    for host in &HOSTS {
        assert_eq!(host.features().to_string(), host.features, "{}", host.name);
    }
}

/// An ordinary guest is offered what KVM reports; on 4.14 all but asynchronous
/// page faults, which guests of today use with an interrupt only.
#[test]
fn hosts_offer() {
    let [old, new @ ..] = &HOSTS;
    for host in new {
        assert_eq!(
            names(&offer(host.features(), &KERNEL)),
            host.features,
            "{}",
            host.name
        );
    }
    let offered = offer(old.features(), &KERNEL);
    let expected = "clocksource,nop-io-delay,clocksource2,steal-time,pv-eoi,pv-unhalt,\
                    clocksource-stable-bit";
    assert_eq!(names(&offered), expected);
    let why = offered.reason(KvmFeatures::ASYNC_PF).unwrap().reason;
    assert_eq!(why, Reason::Needs(KvmFeatures::ASYNC_PF_INT));
}

/// Profiles on every host, by name and by hand.
#[test]
fn confidential_guests() {
    let offered = |host: &Host, profile: Profile| {
        let vmm = VmmSupport {
            excludes: profile.exclusions(),
            ..KERNEL
        };
        names(&offer(host.features(), &vmm))
    };
    let [old, new @ ..] = &HOSTS;
    for host in new {
        let tdx = "nop-io-delay,pv-unhalt,pv-send-ipi,poll-control";
        assert_eq!(offered(host, Profile::Tdx), tdx, "{}", host.name);
        let snp = "clocksource,nop-io-delay,clocksource2,steal-time,pv-eoi,pv-unhalt,pv-send-ipi,\
                   poll-control,pv-sched-yield,clocksource-stable-bit";
        assert_eq!(offered(host, Profile::SevSnp), snp, "{}", host.name);
    }
    assert_eq!(offered(old, Profile::Tdx), "nop-io-delay,pv-unhalt");
}

/// QEMU's list for TDX has PV_TLB_FLUSH and PV_SCHED_YIELD, which rest on steal
/// time, and MSI_EXT_DEST_ID, which is the VMM's: the profile excludes nothing
/// that is on it.
#[test]
fn tdx_excludes_what_qemu_does() {
    let qemu = KvmFeatures::NOP_IO_DELAY
        | KvmFeatures::PV_UNHALT
        | KvmFeatures::PV_TLB_FLUSH
        | KvmFeatures::PV_SEND_IPI
        | KvmFeatures::POLL_CONTROL
        | KvmFeatures::PV_SCHED_YIELD
        | KvmFeatures::MSI_EXT_DEST_ID;
    let known = cpuid_features::FEATURES
        .iter()
        .fold(KvmFeatures::empty(), |set, row| set | row.features());
    let excluded = (Profile::Tdx.exclusions().iter())
        .fold(KvmFeatures::empty(), |set, one| set | one.features);
    // MMU_OP needs no exclusion: its code is gone.
    assert_eq!(known - excluded - KvmFeatures::MMU_OP, qemu);
}

/// Each exclusion says why and by what, and no feature is in two.
#[test]
fn exclusions_are_whole() {
    for profile in Profile::ALL {
        let mut seen = KvmFeatures::empty();
        for one in profile.exclusions() {
            assert!(!one.features.is_empty() && !one.features.intersects(seen));
            assert!(!one.why.is_empty() && !one.source.is_empty(), "{profile}");
            assert!(!one.why.ends_with('.') && !one.why.contains('\n'));
            seen |= one.features;
        }
    }
}

/// From each host to each other one: it is the features of the first that have
/// to be there, and a guest of 4.14 goes everywhere.
#[test]
fn migration_between_hosts() {
    for from in &HOSTS {
        for to in &HOSTS {
            let guest = shown(&offer(from.features(), &KERNEL));
            let there = offer(to.features(), &KERNEL);
            let migration = migratable(&guest, &there);
            let down = from.eax == 0x0100_7efb && to.eax == 0x0100_04fb;
            assert_eq!(
                migration.is_possible(),
                !down,
                "{} to {}",
                from.name,
                to.name
            );
            if down {
                assert_eq!(
                    migration.missing.to_string(),
                    "async-pf,pv-tlb-flush,async-pf-vmexit,pv-send-ipi,poll-control,\
                     pv-sched-yield,async-pf-int"
                );
                let reported = "this KVM does not report it and the VMM does not serve it";
                let ipi = migration
                    .obstacles()
                    .find(|one| one.bit.to_string() == "pv-send-ipi");
                assert_eq!(ipi.unwrap().reason.to_string(), reported);
            }
        }
    }
}

/// A VMM that keeps to the features of the oldest host moves guests anywhere.
#[test]
fn the_common_features_migrate_everywhere() {
    let common = HOSTS
        .iter()
        .fold(KvmFeatures::all(), |set, host| set & host.features());
    for from in &HOSTS {
        let guest = shown(&offer(from.features() & common, &KERNEL));
        for to in &HOSTS {
            assert!(migratable(&guest, &offer(to.features(), &KERNEL)).is_possible());
        }
    }
}

/// Another VMM is as good a reason as another KVM, and hints are promises.
#[test]
fn the_destination_vmm_counts() {
    let want: Selection = "+realtime".parse().unwrap();
    let there = VmmSupport {
        hlt_exits: false,
        ..KERNEL
    };
    let host = HOSTS[3].features();
    let guest = shown(&negotiate(host, &KERNEL, &want).unwrap());
    let there = offer(host, &there);
    let migration = migratable(&guest, &there);
    assert_eq!(migration.missing, KvmFeatures::PV_UNHALT);
    assert_eq!(migration.promised, KvmHints::REALTIME);
    assert_eq!(
        migration.to_string(),
        "pv-unhalt: HLT exits are disabled, so no halt can be woken and KVM clears the bit; the \
         VMM has to keep its promise realtime"
    );
}
