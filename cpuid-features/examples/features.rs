//! Prints the table of features, or decodes a feature leaf.

use std::io::{self, ErrorKind, Read, Write};
use std::process::ExitCode;

use cpuid_features::print::Format;
use cpuid_features::{
    Arch, Document, Dump, HaltService, KickService, KvmFeatures, KvmHints, KvmLeaf, Profile,
    Reason, VmmSupport, migratable, offer,
};

const USAGE: &str = "\
Prints KVM's paravirtual CPUID features and hints, or decodes them.

Usage:
  features [--format kernel|markdown|tsv|json] [--arch x86|loongarch|powerpc]
  features decode EAX [EDX]   names the bits of a feature leaf
  features decode -           finds and decodes KVM's leaves in a raw dump
                              (`cpuid -r`) on standard input
  features native             decodes what this machine was given
  features profile NAME [EAX] what a confidential guest (sev-snp, tdx) is shown of
                              what KVM reports, with reason and source
  features migrate FROM TO    whether a guest that was shown all that one KVM
                              reports can go to another, and what stops it

Examples:
  features decode 0x01007efb
  ssh guest cpuid -r | features decode -
  features profile tdx
  features migrate 0x01007efb 0x010004fb
";

/// What went wrong, and the exit status.
struct Failure(String, u8);

/// The words at fault are the user's: whatever they hold stays on one line.
fn usage(message: impl Into<String>) -> Failure {
    let message = message.into().replace(|c: char| c.is_control(), "?");
    Failure(message + "; see --help", 2)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let text = match args.as_slice() {
        ["-h" | "--help"] => Ok(USAGE.to_owned()),
        ["decode", "-"] => decode_dump(),
        ["decode", eax] => decode_words(eax, "0"),
        ["decode", eax, edx] => decode_words(eax, edx),
        ["decode", ..] => Err(usage("decode takes EAX and, if you like, EDX")),
        ["native"] => decode_native(),
        ["profile", name] => profile(name, "0x01007efb"),
        ["profile", name, eax] => profile(name, eax),
        ["profile", ..] => Err(usage("profile takes NAME and, if you like, EAX")),
        ["migrate", from, to] => migrate(from, to),
        ["migrate", ..] => Err(usage("migrate takes FROM and TO")),
        options => table(options),
    };
    let printed = text.and_then(|text| {
        match io::stdout().write_all(text.as_bytes()) {
            // A reader that has seen enough, as `head` does.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                Err(Failure(format!("cannot print: {error}"), 1))
            }
            _ => Ok(()),
        }
    });
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(message, status)) => {
            eprintln!("features: {message}");
            ExitCode::from(status)
        }
    }
}

fn table(mut options: &[&str]) -> Result<String, Failure> {
    let (mut format, mut arch) = (Format::Kernel, Arch::X86);
    loop {
        options = match options {
            [] => return Ok(Document::new(arch, format).to_string()),
            ["--format", name, rest @ ..] => {
                format = name
                    .parse()
                    .map_err(|known| usage(format!("`{name}` is no format, {known}")))?;
                rest
            }
            ["--arch", name, rest @ ..] => {
                arch = (Arch::ALL.into_iter())
                    .find(|arch| arch.name() == *name)
                    .ok_or_else(|| usage(format!("`{name}` has no feature word of KVM's")))?;
                rest
            }
            [other, ..] => return Err(usage(format!("`{other}` is not understood"))),
        };
    }
}

fn decode_words(eax: &str, edx: &str) -> Result<String, Failure> {
    Ok(words(
        KvmFeatures::from_bits_retain(number(eax)?),
        KvmHints::from_bits_retain(number(edx)?),
    ))
}

fn number(word: &str) -> Result<u32, Failure> {
    let parsed = match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => word.parse(),
    };
    parsed.map_err(|_| usage(format!("`{word}` is no 32-bit number")))
}

