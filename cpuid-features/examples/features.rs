//! Prints the table of features, or decodes a feature leaf.

use std::io::{self, ErrorKind, Read, Write};
use std::process::ExitCode;

use cpuid_features::print::Format;
use cpuid_features::{Arch, Document, Dump, KvmFeatures, KvmHints, KvmLeaf};

const USAGE: &str = "\
Prints KVM's paravirtual CPUID features and hints, or decodes them.

Usage:
  features [--format kernel|markdown|tsv|json] [--arch x86|loongarch|powerpc]
  features decode EAX [EDX]   names the bits of a feature leaf
  features decode -           finds and decodes KVM's leaves in a raw dump
                              (`cpuid -r`) on standard input
  features native             decodes what this machine was given

Examples:
  features decode 0x01007efb
  ssh guest cpuid -r | features decode -
";

/// What went wrong, and the exit status.
struct Failure(String, u8);

fn usage(message: impl Into<String>) -> Failure {
    Failure(message.into() + "; see --help", 2)
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
