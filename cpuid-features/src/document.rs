//! The documents of the table of features; [`print`](crate::print) has the
//! formats.

use core::fmt;

use crate::leaf::{KVM_CPUID_FEATURES, KVM_CPUID_SIGNATURE, KVM_SIGNATURE_WORDS};
use crate::print::{Field, Format, Printer, Value, joined};
use crate::table::{
    Arch, FeatureRow, GuestConditions, HINTS, HintRow, LOONGARCH_CPUCFG_FEATURE,
    LOONGARCH_CPUCFG_SIGNATURE, Provider, features_of,
};

/// Rows of the overview: name, bit and meaning of each.
type Flags<'a> = &'a dyn Fn(&mut dyn FnMut(&str, u8, &str) -> fmt::Result) -> fmt::Result;

/// The table of one architecture, to be printed: its `Display` is the
/// document.
///
/// TSV has the columns register, bit, name.
///
/// ```
/// use cpuid_features::print::Format;
/// use cpuid_features::{Arch, Document};
///
/// let tsv = Document::new(Arch::X86, Format::Tsv).to_string();
/// assert!(tsv.starts_with("register\tbit\tname\n"));
/// assert!(tsv.contains("\neax\t7\tpv-unhalt\n"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document {
    arch: Arch,
    format: Format,
}

impl Document {
    /// The table of `arch` in that format.
    #[must_use]
    pub const fn new(arch: Arch, format: Format) -> Self {
        Self { arch, format }
    }

