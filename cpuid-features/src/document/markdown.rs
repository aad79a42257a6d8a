//! Markdown, with everything a row has.

use core::fmt;

use super::{Document, list};
use crate::table::Arch;

pub(super) fn write(f: &mut fmt::Formatter<'_>, document: &Document) -> fmt::Result {
    f.write_str(match document.arch {
        Arch::X86 => {
            "# KVM's CPUID features and hints\n\n\
             Generated from the table in `src/table.rs` by the example `features`; do not edit.\n\n\
             ## eax of leaf base | 0x40000001\n\n"
        }
        Arch::LoongArch => {
            "# KVM's CPUCFG features on LoongArch\n\n\
             ## CPUCFG 0x40000004\n\n"
        }
    })?;
    f.write_str(
        "| bit | name | kernel | MSRs | hypercalls | purpose |\n|---:|---|---|---|---|---|\n",
    )?;
    for row in document.features() {
        write!(f, "| {} | {} | `{}` | ", row.bit, row.name, row.kernel_name)?;
        list(f, row.msrs)?;
        f.write_str(" | ")?;
        list(f, row.gates.iter().map(|gate| gate.nr))?;
        writeln!(f, " | {} |", row.purpose)?;
    }
    f.write_str(
        "\n## What each bit rests on\n\n\
         Needs: features without which a guest makes no use of it. Ignored under: hints that \
         make a Linux guest pass it over.\n\n\
         | name | provided by | needs | ignored under | a Linux guest wants | without a local \
         APIC in KVM | since Linux | QEMU |\n|---|---|---|---|---|---|---|---|\n",
    )?;
    for row in document.features() {
        write!(f, "| {} | {} | ", row.name, row.provider)?;
        list(f, row.needs.singles())?;
        f.write_str(" | ")?;
        list(f, row.conflicts.singles())?;
        writeln!(
            f,
            " | {} | {} | {} | {} |",
            row.guest,
            row.without_lapic.unwrap_or("works"),
            row.since.unwrap_or("unverified"),
            row.qemu.unwrap_or("none"),
        )?;
    }
    if !document.hints().is_empty() {
        f.write_str(
            "\n## edx of leaf base | 0x40000001: hints\n\n\
             | bit | name | kernel | QEMU | purpose |\n|---:|---|---|---|---|\n",
        )?;
        for hint in document.hints() {
            writeln!(
                f,
                "| {} | {} | `{}` | {} | {} |",
                hint.bit,
                hint.name,
                hint.kernel_name,
                hint.qemu.unwrap_or("none"),
                hint.purpose
            )?;
        }
    }
    Ok(())
}
