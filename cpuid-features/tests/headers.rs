//! Every number against the kernel's own headers, as a C compiler reads them:
//! each row has its macro's value, and each macro has its row.
//!
//! Needs gcc and linux-libc-dev; without them it fails and says so.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of tests fails by panicking"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use cpuid_features::{
    FEATURES, HINTS, KVM_CPUID_FEATURES, KVM_CPUID_SIGNATURE, KVM_SIGNATURE, KVM_SIGNATURE_WORDS,
    msr,
};

const MISSING: &str = "the header test needs a C compiler and the kernel's headers: \
                       apt-get install gcc linux-libc-dev";

fn gcc() -> Command {
    Command::new(std::env::var("CC").unwrap_or_else(|_| "gcc".into()))
}

fn stdout(command: &mut Command) -> String {
    let output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{MISSING} ({error})"));
    assert!(
        output.status.success(),
        "{MISSING}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The macros of `linux/kvm_para.h` and what it includes that start with one
/// of the prefixes.
fn macros(prefixes: &[&str]) -> Vec<String> {
    stdout(gcc().args(["-E", "-dM", "-include", "linux/kvm_para.h", "-x", "c", "-"]))
        .lines()
        .filter_map(|line| line.strip_prefix("#define ")?.split(' ').next())
        .filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
        .map(str::to_owned)
        .collect()
}

/// What C makes of `macros`.
fn values(test: &str, macros: &[String]) -> BTreeMap<String, u64> {
    let mut source =
        String::from("#include <stdio.h>\n#include <linux/kvm_para.h>\nint main(void) {\n");
    for name in macros {
        source += &format!("printf(\"{name} %llu\\n\", (unsigned long long)({name}));\n");
    }
    source += "return 0; }\n";
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (c, program) = (dir.join(format!("{test}.c")), dir.join(test));
    std::fs::write(&c, source).unwrap();
    stdout(gcc().arg("-o").arg(&program).arg(&c));
    stdout(&mut Command::new(program))
        .lines()
        .map(|line| {
            let (name, value) = line.split_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

fn ours<'a>(rows: impl IntoIterator<Item = (&'a str, u64)>) -> BTreeMap<String, u64> {
    rows.into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

#[test]
fn features_are_the_headers() {
    let header = values("features", &macros(&["KVM_FEATURE_"]));
    assert!(header.len() >= 18, "{MISSING}: this header is too old");
    assert_eq!(
        ours(FEATURES.iter().map(|row| (row.kernel_name, row.bit.into()))),
        header
    );
}

#[test]
fn hints_are_the_headers() {
    assert_eq!(
        ours(HINTS.iter().map(|row| (row.kernel_name, row.bit.into()))),
        values("hints", &macros(&["KVM_HINTS_"]))
    );
}

#[test]
fn msrs_are_the_headers() {
    assert_eq!(
        ours(
            msr::ALL
                .iter()
                .map(|msr| (msr.kernel_name, msr.index.into()))
        ),
        values("msrs", &macros(&["MSR_KVM_"]))
    );
}

/// The hypercalls that rows name are the header's.
#[test]
fn gated_hypercalls_are_the_headers() {
    let header = macros(&["KVM_HC_"]);
    let named: Vec<_> = FEATURES.iter().flat_map(|row| row.hypercalls).collect();
    for name in &named {
        assert!(header.iter().any(|known| known == *name), "{name}");
    }
    assert_eq!(named.len(), 5);
}

#[test]
fn leaves_and_signature_are_the_headers() {
    let leaves = values("leaves", &macros(&["KVM_CPUID_"]));
    assert_eq!(
        leaves,
        ours([
            ("KVM_CPUID_SIGNATURE", KVM_CPUID_SIGNATURE.into()),
            ("KVM_CPUID_FEATURES", KVM_CPUID_FEATURES.into()),
        ])
    );
    let macros = stdout(gcc().args(["-E", "-dM", "-include", "linux/kvm_para.h", "-x", "c", "-"]));
    let signature = macros
        .lines()
        .find_map(|line| line.strip_prefix("#define KVM_SIGNATURE "))
        .unwrap();
    assert_eq!(signature, "\"KVMKVMKVM\\0\\0\\0\"");
    assert_eq!(KVM_SIGNATURE, b"KVMKVMKVM\0\0\0");
    let bytes: Vec<u8> = KVM_SIGNATURE_WORDS
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect();
    assert_eq!(bytes, KVM_SIGNATURE);
}

/// The aliases are derived; this is the one place that sees them beside the
/// header, and sees that none is missing.
#[test]
fn aliases_are_the_headers() {
    macro_rules! aliases {
        ($($name:ident)*) => {
            ours([$((stringify!($name), u64::from(cpuid_features::kernel::$name))),*])
        };
    }
    assert_eq!(
        aliases! {
            KVM_FEATURE_CLOCKSOURCE
            KVM_FEATURE_NOP_IO_DELAY
            KVM_FEATURE_MMU_OP
            KVM_FEATURE_CLOCKSOURCE2
            KVM_FEATURE_ASYNC_PF
            KVM_FEATURE_STEAL_TIME
            KVM_FEATURE_PV_EOI
            KVM_FEATURE_PV_UNHALT
            KVM_FEATURE_PV_TLB_FLUSH
            KVM_FEATURE_ASYNC_PF_VMEXIT
            KVM_FEATURE_PV_SEND_IPI
            KVM_FEATURE_POLL_CONTROL
            KVM_FEATURE_PV_SCHED_YIELD
            KVM_FEATURE_ASYNC_PF_INT
            KVM_FEATURE_MSI_EXT_DEST_ID
            KVM_FEATURE_HC_MAP_GPA_RANGE
            KVM_FEATURE_MIGRATION_CONTROL
            KVM_FEATURE_CLOCKSOURCE_STABLE_BIT
            KVM_HINTS_REALTIME
            MSR_KVM_WALL_CLOCK
            MSR_KVM_SYSTEM_TIME
            MSR_KVM_WALL_CLOCK_NEW
            MSR_KVM_SYSTEM_TIME_NEW
            MSR_KVM_ASYNC_PF_EN
            MSR_KVM_STEAL_TIME
            MSR_KVM_PV_EOI_EN
            MSR_KVM_POLL_CONTROL
            MSR_KVM_ASYNC_PF_INT
            MSR_KVM_ASYNC_PF_ACK
            MSR_KVM_MIGRATION_CONTROL
            KVM_CPUID_SIGNATURE
            KVM_CPUID_FEATURES
        },
        values(
            "aliases",
            &macros(&["KVM_FEATURE_", "KVM_HINTS_", "MSR_KVM_", "KVM_CPUID_"])
        )
    );
}