    fn features(&self) -> &'static [FeatureRow] {
        features_of(self.arch)
    }

    /// Only x86 has a word of hints.
    fn hints(&self) -> &'static [HintRow] {
        match self.arch {
            Arch::X86 => HINTS,
            Arch::LoongArch | Arch::PowerPc => &[],
        }
    }

    /// Where the features are.
    fn register(&self) -> &'static str {
        match self.arch {
            Arch::X86 => "eax",
            Arch::LoongArch => "cpucfg",
            Arch::PowerPc => "r4",
        }
    }

    /// The overview as TSV has it.
    fn tsv(&self, printer: &mut Printer<'_>) -> fmt::Result {
        printer.table(&["register", "bit", "name"], &|row| {
            for feature in self.features() {
                let bit = Value::Number(feature.bit.into());
                row(&[
                    Value::Text(&self.register()),
                    bit,
                    Value::Text(&feature.name),
                ])?;
            }
            for hint in self.hints() {
                let bit = Value::Number(hint.bit.into());
                row(&[Value::Text(&"edx"), bit, Value::Text(&hint.name)])?;
            }
            Ok(())
        })
    }

    /// The overview as the kernel's document has it.
    fn overview(&self, printer: &mut Printer<'_>, rows: Flags<'_>) -> fmt::Result {
        printer.table(&["flag", "value", "meaning"], &|row| {
            rows(&mut |name, bit, meaning| {
                let bit = Value::Number(bit.into());
                row(&[Value::Code(&name), bit, Value::Text(&meaning)])
            })
        })
    }

    fn prose(&self, printer: &mut Printer<'_>) -> fmt::Result {
        self.introduction(printer)?;
        self.overview(printer, &|row| {
            let features = self.features().iter();
            features
                .clone()
                .try_for_each(|feature| row(feature.kernel_name, feature.bit, feature.purpose))
        })?;
        if !self.hints().is_empty() {
            printer.text(&"edx = an OR'ed group of (1 << flag), where each flag is:")?;
            self.overview(printer, &|row| {
                let mut hints = self.hints().iter();
                hints.try_for_each(|hint| row(hint.kernel_name, hint.bit, hint.purpose))
            })?;
        }
        printer.heading(2, &"Each flag")?;
        printer.text(
            &"A guest checks a flag before it uses, or enables by the MSRs named, what the flag \
              stands for. What a flag needs are the flags without which a guest makes no use of it; what it \
              is ignored under are the hints that make a Linux guest pass it over.",
        )
    }

    fn introduction(&self, printer: &mut Printer<'_>) -> fmt::Result {
        let flags = |printer: &mut Printer<'_>, place| {
            printer.text(&format_args!(
                "{place} = an OR'ed group of (1 << flag), where each flag is:"
            ))
        };
        match self.arch {
            Arch::X86 => {
                let [ebx, ecx, edx] = KVM_SIGNATURE_WORDS;
                printer.heading(1, &"KVM CPUID bits")?;
                generated(printer, self.arch)?;
                printer.text(
                    &"A guest running on a KVM host can check some of its features using CPUID. \
                      This is not always guaranteed to work, since userspace can mask out some, \
                      or even all, KVM-related CPUID features before launching a guest. Unless \
                      it enables KVM_CAP_ENFORCE_PV_FEATURE_CPUID on a vCPU, a guest can use \
                      what its CPUID does not show.",
                )?;
                printer.heading(
                    2,
                    &format_args!("Function KVM_CPUID_SIGNATURE ({KVM_CPUID_SIGNATURE:#x})"),
                )?;
                printer.facts(&[
                    prose("eax", Value::Hex(KVM_CPUID_FEATURES.into())),
                    prose("ebx", Value::Hex(ebx.into())),
                    prose("ecx", Value::Hex(ecx.into())),
                    prose("edx", Value::Hex(edx.into())),
                ])?;
                printer.text(&format_args!(
                    "The values in ebx, ecx and edx correspond to the string \"KVMKVMKVM\": this \
                     function queries the presence of KVM's CPUID leaves. The value in eax is \
                     the highest function present, and will be updated if more functions are \
                     added in the future; VMMs set it higher for leaves of their own. Old hosts \
                     set it to 0, which should be interpreted as {KVM_CPUID_FEATURES:#x}."
                ))?;
                printer.text(&format_args!(
                    "The leaves may be at another base, behind those of Hyper-V: a guest \
                     searches for the signature in steps of 0x100 from {KVM_CPUID_SIGNATURE:#x} \
                     on, below 0x40010000."
                ))?;
                printer.heading(
                    2,
                    &format_args!("Function KVM_CPUID_FEATURES ({KVM_CPUID_FEATURES:#x})"),
                )?;
                printer.text(&"ebx, ecx = 0.")?;
                flags(printer, "eax")
            }
            Arch::LoongArch => {
                printer.heading(1, &"KVM CPUCFG bits on LoongArch")?;
                generated(printer, self.arch)?;
                printer.text(&format_args!(
                    "CPUCFG indices from {LOONGARCH_CPUCFG_SIGNATURE:#x} to 0x400000ff are \
                     reserved: no processor implements a feature there. On KVM, index \
                     {LOONGARCH_CPUCFG_SIGNATURE:#x} (CPUCFG_KVM_SIG) reads as the bytes \
                     \"KVM\\0\". Bits 24 to 31 of the feature word are features that the VMM \
                     configures."
                ))?;
                printer.text(&format_args!(
                    "CPUCFG_KVM_FEATURE ({LOONGARCH_CPUCFG_FEATURE:#x}) = an OR'ed group of (1 << flag), where each flag is:"
                ))
            }
            Arch::PowerPc => {
                printer.heading(1, &"KVM feature bits on PowerPC")?;
                generated(printer, self.arch)?;
                printer.text(
                    &"A guest of KVM has a node /hypervisor in its device tree, with the value \
                      \"linux,kvm\" in its property compatible. There it can ask for the feature \
                      word by the hypercall KVM_HC_FEATURES.",
                )?;
                flags(printer, "r4")
            }
        }
    }

    fn feature(&self, printer: &mut Printer<'_>, row: &FeatureRow) -> fmt::Result {
        let (provider, duty) = match row.provider {
            Provider::Kvm => ("kvm", None),
            Provider::Userspace(duty) => ("userspace", Some(duty)),
            Provider::Removed => ("removed", None),
        };
        printer.record(
            &format_args!("{}. {}", row.bit, row.kernel_name),
            &[
                json("arch", Value::Text(&row.arch)),
                json("register", Value::Text(&self.register())),
                both("bit", "Bit", Value::Number(row.bit.into())),
                both("name", "Name", Value::Code(&row.name)),
                json("kernel_name", Value::Code(&row.kernel_name)),
                both("qemu", "QEMU's property", optional(&row.qemu, "none")),
                both("purpose", "Purpose", Value::Text(&row.purpose)),
                json(
                    "msrs",
                    Value::List(&|each| {
                        let mut msrs = row.msrs.iter();
                        msrs.try_for_each(|msr| each(Value::Hex(msr.index.into())))
                    }),
                ),
                prose(
                    "MSRs",
                    Value::List(&|each| {
                        let mut msrs = row.msrs.iter();
                        msrs.try_for_each(|msr| {
                            each(Value::Text(&format_args!("{msr} {}", msr.kernel_name)))
                        })
                    }),
                ),
                both(
                    "hypercalls",
                    "Hypercalls",
                    Value::List(&|each| {
                        let mut names = row.hypercalls.iter();
                        names.try_for_each(|name| each(Value::Code(name)))
                    }),
                ),
                json("provider", Value::Text(&provider)),
                json("vmm_duty", optional(&duty, "none")),
                prose("Provided by", Value::Text(&row.provider)),
                both(
                    "needs",
                    "Needs",
                    Value::List(&|each| {
                        let mut bits = row.needs.singles();
                        bits.try_for_each(|bit| each(Value::Text(&bit)))
                    }),
                ),
                both(
                    "ignored_under",
                    "Ignored under",
                    Value::List(&|each| {
                        let mut bits = row.conflicts.singles();
                        bits.try_for_each(|bit| each(Value::Text(&bit)))
                    }),
                ),
                json("several_vcpus", Value::Flag(row.guest.several_vcpus)),
                json("no_mwait", Value::Flag(row.guest.no_mwait)),
                prose("A Linux guest wants", Value::Text(&row.guest)),
                both(
                    "without_lapic",
                    "Without a local APIC in KVM",
                    optional(&row.without_lapic, "works"),
                ),
                both("since", "Since Linux", Value::Text(&row.since)),
                both(
                    "since_source",
                    "Release by",
                    Value::Text(&row.since.source()),
                ),
            ],
        )
    }

    fn hint(printer: &mut Printer<'_>, row: &HintRow) -> fmt::Result {
        printer.record(
            &format_args!("{}. {}", row.bit, row.kernel_name),
            &[
                json("arch", Value::Text(&Arch::X86)),
                both("register", "Register", Value::Text(&"edx")),
                both("bit", "Bit", Value::Number(row.bit.into())),
                both("name", "Name", Value::Code(&row.name)),
                json("kernel_name", Value::Code(&row.kernel_name)),
                both("qemu", "QEMU's property", optional(&row.qemu, "none")),
                both("purpose", "Purpose", Value::Text(&row.purpose)),
                json("provider", Value::Text(&"userspace")),
                prose("Provided by", Value::Text(&"the VMM: KVM gives no hints")),
            ],
        )
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut printer = Printer::new(self.format, f)?;
        match self.format {
            Format::Tsv => self.tsv(&mut printer)?,
            Format::Json => {}
            Format::Kernel | Format::Markdown => self.prose(&mut printer)?,
        }
        for row in self.features() {
            self.feature(&mut printer, row)?;
        }
        for row in self.hints() {
            Self::hint(&mut printer, row)?;
        }
        printer.finish()
    }
}

