//! The table against the kernel's own header, compiled by a C compiler.
//!
//! `linux/kvm_para.h` holds the numbers of x86, PowerPC and MIPS whatever the
//! architecture it is installed for; what it includes of `asm/kvm_para.h` is
//! x86's on x86.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use hypercall_abi::{Arch, ClockPairing, ClockPairingData, Errno, MapGpaRange, PageSize, TABLE};

const INCLUDES: &str = "#include <errno.h>\n#include <stddef.h>\n#include <stdio.h>\n\
                        #include <linux/kvm_para.h>\n";
const INSTALL: &str = "install the packages gcc and linux-libc-dev to run this test";

/// Runs a command to its output, or fails with what to install.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}; {INSTALL}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {stderr}; {INSTALL}"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A place for this test's files.
fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// The values of C expressions, by a program that prints them.
fn values(name: &str, expressions: &[String]) -> Result<BTreeMap<String, u64>, String> {
    let mut program = format!("{INCLUDES}int main(void) {{\n");
    for expression in expressions {
        let print = "printf(\"%s=%llu\\n\"";
        writeln!(
            program,
            "{print}, \"{expression}\", (unsigned long long)({expression}));"
        )
        .map_err(|error| error.to_string())?;
    }
    program.push_str("return 0; }\n");
    let (source, binary) = (scratch(&format!("{name}.c")), scratch(name));
    fs::write(&source, program).map_err(|error| error.to_string())?;
    run(Command::new("gcc").arg("-o").arg(&binary).arg(&source))?;
    run(&mut Command::new(&binary))?
        .lines()
        .map(|line| {
            let (name, value) = line.rsplit_once('=').ok_or(line)?;
            let value = value.parse().map_err(|_| line)?;
            Ok((name.to_owned(), value))
        })
        .collect()
}

/// The names of the header's macros that begin so.
fn macros(name: &str, prefix: &str) -> Result<Vec<String>, String> {
    let source = scratch(&format!("{name}.c"));
    fs::write(&source, INCLUDES).map_err(|error| error.to_string())?;
    let all = run(Command::new("gcc").args(["-E", "-dM"]).arg(&source))?;
    Ok(all
        .lines()
        .filter_map(|line| line.strip_prefix("#define ")?.split_whitespace().next())
        .filter(|name| name.starts_with(prefix))
        .map(str::to_owned)
        .collect())
}

/// Says which headers these are; `cargo test -- --nocapture` shows it.
fn print_version() {
    let version = run(Command::new("dpkg-query").args(["-W", "linux-libc-dev"]));
    match version {
        Ok(version) => println!("headers: {}", version.trim()),
        Err(_) => println!("headers: of unknown version, not from dpkg"),
    }
}

#[test]
fn numbers_are_the_headers_both_ways() {
    print_version();
    let names = macros("hc_names", "KVM_HC_").unwrap();
    let header = values("hc_values", &names).unwrap();
    let table: BTreeMap<String, u64> = TABLE
        .iter()
        .filter(|row| matches!(row.arch, Arch::X86 | Arch::PowerPc | Arch::Mips))
        .map(|row| (row.name.to_owned(), row.nr))
        .collect();
    println!("{} hypercall numbers: {header:?}", header.len());
    assert_eq!(table, header);
}

#[test]
fn return_codes_are_the_headers_both_ways() {
    print_version();
    let names = macros("errno_names", "KVM_E").unwrap();
    let header = values("errno_values", &names).unwrap();
    let table: BTreeMap<String, u64> = Errno::ALL
        .iter()
        .map(|errno| (errno.name.to_owned(), errno.code.into()))
        .collect();
    println!("{} return codes: {header:?}", header.len());
    assert_eq!(table, header);
}

