//! The committed documents are what the table prints today.

#![expect(clippy::panic, reason = "a helper of tests fails by panicking")]

use std::path::Path;

use cpuid_features::print::Format;
use cpuid_features::{Arch, Document, HINTS, features_of};

/// File in `docs/`, and how the example `features` makes it.
const DOCUMENTS: &[(&str, Format, Arch)] = &[
    ("FEATURES.md", Format::Markdown, Arch::X86),
    ("FEATURES-loongarch.md", Format::Markdown, Arch::LoongArch),
    ("FEATURES-powerpc.md", Format::Markdown, Arch::PowerPc),
    ("cpuid.rst", Format::Kernel, Arch::X86),
];

#[test]
fn documents_are_not_stale() {
    for &(name, format, arch) in DOCUMENTS {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("docs")
            .join(name);
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        let printed = Document::new(arch, format).to_string();
        assert!(
            committed == printed,
            "docs/{name} is stale; make it anew with\n  cargo run -p cpuid-features --example \
             features -- --format {format} --arch {arch} > cpuid-features/docs/{name}"
        );
    }
}

#[test]
fn tsv_has_a_line_a_bit() {
    for arch in Arch::ALL {
        let rows = features_of(arch);
        let text = Document::new(arch, Format::Tsv).to_string();
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split('\t').collect())
            .collect();
        assert_eq!(lines[0], ["register", "bit", "name"]);
        for (line, row) in lines[1..].iter().zip(rows) {
            assert_eq!(line[1..], [row.bit.to_string().as_str(), row.name]);
        }
        let hints = if arch == Arch::X86 { HINTS.len() } else { 0 };
        assert_eq!(lines.len(), 1 + rows.len() + hints);
    }
}

#[test]
fn text_keeps_its_width() {
    for arch in Arch::ALL {
        let text = Document::new(arch, Format::Kernel).to_string();
        assert!(text.is_ascii());
        for line in text.lines() {
            assert!(line.len() < 80, "{line}");
            assert_eq!(line, line.trim_end());
        }
    }
}

/// A JSON reader in thirty lines: enough to know that the document is JSON
/// and to count its objects, without a dependency for it.
#[test]
fn json_is_json() {
    for arch in Arch::ALL {
        let hints = if arch == Arch::X86 { HINTS.len() } else { 0 };
        let rows = features_of(arch).len() + hints;
        let text = Document::new(arch, Format::Json).to_string();
        let mut rest = text.as_str();
        assert_eq!(value(&mut rest), rows, "{arch}");
        assert_eq!(rest.trim(), "");
    }
}

/// Reads one value off `rest`; how many elements it has.
fn value(rest: &mut &str) -> usize {
    *rest = rest.trim_start();
    match rest.chars().next() {
        Some('[') => elements(rest, ']', |rest| {
            value(rest);
        }),
        Some('{') => elements(rest, '}', |rest| {
            value(rest);
            take(rest, ':');
            value(rest);
        }),
        Some('"') => {
            take(rest, '"');
            while !rest.starts_with('"') {
                let skip = if rest.starts_with('\\') { 2 } else { 1 };
                *rest = rest.get(skip..).unwrap_or_else(|| panic!("open string"));
            }
            take(rest, '"');
            0
        }
        _ => {
            let end = rest.find([',', ']', '}']).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            let known = ["true", "false", "null"].contains(&word) || word.parse::<u64>().is_ok();
            assert!(known, "{word:?} is no value");
            *rest = after;
            0
        }
    }
}

fn elements(rest: &mut &str, close: char, one: impl Fn(&mut &str)) -> usize {
    *rest = &rest[1..];
    let mut count = 0;
    loop {
        *rest = rest.trim_start();
        if count == 0 && rest.starts_with(close) {
            break;
        }
        one(rest);
        count += 1;
        *rest = rest.trim_start();
        if !rest.starts_with(',') {
            break;
        }
        take(rest, ',');
    }
    take(rest, close);
    count
}

fn take(rest: &mut &str, expected: char) {
    *rest = rest.trim_start();
    *rest = rest
        .strip_prefix(expected)
        .unwrap_or_else(|| panic!("expected {expected:?} at {:?}", rest.get(..20)));
}

