//! Every row and every feature bit of all architectures against the kernel's
//! own headers, both ways, and `since` with them.
//!
//! The headers are those of Debian's `linux-headers-*-common`, which has all
//! architectures: `ci/headers` fetches those of 6.1 and 6.12 and runs these
//! tests with `KVM_HEADERS` (the directory that has `include` and `arch`) and
//! `KVM_HEADERS_VERSION`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of tests fails by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cpuid_features::{
    FEATURES, FeatureRow, HINTS, LOONGARCH_CPUCFG_FEATURE, LOONGARCH_CPUCFG_SIGNATURE,
    LOONGARCH_FEATURES, POWERPC_FEATURES, Since, msr,
};
use hypercall_abi::{Answer, Arch, Gate, TABLE};

/// Where the headers are, and of which release.
struct Headers {
    root: PathBuf,
    version: (u32, u32),
}

fn release(text: &str) -> (u32, u32) {
    let mut parts = text.split('.').map(|part| part.parse().unwrap());
    (parts.next().unwrap(), parts.next().unwrap_or(0))
}

fn headers() -> Headers {
    let variable = |name| {
        std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: ci/headers runs this"))
    };
    Headers {
        root: variable("KVM_HEADERS").into(),
        version: release(&variable("KVM_HEADERS_VERSION")),
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

impl Headers {
    /// The macros of a header as an architecture's kernel sees them.
    fn macros(&self, arch: &str, header: &str) -> String {
        let root = &self.root;
        // What a kernel's build generates, asm/types.h for example, is generic.
        let generated =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("generated-{}", self.version.1));
        fs::create_dir_all(generated.join("uapi")).unwrap();
        for link in [generated.join("asm"), generated.join("uapi/asm")] {
            // Another test may have made it.
            let _ = std::os::unix::fs::symlink(root.join("include/uapi/asm-generic"), &link);
        }
        run(Command::new("gcc")
            .args(["-E", "-dM", "-nostdinc", "-D__KERNEL__", "-D__ASSEMBLY__"])
            .arg("-I")
            .arg(root.join(format!("arch/{arch}/include")))
            .arg("-I")
            .arg(root.join(format!("arch/{arch}/include/uapi")))
            .arg("-I")
            .arg(root.join("include"))
            .arg("-I")
            .arg(root.join("include/uapi"))
            .arg("-I")
            .arg(&generated)
            .args(["-include", header, "-x", "c", "/dev/null"]))
    }

    /// The values of those macros that `wanted` accepts.
    fn values(&self, arch: &str, header: &str, wanted: impl Fn(&str) -> bool) -> Values {
        let macros = self.macros(arch, header);
        let names: Vec<&str> = macros
            .lines()
            .filter_map(|line| line.strip_prefix("#define ")?.split([' ', '(']).next())
            .filter(|name| wanted(name))
            .collect();
        let body: String = names
            .iter()
            .map(|name| format!("printf(\"{name} %llu\\n\", (unsigned long long)({name}));\n"))
            .collect();
        let printed = self.compiled(arch, &macros, &body);
        printed
            .lines()
            .map(|line| {
                let (name, value) = line.split_once(' ').unwrap();
                (name.to_owned(), value.parse().unwrap())
            })
            .collect()
    }

    /// What a program prints that has the macros of the kernel and this body.
    fn compiled(&self, arch: &str, macros: &str, body: &str) -> String {
        let kernel: String = macros
            .lines()
            .filter(|line| !line.starts_with("#define __"))
            .map(|line| line.to_owned() + "\n")
            .collect();
        let program =
            format!("#include <stdio.h>\n{kernel}\nint main(void) {{\n{body}return 0; }}\n");
        // One file a body: tests run at the same time.
        let name = format!("{arch}-{}-{}-{}", self.version.1, body.len(), macros.len());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let (source, binary) = (directory.join(format!("{name}.c")), directory.join(name));
        fs::write(&source, program).unwrap();
        run(Command::new("gcc")
            .arg("-w")
            .arg("-o")
            .arg(&binary)
            .arg(&source));
        run(&mut Command::new(&binary))
    }

    /// Whether this release has KVM on that architecture.
    fn has(&self, header: &str) -> bool {
        self.root.join(header).exists()
    }

    /// Holds a table and a header against each other: what the table dates to
    /// this release or before is in the header with that value; what it dates
    /// later or calls proposed is not; and the header has nothing else.
    fn compare<'a>(
        &self,
        rows: impl IntoIterator<Item = (&'a str, u64, Since)>,
        header: &Values,
        what: &str,
    ) {
        let mut known = BTreeSet::new();
        let mut held = 0;
        for (name, value, since) in rows {
            known.insert(name.to_owned());
            let there = header.get(name).copied();
            let expected = match since {
                Since::Linux { release: first, .. } => self.version >= release(first),
                Since::AtLatest { release: first, .. } if self.version >= release(first) => true,
                Since::After { release: last, .. } if self.version > release(last) => true,
                // It is not said whether an older release has it.
                Since::AtLatest { .. } => there.is_some(),
                _ => false,
            };
            assert_eq!(there, expected.then_some(value), "{what}: {name}, {since}");
            held += u32::from(expected);
        }
        let unknown: Vec<_> = header
            .keys()
            .filter(|name| !known.contains(*name))
            .collect();
        assert!(unknown.is_empty(), "{what}: no row for {unknown:?}");
        assert!(held > 0, "{what}: nothing was compared");
        println!("{what}: {held} of {} in {:?}", known.len(), self.version);
    }
}

type Values = BTreeMap<String, u64>;

fn rows(arch: Arch) -> impl Iterator<Item = (&'static str, u64, Since)> {
    TABLE
        .iter()
        .filter(move |row| row.arch == arch)
        .map(|row| (row.name, row.nr, row.since))
}

fn features(rows: &'static [FeatureRow]) -> impl Iterator<Item = (&'static str, u64, Since)> {
    rows.iter()
        .map(|row| (row.kernel_name, row.bit.into(), row.since))
}

#[test]
#[ignore = "needs the kernel's headers: ci/headers"]
fn the_shared_numbers() {
    let headers = headers();
    let values = headers.values("powerpc", "linux/kvm_para.h", |name| {
        name.starts_with("KVM_HC_")
    });
    let ours = rows(Arch::X86)
        .chain(rows(Arch::PowerPc))
        .chain(rows(Arch::Mips));
    headers.compare(ours, &values, "linux/kvm_para.h");
}

#[test]
#[ignore = "needs the kernel's headers: ci/headers"]
fn x86_features_hints_and_msrs() {
    let headers = headers();
    let values = |prefix: &'static str| {
        headers.values("x86", "uapi/asm/kvm_para.h", move |name| {
            name.starts_with(prefix)
        })
    };
    headers.compare(features(FEATURES), &values("KVM_FEATURE_"), "x86 features");
    // Neither dates by itself: both are as old as the oldest header read.
    let old = Since::AtLatest {
        release: "6.1",
        file: "asm/kvm_para.h",
    };
    let hints = HINTS
        .iter()
        .map(|row| (row.kernel_name, row.bit.into(), old));
    headers.compare(hints, &values("KVM_HINTS_"), "x86 hints");
    let msrs = msr::ALL
        .iter()
        .map(|msr| (msr.kernel_name, msr.index.into(), old));
    headers.compare(msrs, &values("MSR_KVM_"), "x86 MSRs");
}