/// The aliases are derived from the table by name; this is the one place that
/// sees them beside the header.
#[test]
fn aliases_are_the_headers() {
    macro_rules! check {
        ($($name:ident)*) => {{
            let names = [$(stringify!($name).to_owned()),*];
            let header = values("aliases", &names).unwrap();
            $(assert_eq!(header[stringify!($name)], hypercall_abi::kernel::$name, stringify!($name));)*
        }};
    }
    check! {
        KVM_HC_VAPIC_POLL_IRQ KVM_HC_MMU_OP KVM_HC_FEATURES KVM_HC_PPC_MAP_MAGIC_PAGE
        KVM_HC_KICK_CPU KVM_HC_MIPS_GET_CLOCK_FREQ KVM_HC_MIPS_EXIT_VM
        KVM_HC_MIPS_CONSOLE_OUTPUT KVM_HC_CLOCK_PAIRING KVM_HC_SEND_IPI KVM_HC_SCHED_YIELD
        KVM_HC_MAP_GPA_RANGE
        KVM_ENOSYS KVM_EFAULT KVM_EINVAL KVM_E2BIG KVM_EPERM KVM_EOPNOTSUPP
    }
    #[cfg(target_arch = "x86_64")]
    check! {
        KVM_CLOCK_PAIRING_WALLCLOCK KVM_MAP_GPA_RANGE_PAGE_SZ_4K KVM_MAP_GPA_RANGE_PAGE_SZ_2M
        KVM_MAP_GPA_RANGE_PAGE_SZ_1G KVM_MAP_GPA_RANGE_ENCRYPTED KVM_MAP_GPA_RANGE_DECRYPTED
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn x86_layouts_are_the_headers() {
    let names = [
        "sizeof(struct kvm_clock_pairing)",
        "offsetof(struct kvm_clock_pairing, sec)",
        "offsetof(struct kvm_clock_pairing, nsec)",
        "offsetof(struct kvm_clock_pairing, tsc)",
        "offsetof(struct kvm_clock_pairing, flags)",
        "KVM_CLOCK_PAIRING_WALLCLOCK",
        "KVM_MAP_GPA_RANGE_ENCRYPTED",
        "KVM_MAP_GPA_RANGE_PAGE_SZ_4K",
        "KVM_MAP_GPA_RANGE_PAGE_SZ_2M",
        "KVM_MAP_GPA_RANGE_PAGE_SZ_1G",
    ]
    .map(str::to_owned);
    let header = values("layout", &names).unwrap();
    let at = |field: &str| {
        let offset = header[&format!("offsetof(struct kvm_clock_pairing, {field})")];
        usize::try_from(offset).unwrap()
    };

    assert_eq!(
        header["sizeof(struct kvm_clock_pairing)"],
        ClockPairingData::SIZE as u64
    );
    let data = ClockPairingData {
        sec: -0x0102_0304_0506_0708,
        nsec: 0x1112_1314_1516_1718,
        tsc: 0x2122_2324_2526_2728,
        flags: 0x3132_3334,
    };
    let bytes = data.to_bytes();
    assert_eq!(bytes[at("sec")..][..8], data.sec.to_le_bytes());
    assert_eq!(bytes[at("nsec")..][..8], data.nsec.to_le_bytes());
    assert_eq!(bytes[at("tsc")..][..8], data.tsc.to_le_bytes());
    assert_eq!(bytes[at("flags")..][..4], data.flags.to_le_bytes());
    assert!(bytes[at("flags") + 4..].iter().all(|byte| *byte == 0));

    assert_eq!(
        header["KVM_CLOCK_PAIRING_WALLCLOCK"],
        ClockPairing::WALLCLOCK
    );
    assert_eq!(
        header["KVM_MAP_GPA_RANGE_ENCRYPTED"],
        MapGpaRange::ENCRYPTED
    );
    assert_eq!(
        header["KVM_MAP_GPA_RANGE_PAGE_SZ_4K"],
        u64::from(PageSize::SIZE_4K.0)
    );
    assert_eq!(
        header["KVM_MAP_GPA_RANGE_PAGE_SZ_2M"],
        u64::from(PageSize::SIZE_2M.0)
    );
    assert_eq!(
        header["KVM_MAP_GPA_RANGE_PAGE_SZ_1G"],
        u64::from(PageSize::SIZE_1G.0)
    );
}
