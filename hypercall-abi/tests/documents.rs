//! The printed documents, and the program that prints them.

use std::process::Command;

use hypercall_abi::{Arch, Document, Format, TABLE};

#[test]
fn the_reference_is_current() {
    let current = Document::new(Format::Markdown).to_string();
    assert!(
        current == include_str!("../docs/HYPERCALLS.md"),
        "docs/HYPERCALLS.md is stale: cargo run -p hypercall-abi --example hypercalls -- \
         --format markdown > hypercalls.md && mv hypercalls.md hypercall-abi/docs/HYPERCALLS.md"
    );
}

#[test]
fn the_kernels_document_is_current() {
    assert!(
        Document::new(Format::Kernel).to_string() == include_str!("../docs/hypercalls.rst"),
        "docs/hypercalls.rst is stale: cargo run -p hypercall-abi --example hypercalls > \
         hypercalls.rst && mv hypercalls.rst hypercall-abi/docs/hypercalls.rst"
    );
}

/// What Linux 6.12's `Documentation/virt/kvm/x86/hypercalls.rst` says, and
/// LoongArch's beside it, by the words that carry it.
#[test]
fn every_statement_of_the_kernels_documents_is_there() {
    let text = Document::new(Format::Kernel).to_string();
    // Lines are wrapped: words, one blank apart.
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let section = |title: &str, line: &str| {
        let (_, rest) = text.split_once(&format!("\n{title}\n{line}")).unwrap();
        let end = ["\n-----", "\n====="]
            .iter()
            .filter_map(|line| rest.trim_start_matches(['-', '=']).find(line));
        let end = end.min().unwrap_or(rest.len());
        plain(rest.get(..end + 5).unwrap_or(rest))
    };
    for (arch, words) in [
        (
            "x86",
            &[
                "three bytes",
                "hypervisor can replace",
                "guaranteed to be supported",
                ":Number: rax",
                ":Arguments: rbx, rcx, rdx, rsi",
                ":Result: rax",
                "every other register, unless the hypercall says otherwise",
            ][..],
        ),
        (
            "s390",
            &[
                "r1: the subcode of 0x500",
                "r2, r3, r4, r5, r6, r7",
                ":Result: r2",
                "DIAGNOSE",
            ],
        ),
        (
            "PPC",
            &[
                "r3, r4, r5, r6, r7, r8, r9, r10",
                ":Number: r11",
                "outputs in r4 to r11",
                ":Result: r3",
                "4-byte opcodes",
                "hypercall-instructions",
                "/hypervisor node",
            ],
        ),
        (
            "MIPS",
            &[
                "HYPCALL with code 0",
                "v0: $2",
                "a0, a1, a2, a3",
                ":Result: v0",
            ],
        ),
        (
            "LoongArch",
            &[
                "HVCL with code 0x100",
                ":Number: a0",
                "a1, a2, a3, a4, a5",
                "v0 is another name",
            ],
        ),
    ] {
        let section = section(arch, "==");
        for words in words {
            assert!(section.contains(words), "{arch}: {words}: {section}");
        }
    }
    for (call, words) in [
        (
            "1. KVM_HC_VAPIC_POLL_IRQ",
            &["Trigger a guest exit", "pending interrupts"][..],
        ),
        (
            "2. KVM_HC_MMU_OP",
            &[
                "deprecated",
                "write to a PTE, flush the TLB, release a page table",
            ],
        ),
        (
            "3. KVM_HC_FEATURES",
            &[
                "Expose hypercall availability",
                "On x86 platforms, CPUID",
                "device tree based lookup",
                "EPAPR",
            ],
        ),
        (
            "4. KVM_HC_PPC_MAP_MAGIC_PAGE",
            &[
                "parts of the supervisor visible register state",
                "through memory",
            ],
        ),
        (
            "5. KVM_HC_KICK_CPU",
            &[
                "Wake a vCPU from HLT",
                "busy-waiting in guest kernel mode",
                "more than a threshold",
                "put the vCPU to sleep until an appropriate event",
                "APIC ID of the vCPU to wake",
                "reserved for future use",
            ],
        ),
        (
            "9. KVM_HC_CLOCK_PAIRING",
            &[
                "Synchronize host and guest clocks",
                "where the host copies",
                "KVM_CLOCK_PAIRING_WALLCLOCK (0)",
                "CLOCK_REALTIME",
                "seconds of the clock",
                "nanoseconds",
                "guest TSC value used to calculate the sec/nsec pair",
                "unused, 0",
                "precise timestamp across host and guest",
                "at the same instant",
                "does not use the TSC as its clock source",
                "another clock type",
            ],
        ),
        (
            "10. KVM_HC_SEND_IPI",
            &[
                "lower part of the bitmap of destination APIC IDs",
                "higher part of the bitmap of destination APIC IDs",
                "the lowest APIC ID in the bitmap",
                "APIC ICR",
                "128 destinations per hypercall in 64-bit mode and 64 in 32-bit mode",
                "Bit 0 of rbx corresponds to the APIC ID in rdx",
                "how many vCPUs the IPI was delivered to",
            ],
        ),
        (
            "11. KVM_HC_SCHED_YIELD",
            &[
                "destination APIC ID",
                "call-function IPI to many vCPUs",
                "if any of the IPI target vCPUs was preempted",
            ],
        ),
        (
            "12. KVM_HC_MAP_GPA_RANGE",
            &[
                "Request to map a GPA range with the specified attributes",
                "address of the start page",
                "number of 4 KiB pages, contiguous in GPA space",
                "0 = 4 KiB, 1 = 2 MiB, 2 = 1 GiB",
                "plaintext = 0, encrypted = 1",
                "bits 63:5 reserved, must be 0",
                "implemented in userspace via KVM_CAP_EXIT_HYPERCALL",
                "before it advertises KVM_FEATURE_HC_MAP_GPA_RANGE",
                "set up an MSR filter to process writes to MSR_KVM_MIGRATION_CONTROL",
            ],
        ),
        (
            "1. KVM_HCALL_FUNC_IPI",
            &[
                "lower part of the bitmap of destination physical CPU ids",
                "the lowest physical CPU id",
                "128 at most",
                "Bit 0 of a1 corresponds to the physical CPU id in a3",
                "both multicast sending and receiving",
            ],
        ),
    ] {
        let entry = section(call, "--");
        for words in words {
            assert!(entry.contains(words), "{call}: {words}: {entry}");
        }
    }
}