/// Says where a Markdown page comes from; the kernel's document has no such
/// line.
fn generated(printer: &mut Printer<'_>, arch: Arch) -> fmt::Result {
    if printer.format() == Format::Markdown {
        printer.text(&format_args!(
            "Printed from the crate's table by the example features with --format markdown \
             --arch {arch}: do not edit."
        ))?;
    }
    Ok(())
}

fn both<'a>(key: &'static str, label: &'static str, value: Value<'a>) -> Field<'a> {
    Field { key, label, value }
}

fn json<'a>(key: &'static str, value: Value<'a>) -> Field<'a> {
    both(key, "", value)
}

fn prose<'a>(label: &'static str, value: Value<'a>) -> Field<'a> {
    both("", label, value)
}

fn optional<'a>(text: &'a Option<&'static str>, missing: &'static str) -> Value<'a> {
    match text {
        Some(text) => Value::Text(text),
        None => Value::Missing(missing),
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kvm => f.write_str("KVM"),
            Self::Userspace(duty) => write!(f, "the VMM, when {duty}"),
            Self::Removed => f.write_str("nobody: removed from KVM"),
        }
    }
}

impl fmt::Display for GuestConditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.several_vcpus, self.no_mwait) {
            (false, false) => f.write_str("none"),
            (true, false) => f.write_str("more than one possible vCPU"),
            (false, true) => f.write_str("no MWAIT"),
            (true, true) => joined(f, ["more than one possible vCPU", "no MWAIT"]),
        }
    }
}
