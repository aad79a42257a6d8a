use proptest::prelude::*;

use super::*;

/// What KVM wrote; `tests/data/README.md` says which.
const VCPUS: [(&str, &[u8]); 3] = [
    (
        "6.1",
        include_bytes!("../../tests/data/kvm-stats-vcpu-6.1-svm.bin"),
    ),
    (
        "6.12",
        include_bytes!("../../tests/data/kvm-stats-vcpu-6.12-svm.bin"),
    ),
    (
        "6.18",
        include_bytes!("../../tests/data/kvm-stats-vcpu-6.18-pvm.bin"),
    ),
];
const VM: &[u8] = include_bytes!("../../tests/data/kvm-stats-vm-6.18-pvm.bin");

/// A file with one descriptor, made from the documentation's picture of it.
fn image(desc: &[u8; 16], name: &[u8; 8], data: &[u64]) -> Vec<u8> {
    let mut image = Vec::new();
    // flags, name_size, num_desc, id_offset, desc_offset, data_offset
    for word in [0u32, 8, 1, 24, 32, 56] {
        image.extend(word.to_le_bytes());
    }
    image.extend(b"kvm-1\0\0\0");
    image.extend(desc);
    image.extend(name);
    for value in data {
        image.extend(value.to_le_bytes());
    }
    image
}

/// type log histogram (4), unit seconds (2 << 4), base 10 (0), exponent -9,
/// two values, at offset 8, bucket size 0.
const DESC: [u8; 16] = [0x24, 0, 0, 0, 0xf7, 0xff, 2, 0, 8, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn a_descriptor_means_what_the_documentation_says() {
    let stats = decode(&image(&DESC, b"wait\0\0\0\0", &[1, 2, u64::MAX])).unwrap();
    let expected = Stat {
        name: "wait".to_string(),
        kind: Kind::LogHistogram,
        unit: Unit::Seconds,
        base: Base::Ten,
        exponent: -9,
        values: vec![2, u64::MAX],
        // Behind the data's first value, which nothing describes.
        offset: 56 + 8,
    };
    assert_eq!(stats, [expected]);
}

#[test]
fn every_cut_is_an_error() {
    let whole = image(&DESC, b"wait\0\0\0\0", &[1, 2, 3]);
    for len in 0..whole.len() {
        let error = decode(&whole[..len]).unwrap_err();
        assert!(
            matches!(error, StatsError::Truncated { have, .. } if have == len),
            "{len}: {error}"
        );
    }
}

#[test]
fn what_a_later_kernel_may_add_is_kept() {
    let mut desc = DESC;
    desc[0..4].copy_from_slice(&0x0ff_u32.to_le_bytes());
    let stats = decode(&image(&desc, b"longname", &[0, 0, 0])).unwrap();
    assert_eq!(stats[0].kind, Kind::Unknown(15));
    assert_eq!(stats[0].unit, Unit::Unknown(0xf0));
    assert_eq!(stats[0].name, "longname", "a name without its NUL");
}

#[test]
fn absurd_counts_are_refused_before_anything_is_made() {
    let mut many = image(&DESC, b"wait\0\0\0\0", &[1, 2, 3]);
    many[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(
        decode(&many),
        Err(StatsError::Absurd {
            value: u32::MAX,
            ..
        })
    ));
    for size in [0, 257, u32::MAX] {
        let mut name = image(&DESC, b"wait\0\0\0\0", &[1, 2, 3]);
        name[4..8].copy_from_slice(&size.to_le_bytes());
        assert!(matches!(decode(&name), Err(StatsError::Absurd { value, .. }) if value == size));
    }
}

#[test]
fn real_files_have_the_counters_that_are_reported() {
    for (which, image) in VCPUS {
        let stats = decode(image).unwrap();
        let named = |name: &str| stats.iter().find(|s| s.name == name);
        for name in REPORTED {
            let stat = named(name).unwrap_or_else(|| panic!("{which}: no {name}"));
            assert_eq!(stat.kind, Kind::Cumulative, "{which}: {name}");
            assert_eq!(stat.values.len(), 1, "{which}: {name}");
            let seconds = (stat.unit, stat.base, stat.exponent) == (Unit::Seconds, Base::Ten, -9);
            assert_eq!(seconds, name.ends_with("_ns"), "{which}: {name}");
        }
        let histogram = named("halt_wait_hist").unwrap();
        assert_eq!(histogram.kind, Kind::LogHistogram, "{which}");
        assert_eq!(histogram.values.len(), 32, "{which}");
    }
}

#[test]
fn a_vm_has_the_same_format_and_other_names() {
    let stats = decode(VM).unwrap();
    assert!(stats.iter().any(|s| s.name == "mmu_cache_miss"));
    let mut sums = KvmStats::default();
    sums.add(&stats);
    assert_eq!(sums, KvmStats::default());
}

#[test]
fn every_cut_of_a_real_file_is_an_error() {
    for (which, image) in VCPUS {
        for len in 0..image.len() {
            assert!(decode(&image[..len]).is_err(), "{which}, {len} bytes");
        }
    }
}

#[test]
fn sums_are_over_vcpus_and_differences_over_time() {
    let stat = |name: &str, values: &[u64]| Stat {
        name: name.to_string(),
        kind: Kind::Cumulative,
        unit: Unit::None,
        base: Base::Ten,
        exponent: 0,
        values: values.to_vec(),
        offset: 0,
    };
    let mut sums = KvmStats::default();
    sums.add(&[stat("hypercalls", &[5]), stat("fpu_reload", &[1])]);
    let before = sums.clone();
    sums.add(&[stat("hypercalls", &[7]), stat("halt_exits", &[1, 2])]);
    assert_eq!(sums.iter().collect::<Vec<_>>(), [("hypercalls", 12)]);
    assert_eq!(sums.since(&before).get("hypercalls"), Some(7));
    assert_eq!(before.since(&sums).get("hypercalls"), Some(0));
}

proptest! {
    #[test]
    fn any_change_of_a_real_file_decodes_or_does_not(
        which in 0..VCPUS.len(),
        at in any::<proptest::sample::Index>(),
        bytes in proptest::array::uniform4(any::<u8>()),
    ) {
        let mut image = VCPUS[which].1.to_vec();
        let at = at.index(image.len() - 3);
        image[at..at + 4].copy_from_slice(&bytes);
        if let Ok(stats) = decode(&image) {
            let values: usize = stats.iter().map(|s| s.values.len() * 8).sum();
            prop_assert!(values <= image.len());
        }
    }

    #[test]
    fn any_bytes_decode_or_do_not(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        if let Ok(stats) = decode(&bytes) {
            let values: usize = stats.iter().map(|s| s.values.len() * 8).sum();
            prop_assert!(values <= bytes.len());
        }
    }

    #[test]
    fn any_fields_in_a_good_file_decode_or_do_not(
        header in proptest::array::uniform6(any::<u32>()),
        keep in proptest::array::uniform6(any::<bool>()),
        desc in proptest::array::uniform16(any::<u8>()),
        small in any::<bool>(),
    ) {
        let mut bytes = image(&desc, b"wait\0\0\0\0", &[1, 2, 3]);
        for (i, (word, keep)) in header.into_iter().zip(keep).enumerate() {
            let word = if small { word % 96 } else { word };
            if !keep {
                bytes[4 * i..4 * i + 4].copy_from_slice(&word.to_le_bytes());
            }
        }
        if let Ok(stats) = decode(&bytes) {
            let values: usize = stats.iter().map(|s| s.values.len() * 8).sum();
            prop_assert!(values <= bytes.len());
        }
    }
}