#[test]
#[ignore = "needs the kernel's headers: ci/headers"]
fn loongarch() {
    const HEADER: &str = "arch/loongarch/include/asm/kvm_para.h";
    let headers = headers();
    if !headers.has(HEADER) {
        assert!(headers.version < (6, 12), "{HEADER} is gone");
        println!("no KVM on LoongArch in {:?}", headers.version);
        return;
    }
    let values = headers.values("loongarch", "asm/kvm_para.h", |name| {
        name.starts_with("KVM_HCALL_FUNC_")
            || ["KVM_HCALL_SWDBG", "KVM_HCALL_USER_SERVICE"].contains(&name)
    });
    headers.compare(rows(Arch::LoongArch), &values, "LoongArch calls");

    let values = headers.values("loongarch", "asm/kvm_para.h", |name| {
        name.starts_with("KVM_FEATURE_")
    });
    headers.compare(features(LOONGARCH_FEATURES), &values, "LoongArch features");

    let values = headers.values("loongarch", "asm/kvm_para.h", |name| {
        name.starts_with("CPUCFG_KVM_") || name.starts_with("KVM_HCALL_INVALID_")
    });
    assert_eq!(values["CPUCFG_KVM_SIG"], LOONGARCH_CPUCFG_SIGNATURE.into());
    assert_eq!(
        values["CPUCFG_KVM_FEATURE"],
        LOONGARCH_CPUCFG_FEATURE.into()
    );
    let codes: BTreeSet<u64> = codes(Arch::LoongArch).map(i64::cast_unsigned).collect();
    let theirs = ["KVM_HCALL_INVALID_CODE", "KVM_HCALL_INVALID_PARAMETER"];
    assert_eq!(codes, theirs.map(|name| values[name]).into());
}