/// What Linux 6.12's `Documentation/virt/kvm/x86/cpuid.rst` says of each flag,
/// by the words that carry it.
#[test]
fn every_statement_of_the_kernels_document_is_there() {
    let text = Document::new(Arch::X86, Format::Kernel).to_string();
    // Lines are wrapped: words, one blank apart.
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let introduction = plain(text.split("\nEach flag\n").next().unwrap());
    for words in [
        "can check some of its features using CPUID",
        "not always guaranteed to work, since userspace can mask out some, or even all",
        "KVM_CPUID_SIGNATURE (0x40000000)",
        ":eax: 0x40000001",
        ":ebx: 0x4b4d564b",
        ":ecx: 0x564b4d56",
        ":edx: 0x4d",
        "correspond to the string \"KVMKVMKVM\"",
        "will be updated if more functions are added in the future",
        "Old hosts set it to 0, which should be interpreted as 0x40000001",
        "queries the presence of KVM's CPUID leaves",
        "KVM_CPUID_FEATURES (0x40000001)",
        "ebx, ecx = 0",
        "eax = an OR'ed group of (1 << flag)",
        "edx = an OR'ed group of (1 << flag)",
    ] {
        assert!(introduction.contains(words), "{words}");
    }
    for (flag, words) in [
        (
            "0. KVM_FEATURE_CLOCKSOURCE",
            &[
                "kvmclock",
                "0x11 MSR_KVM_WALL_CLOCK, 0x12 MSR_KVM_SYSTEM_TIME",
            ][..],
        ),
        ("1. KVM_FEATURE_NOP_IO_DELAY", &["port I/O needs no delays"]),
        ("2. KVM_FEATURE_MMU_OP", &["deprecated"]),
        (
            "3. KVM_FEATURE_CLOCKSOURCE2",
            &["kvmclock", "0x4b564d00 MSR", "0x4b564d01 MSR"],
        ),
        ("4. KVM_FEATURE_ASYNC_PF", &["0x4b564d02"]),
        ("5. KVM_FEATURE_STEAL_TIME", &["0x4b564d03"]),
        ("6. KVM_FEATURE_PV_EOI", &["end of interrupt", "0x4b564d04"]),
        ("7. KVM_FEATURE_PV_UNHALT", &["paravirtual spinlocks"]),
        ("9. KVM_FEATURE_PV_TLB_FLUSH", &["TLB flush"]),
        (
            "10. KVM_FEATURE_ASYNC_PF_VMEXIT",
            &["exits (bit 2 of the MSR)", "0x4b564d02"],
        ),
        ("11. KVM_FEATURE_PV_SEND_IPI", &["IPI"]),
        (
            "12. KVM_FEATURE_POLL_CONTROL",
            &["host's polling on HLT off", "0x4b564d05"],
        ),
        ("13. KVM_FEATURE_PV_SCHED_YIELD", &["yields"]),
        (
            "14. KVM_FEATURE_ASYNC_PF_INT",
            &[
                "0x4b564d06 MSR_KVM_ASYNC_PF_INT",
                "0x4b564d07 MSR_KVM_ASYNC_PF_ACK",
                "acknowledged by the second",
            ],
        ),
        (
            "15. KVM_FEATURE_MSI_EXT_DEST_ID",
            &["bits 11:5 of an MSI address"],
        ),
        (
            "16. KVM_FEATURE_HC_MAP_GPA_RANGE",
            &["KVM_HC_MAP_GPA_RANGE", "private"],
        ),
        (
            "17. KVM_FEATURE_MIGRATION_CONTROL",
            &["0x4b564d08 MSR_KVM_MIGRATION_CONTROL"],
        ),
        (
            "24. KVM_FEATURE_CLOCKSOURCE_STABLE_BIT",
            &["kvmclock goes backwards on no vCPU"],
        ),
        (
            "0. KVM_HINTS_REALTIME",
            &["never preempted for an unlimited time"],
        ),
    ] {
        let (_, entry) = text.split_once(&format!("\n{flag}\n---")).unwrap();
        let entry = plain(entry.split("\n\n").take(2).collect::<String>().as_str());
        for words in words {
            assert!(entry.contains(words), "{flag}: {words}: {entry}");
        }
    }
}
