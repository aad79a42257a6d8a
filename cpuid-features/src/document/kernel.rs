//! Text in the shape of the kernel's `Documentation/virtual/kvm/cpuid.txt`,
//! where the bit of paravirtual spinlocks was first documented.

use core::fmt;

use super::Document;
use crate::leaf::{KVM_CPUID_FEATURES, KVM_CPUID_SIGNATURE, KVM_SIGNATURE_WORDS};
use crate::table::{Arch, LOONGARCH_CPUCFG_FEATURE, LOONGARCH_CPUCFG_SIGNATURE, Provider};

/// Columns of a row's three fields.
const NAME: usize = 34;
const MEANING: usize = 40;

pub(super) fn write(f: &mut fmt::Formatter<'_>, document: &Document) -> fmt::Result {
    match document.arch {
        Arch::X86 => {
            let [ebx, ecx, edx] = KVM_SIGNATURE_WORDS;
            write!(
                f,
                "KVM CPUID bits\n\
                 ==============\n\n\
                 function: KVM_CPUID_SIGNATURE ({KVM_CPUID_SIGNATURE:#x})\n\
                 returns : eax = {KVM_CPUID_FEATURES:#x},\n          \
                 ebx = {ebx:#x},\n          \
                 ecx = {ecx:#x},\n          \
                 edx = {edx:#x}.\n\
                 ebx, ecx and edx are the string \"KVMKVMKVM\". eax is the highest leaf;\n\
                 0, as old hosts have it, reads as {KVM_CPUID_FEATURES:#x}. The leaves may be\n\
                 at another base: search in steps of 0x100 from {KVM_CPUID_SIGNATURE:#x} on.\n\n\
                 function: KVM_CPUID_FEATURES ({KVM_CPUID_FEATURES:#x})\n\
                 returns : ebx, ecx = 0,\n          \
                 eax = an OR'ed group of (1 << flag), where each flag is:\n\n"
            )?;
        }
        Arch::LoongArch => write!(
            f,
            "KVM CPUCFG bits\n\
             ===============\n\n\
             index: CPUCFG_KVM_SIG ({LOONGARCH_CPUCFG_SIGNATURE:#x})\n\
             returns : the bytes \"KVM\\0\".\n\n\
             index: CPUCFG_KVM_FEATURE ({LOONGARCH_CPUCFG_FEATURE:#x})\n\
             returns : an OR'ed group of (1 << flag), where each flag is:\n\n"
        )?,
    }
    head(f)?;
    for row in document.features() {
        field(f, row.kernel_name, row.bit, row.purpose)?;
        for msr in row.msrs {
            more(f, format_args!("msr {msr}"))?;
        }
        for gate in row.gates {
            more(
                f,
                format_args!("hypercall {} {}", gate.nr, gate.kernel_name),
            )?;
        }
        match row.provider {
            Provider::Kvm => {}
            Provider::Userspace(_) => more(f, format_args!("(offered by the VMM only)"))?,
            Provider::Removed => more(f, format_args!("(no longer in KVM)"))?,
        }
        rule(f)?;
    }
    if !document.hints().is_empty() {
        f.write_str("\n          edx = an OR'ed group of (1 << flag), where each flag is:\n\n")?;
        head(f)?;
        for hint in document.hints() {
            field(f, hint.kernel_name, hint.bit, hint.purpose)?;
            rule(f)?;
        }
    }
    Ok(())
}

fn head(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "{:<NAME$} || value || meaning", "flag")?;
    writeln!(f, "{:=<78}", "")
}

fn rule(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "{:-<78}", "")
}

/// A row: name, number, and the meaning broken at spaces.
fn field(f: &mut fmt::Formatter<'_>, name: &str, bit: u8, meaning: &str) -> fmt::Result {
    let mut rest = meaning;
    let mut first = true;
    while !rest.is_empty() {
        let (line, after) = split(rest);
        if first {
            writeln!(f, "{name:<NAME$} || {bit:>5} || {line}")?;
        } else {
            more(f, format_args!("{line}"))?;
        }
        first = false;
        rest = after;
    }
    Ok(())
}

fn more(f: &mut fmt::Formatter<'_>, line: fmt::Arguments<'_>) -> fmt::Result {
    writeln!(f, "{:<NAME$} || {:>5} || {line}", "", "")
}

/// As many words as fit, at least one, and the rest.
fn split(text: &str) -> (&str, &str) {
    if text.len() <= MEANING {
        return (text, "");
    }
    let mut fits = None;
    for (at, _) in text.match_indices(' ') {
        if at > MEANING && fits.is_some() {
            break;
        }
        fits = Some(at);
    }
    fits.and_then(|at| Some((text.get(..at)?, text.get(at + 1..)?)))
        .unwrap_or((text, ""))
}