/// The codes of its own that an architecture's rows answer.
fn codes(arch: Arch) -> impl Iterator<Item = i64> {
    TABLE
        .iter()
        .filter(move |row| row.arch == arch)
        .flat_map(|row| row.returns)
        .filter_map(|answer| match answer.value {
            Answer::Code(code) => Some(code),
            _ => None,
        })
}

#[test]
#[ignore = "needs the kernel's headers: ci/headers"]
fn powerpc() {
    let headers = headers();
    let values = headers.values("powerpc", "uapi/asm/kvm_para.h", |name| {
        name.starts_with("KVM_FEATURE_")
    });
    headers.compare(features(POWERPC_FEATURES), &values, "PowerPC features");
    let values = headers.values("powerpc", "uapi/asm/kvm_para.h", |name| {
        ["EV_KVM_VENDOR_ID", "EV_UNIMPLEMENTED"].contains(&name)
    });
    for row in TABLE.iter().filter(|row| row.arch == Arch::PowerPc) {
        let expected = values["EV_KVM_VENDOR_ID"] << 16 | row.nr;
        assert_eq!(row.number_register(), expected, "{}", row.name);
    }
    for code in codes(Arch::PowerPc) {
        assert_eq!(code.cast_unsigned(), values["EV_UNIMPLEMENTED"]);
    }
}

#[test]
#[ignore = "needs the kernel's headers: ci/headers"]
fn arm64() {
    let headers = headers();
    let values = headers.values("arm64", "linux/arm-smccc.h", |name| {
        (name.starts_with("ARM_SMCCC_VENDOR_HYP_KVM_") && name.ends_with("_FUNC_ID"))
            || name.starts_with("ARM_SMCCC_HV_PV_TIME_")
    });
    // Function identifiers are 32 bits; the macros make signed ones for an
    // assembler, which the headers are read as.
    let values: Values = values
        .into_iter()
        .map(|(name, value)| (name, value & 0xffff_ffff))
        .collect();
    headers.compare(rows(Arch::Arm64), &values, "arm64 calls");

    // Function numbers without a call: reserved for pKVM, and the second word
    // of features, which has no document.
    let numbers = headers.values("arm64", "linux/arm-smccc.h", |name| {
        name.starts_with("ARM_SMCCC_KVM_FUNC_")
            && !name.starts_with("ARM_SMCCC_KVM_FUNC_PKVM_RESV_")
            && name != "ARM_SMCCC_KVM_FUNC_FEATURES_2"
    });
    for (name, number) in &numbers {
        let row = TABLE
            .iter()
            .find(|row| row.arch == Arch::Arm64 && row.nr & 0x3fff_ffff == 0x0600_0000 | number)
            .unwrap_or_else(|| panic!("no row for {name}"));
        match row.gate {
            Gate::Function(gate) => assert_eq!(u64::from(gate), *number, "{name}"),
            Gate::Uid(words) => {
                let uid = headers.values("arm64", "linux/arm-smccc.h", |name| {
                    name.starts_with("ARM_SMCCC_VENDOR_HYP_UID_KVM_REG_")
                });
                assert_eq!(
                    words.map(u64::from).to_vec(),
                    Vec::from_iter(uid.into_values())
                );
            }
            other => panic!("{name}: {other}"),
        }
    }
    assert!(numbers.len() >= 2);
    let codes: BTreeSet<i64> = codes(Arch::Arm64).collect();
    assert_eq!(
        codes,
        [-1, -3].into(),
        "SMCCC_RET_NOT_SUPPORTED, _INVALID_PARAMETER"
    );
}

#[test]
#[ignore = "needs the kernel's headers: ci/headers"]
fn s390() {
    let headers = headers();
    let macros = headers.macros("s390", "asm/sie.h");
    let body = "struct { unsigned code; const char *name; } codes[] = { diagnose_codes };\n\
                for (unsigned i = 0; i < sizeof codes / sizeof *codes; i++)\n\
                printf(\"DIAGNOSE 0x%X %u\\n\", codes[i].code, codes[i].code);\n";
    let values: Values = headers
        .compiled("s390", &macros, body)
        .lines()
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect();
    headers.compare(rows(Arch::S390), &values, "s390 diagnose codes");
    let notify = headers.values("s390", "uapi/asm/virtio-ccw.h", |name| {
        name == "KVM_S390_VIRTIO_CCW_NOTIFY"
    });
    assert_eq!(notify["KVM_S390_VIRTIO_CCW_NOTIFY"], 3);
}