/// Every entry has what the template asks for.
#[test]
fn kernel_entries_are_complete() {
    let text = Document::new(Format::Kernel).to_string();
    let mut entries = 0;
    for row in TABLE {
        let start = text.find(&format!(". {}\n---", row.name)).unwrap();
        let entry = &text[start..];
        let entry = entry.split("\n:Source: ").next().unwrap();
        for field in [
            ":Value: ",
            ":Architecture: ",
            ":Status: ",
            ":Purpose: ",
            ":Inputs:",
            ":Outputs:",
            ":Return codes:",
            ":Feature: ",
            ":Since Linux: ",
            ":Release by: ",
            ":Served by: ",
        ] {
            assert_eq!(entry.matches(field).count(), 1, "{} {field}", row.name);
        }
        entries += 1;
    }
    assert_eq!(text.matches("\n:Value: ").count(), entries);
    assert!(
        text.lines().all(|line| line.len() < 80),
        "a line is too long"
    );
    assert!(text.is_ascii());
}

/// The RFC's five, under the names and numbers it gave them.
#[test]
fn the_seeds_five_are_there() {
    for (arch, nr, name) in [
        (Arch::X86, 1, "KVM_HC_VAPIC_POLL_IRQ"),
        (Arch::X86, 2, "KVM_HC_MMU_OP"),
        (Arch::PowerPc, 3, "KVM_HC_FEATURES"),
        (Arch::PowerPc, 4, "KVM_HC_PPC_MAP_MAGIC_PAGE"),
        (Arch::X86, 5, "KVM_HC_KICK_CPU"),
    ] {
        assert_eq!(hypercall_abi::find(arch, nr).unwrap().name, name);
    }
    assert_eq!(
        hypercall_abi::find(Arch::LoongArch, 1).unwrap().name,
        "KVM_HCALL_FUNC_IPI"
    );
    assert_eq!(hypercall_abi::find(Arch::X86, 3), None);
}