fn decode_dump() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    io::stdin()
        .read_to_end(&mut bytes)
        .map_err(|error| Failure(format!("cannot read the dump: {error}"), 1))?;
    let text = String::from_utf8_lossy(&bytes);
    let dump = Dump::new(&text);
    if dump.entries().next().is_none() {
        let message = "no line of the input is a CPUID entry as `cpuid -r` prints them";
        return Err(Failure(message.into(), 1));
    }
    leaf(KvmLeaf::read(&dump))
}

#[cfg(target_arch = "x86_64")]
fn decode_native() -> Result<String, Failure> {
    leaf(KvmLeaf::read(&cpuid_features::Native))
}

#[cfg(not(target_arch = "x86_64"))]
fn decode_native() -> Result<String, Failure> {
    Err(Failure("this machine has no CPUID instruction".into(), 1))
}

/// A VMM as most are: KVM has the local APIC.
const KERNEL: VmmSupport = VmmSupport {
    halts: HaltService::Kernel,
    kicks: KickService::Kernel,
    hlt_exits: true,
    exit_hypercall: false,
    msi_ext_dest_id: false,
    migration_control: false,
    vcpus: None,
    implements: KvmFeatures::empty(),
    excludes: &[],
};

/// One line a bit that KVM reports: what became of it, name, reason, source.
fn profile(name: &str, eax: &str) -> Result<String, Failure> {
    let profile = (Profile::ALL.into_iter())
        .find(|profile| profile.name() == name)
        .ok_or_else(|| {
            let known = Profile::ALL.map(Profile::name).join(", ");
            usage(format!("`{name}` is no profile, expected one of {known}"))
        })?;
    let host = KvmFeatures::from_bits_retain(number(eax)?);
    let vmm = VmmSupport {
        excludes: profile.exclusions(),
        ..KERNEL
    };
    let offered = offer(host, &vmm);
    let lines = host.singles().filter_map(|bit| {
        let decision = offered.reason(bit)?;
        let source = match decision.reason {
            Reason::Excluded(one) => one.source,
            _ => "",
        };
        let (outcome, reason) = (decision.outcome, decision.reason);
        Some(format!("{outcome}\t{bit}\t{reason}\t{source}\n"))
    });
    Ok(lines.collect())
}

fn migrate(from: &str, to: &str) -> Result<String, Failure> {
    let offered = |eax| Ok(offer(KvmFeatures::from_bits_retain(number(eax)?), &KERNEL));
    let (here, there) = (offered(from)?, offered(to)?);
    let shown = KvmLeaf::read(&|leaf| here.leaves().get(leaf));
    let shown = shown.ok_or_else(|| Failure("no leaf".into(), 1))?;
    let migration = migratable(&shown, &there);
    if migration.is_possible() {
        return Ok(format!("{migration}\n"));
    }
    let lines = migration
        .obstacles()
        .map(|one| format!("{}\t{}\n", one.bit, one.reason));
    Ok(lines.collect())
}

fn leaf(found: Option<KvmLeaf>) -> Result<String, Failure> {
    let found = found.ok_or_else(|| Failure("no KVM signature at any base".into(), 1))?;
    Ok(format!(
        "base {:#x}, highest leaf {:#x}, eax {:#010x}, edx {:#010x}\n{}",
        found.base,
        found.max_leaf,
        found.features.bits(),
        found.hints.bits(),
        words(found.features, found.hints)
    ))
}

/// One line a bit: register, bit, name, purpose.
fn words(features: KvmFeatures, hints: KvmHints) -> String {
    let unknown = "not known to this version";
    let features = features.singles().map(|bit| {
        let purpose = bit.row().map_or(unknown, |row| row.purpose);
        ("eax", bit.bits(), bit.to_string(), purpose)
    });
    let hints = hints.singles().map(|bit| {
        let purpose = bit.row().map_or(unknown, |row| row.purpose);
        ("edx", bit.bits(), bit.to_string(), purpose)
    });
    features
        .chain(hints)
        .map(|(register, mask, name, purpose)| {
            format!("{register}\t{}\t{name}\t{purpose}\n", mask.trailing_zeros())
        })
        .collect()
}
