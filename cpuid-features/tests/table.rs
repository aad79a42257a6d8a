//! The table agrees with the flags, with its own rules and with the lists of
//! what KVM reports.

use std::collections::HashSet;

use cpuid_features::{
    Arch, FEATURES, HINTS, KvmFeatures, KvmHints, LOONGARCH_FEATURES, POWERPC_FEATURES, Provider,
    msr,
};

#[test]
fn every_named_flag_has_one_row_in_order() {
    let flags: Vec<u32> = KvmFeatures::all()
        .iter_names()
        .map(|(_, flag)| flag.bits())
        .collect();
    let rows: Vec<u32> = FEATURES.iter().map(|row| 1 << row.bit).collect();
    assert_eq!(rows, flags);
    let hints: Vec<u32> = KvmHints::all()
        .iter_names()
        .map(|(_, hint)| hint.bits())
        .collect();
    assert_eq!(
        HINTS.iter().map(|row| 1 << row.bit).collect::<Vec<u32>>(),
        hints
    );
}

/// The names that users type can be worked out from the header.
#[test]
fn names_are_the_kernels() {
    let typed = |kernel_name: &str, prefix: &str| {
        kernel_name
            .strip_prefix(prefix)
            .unwrap()
            .to_lowercase()
            .replace('_', "-")
    };
    for row in (FEATURES.iter())
        .chain(LOONGARCH_FEATURES)
        .chain(POWERPC_FEATURES)
    {
        assert_eq!(row.name, typed(row.kernel_name, "KVM_FEATURE_"));
    }
    for row in HINTS {
        assert_eq!(row.name, typed(row.kernel_name, "KVM_HINTS_"));
    }
}

#[test]
fn every_name_finds_its_bit() {
    for row in FEATURES {
        assert_eq!(KvmFeatures::by_name(row.name), Some(row.features()));
        assert_eq!(KvmFeatures::by_name(row.kernel_name), Some(row.features()));
        assert_eq!(row.features().to_string(), row.name);
        assert_eq!(row.features().row(), Some(row));
        if let Some(qemu) = row.qemu {
            assert!(KvmFeatures::by_name(qemu).unwrap().contains(row.features()));
        }
    }
    for row in HINTS {
        assert_eq!(KvmHints::by_name(row.name), Some(row.hints()));
        assert_eq!(KvmHints::by_name(row.kernel_name), Some(row.hints()));
        assert_eq!(KvmHints::by_name(row.qemu.unwrap()), Some(row.hints()));
    }
    // QEMU's property stands for both clocks.
    assert_eq!(
        KvmFeatures::by_name("kvmclock"),
        Some(KvmFeatures::CLOCKSOURCE | KvmFeatures::CLOCKSOURCE2)
    );
    for wrong in [
        "",
        "pv",
        "PV_UNHALT",
        "bit32",
        "bit",
        "bit+7",
        "bit-1",
        "hint0",
    ] {
        assert_eq!(KvmFeatures::by_name(wrong), None, "{wrong}");
    }
    for wrong in ["", "hint32", "hint", "hint 1", "bit0"] {
        assert_eq!(KvmHints::by_name(wrong), None, "{wrong}");
    }
}

#[test]
fn the_rfcs_bit_is_pv_eoi_today() {
    assert_eq!(
        KvmFeatures::by_name("bit6"),
        Some(KvmFeatures::PV_EOI),
        "RFC V8 17/17 documented PV_UNHALT as 6"
    );
    assert_eq!(KvmFeatures::by_name("bit7"), Some(KvmFeatures::PV_UNHALT));
}

/// KVM's mask in `arch/x86/kvm/cpuid.c`, which a live host reported as
/// 0x01007efb.
#[test]
fn kvm_provides_what_it_reports() {
    let provided = FEATURES
        .iter()
        .filter(|row| row.provider == Provider::Kvm)
        .fold(KvmFeatures::empty(), |set, row| set | row.features());
    assert_eq!(provided.bits(), 0x0100_7efb);
}

#[test]
fn rows_are_whole() {
    let mut names = HashSet::new();
    for row in FEATURES {
        assert_eq!(row.arch, Arch::X86);
        assert!(names.insert(row.name), "{} twice", row.name);
        assert!(!row.purpose.is_empty(), "{}", row.name);
        assert!(!row.needs.contains(row.features()), "{}", row.name);
        for msr in row.msrs {
            assert!(msr::ALL.contains(msr), "{}", row.name);
        }
    }
    for row in LOONGARCH_FEATURES {
        assert_eq!(row.arch, Arch::LoongArch);
        // "BIT 24 - 31 are features configurable by user space vmm"
        assert_eq!(
            row.bit >= 24,
            matches!(row.provider, Provider::Userspace(_)),
            "{}",
            row.name
        );
        assert!(row.features().is_empty());
    }
    for msr in msr::ALL {
        assert!(
            FEATURES.iter().any(|row| row.msrs.contains(msr)),
            "no feature uses {}",
            msr.kernel_name
        );
    }
}

#[test]
fn sets_print_by_name_and_keep_unknown_bits() {
    let set = KvmFeatures::from_bits_retain(1 << 7 | 1 << 8 | 1 << 31);
    assert_eq!(set.to_string(), "pv-unhalt,bit8,bit31");
    assert_eq!(set.bits(), 1 << 7 | 1 << 8 | 1 << 31);
    assert_eq!(KvmFeatures::empty().to_string(), "");
    let hints = KvmHints::from_bits_retain(1 | 1 << 4);
    assert_eq!(hints.to_string(), "realtime,hint4");
    assert_eq!(set.singles().len(), 3);
    // all() is every bit, so that `!` loses none.
    assert_eq!(KvmFeatures::all().bits(), u32::MAX);
}