#[test]
fn powerpc_numbers_carry_the_vendor() {
    let row = hypercall_abi::find(Arch::PowerPc, 3).unwrap();
    assert_eq!(row.number_register(), 0x2a_0003);
}

#[test]
fn rows_are_sorted_and_plain() {
    let keys: Vec<_> = TABLE.iter().map(|row| (row.arch, row.nr)).collect();
    assert!(keys.is_sorted(), "{keys:?}");
    for row in TABLE {
        let texts = [row.name, row.purpose, row.source];
        for text in texts
            .iter()
            .chain(row.inputs.iter().map(|input| &input.meaning))
        {
            assert!(!text.is_empty(), "{}", row.name);
            assert!(!text.contains("  "), "{}: {text}", row.name);
            assert!(text.chars().all(|c| !c.is_control()), "{}", row.name);
        }
        assert!(!row.returns.is_empty(), "{}", row.name);
    }
}

#[test]
fn json_says_what_the_table_says() {
    let json: serde_json::Value =
        serde_json::from_str(&Document::new(Format::Json).to_string()).unwrap();
    let rows = json.as_array().unwrap();
    assert_eq!(rows.len(), TABLE.len());
    for (json, row) in rows.iter().zip(TABLE) {
        assert_eq!(json["arch"], row.arch.name());
        assert_eq!(json["nr"], row.nr);
        assert_eq!(json["number_register"], row.number_register());
        assert_eq!(json["name"], row.name);
        assert_eq!(json["status"], row.status.name());
        assert_eq!(json["purpose"], row.purpose);
        assert_eq!(json["served_by"], row.server.name());
        assert_eq!(json["source"], row.source);
        assert_eq!(json["since"], row.since.to_string());
        assert_eq!(json["notes"], row.notes);
        for (fields, key) in [(row.inputs, "inputs"), (row.outputs, "outputs")] {
            assert_eq!(json[key].as_array().unwrap().len(), fields.len());
            for (json, field) in json[key].as_array().unwrap().iter().zip(fields) {
                assert_eq!(json["place"], field.place.to_string());
                assert_eq!(json["width"], field.width.to_string());
                assert_eq!(json["meaning"], field.meaning);
            }
        }
        for (json, code) in json["returns"].as_array().unwrap().iter().zip(row.returns) {
            assert_eq!(json["value"], code.value.to_string());
            assert_eq!(json["meaning"], code.meaning);
        }
    }
}

/// Builds the example, and says where it is.
fn program() -> Option<String> {
    let build = Command::new(env!("CARGO"))
        .args(["build", "-q", "--message-format=json", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .args(["--example", "hypercalls"])
        .output()
        .ok()?;
    String::from_utf8(build.stdout)
        .ok()?
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| message.get("executable")?.as_str().map(str::to_owned))
}

#[test]
fn the_program_prints_and_refuses() {
    let program = program().unwrap();
    let hypercalls = |args: &[&str]| Command::new(&program).args(args).output().unwrap();
    for format in Format::ALL {
        let output = hypercalls(&["--format", format.name()]);
        assert!(output.status.success());
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            Document::new(format).to_string()
        );
    }
    assert_eq!(
        hypercalls(&["--format=tsv"]).stdout,
        Document::new(Format::Tsv).to_string().as_bytes()
    );

    let help = hypercalls(&["--help"]);
    assert!(help.status.success());
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(
        Format::ALL
            .iter()
            .all(|format| help.contains(format.name()))
    );

    for wrong in [
        &["--format", "xml"][..],
        &["--format"],
        &["tsv"],
        &["--format", ""],
        &["--bogus\nline"],
    ] {
        let output = hypercalls(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(output.stdout.is_empty());
        assert_eq!(String::from_utf8(output.stderr).unwrap().lines().count(), 1);
    }
}
