//! Replay of whole dumps. Where each comes from: `tests/dumps/README.md`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of tests fails by panicking"
)]

use std::collections::BTreeMap;
use std::path::Path;

use cpuid_features::{CpuidReader, CpuidRegs, Dump, DumpEntry, KvmFeatures, KvmHints, KvmLeaf};

const fn leaf(base: u32, max_leaf: u32, eax: u32, edx: u32) -> Option<KvmLeaf> {
    Some(KvmLeaf {
        base,
        max_leaf,
        features: KvmFeatures::from_bits_retain(eax),
        hints: KvmHints::from_bits_retain(edx),
    })
}

/// File, entries, and what a guest with these leaves sees.
const EXPECTED: &[(&str, usize, Option<KvmLeaf>)] = &[
    (
        "firecracker-guest.cpuid",
        136,
        leaf(0x4000_0000, 0x4000_0001, 0x0100_7efb, 0),
    ),
    (
        "kvm-amd-6.1.supported",
        56,
        leaf(0x4000_0000, 0x4000_0001, 0x0100_7efb, 0),
    ),
    (
        "kvm-amd-6.12.supported",
        56,
        leaf(0x4000_0000, 0x4000_0001, 0x0100_7efb, 0),
    ),
    (
        "kvm-pvm-6.18.supported",
        61,
        leaf(0x4000_0000, 0x4000_0001, 0x0100_7efb, 0),
    ),
    ("synthetic-garbage.cpuid", 4, None),
    ("synthetic-hyperv-only.cpuid", 6, None),
    (
        "synthetic-hyperv-shifted.cpuid",
        12,
        leaf(0x4000_0100, 0x4000_0101, 0x0100_7efb, 1),
    ),
    (
        "synthetic-hyperv-stale-max-leaf.cpuid",
        8,
        leaf(0x4000_0100, 0x4000_0001, 0x80, 0),
    ),
    (
        "synthetic-max-leaf-0x40000010.cpuid",
        7,
        leaf(0x4000_0000, 0x4000_0010, 0x0100_7efb, 0),
    ),
    (
        "synthetic-max-leaf-zero.cpuid",
        6,
        leaf(0x4000_0000, 0x4000_0001, 7, 0),
    ),
    (
        "synthetic-no-feature-leaf.cpuid",
        5,
        leaf(0x4000_0000, 0x4000_0001, 0, 0),
    ),
    ("synthetic-no-kvm.cpuid", 4, None),
    (
        "synthetic-quoted-in-a-mail.cpuid",
        2,
        leaf(0x4000_0000, 0x4000_0001, 0x0100_00bf, 0),
    ),
    (
        "synthetic-two-cpus-differ.cpuid",
        4,
        leaf(0x4000_0000, 0x4000_0001, 0x0100_7efb, 0),
    ),
];

fn dumps() -> BTreeMap<String, String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dumps");
    std::fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension != "md"))
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read_to_string(&path).unwrap())
        })
        .collect()
}

#[test]
fn every_dump_is_read_as_expected() {
    let dumps = dumps();
    let listed: Vec<&str> = EXPECTED.iter().map(|(name, ..)| *name).collect();
    assert_eq!(dumps.keys().collect::<Vec<_>>(), listed);
    for (name, entries, expected) in EXPECTED {
        let dump = Dump::new(&dumps[*name]);
        assert_eq!(dump.entries().count(), *entries, "{name}");
        assert_eq!(KvmLeaf::read(&dump), *expected, "{name}");
    }
}

/// The dump's own search for the base is a shortcut: it must find what asking
/// for each base in turn finds.
#[test]
fn the_shortcut_finds_the_same_base() {
    for (name, text) in dumps() {
        let dump = Dump::new(&text);
        let one_by_one = |leaf| dump.leaf(leaf);
        assert_eq!(dump.kvm_base(), one_by_one.kvm_base(), "{name}");
    }
}

#[test]
fn an_entry_prints_as_the_tool_does() {
    let line = "   0x40000000 0x00: eax=0x40000001 ebx=0x4b4d564b ecx=0x564b4d56 edx=0x0000004d";
    let entry = DumpEntry::parse(line).unwrap();
    assert_eq!(
        entry,
        DumpEntry {
            leaf: 0x4000_0000,
            subleaf: 0,
            regs: CpuidRegs {
                eax: 0x4000_0001,
                ebx: 0x4b4d_564b,
                ecx: 0x564b_4d56,
                edx: 0x4d,
            },
        }
    );
    assert_eq!(entry.to_string(), line);
}
