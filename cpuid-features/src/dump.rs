//! Raw dumps as the `cpuid` tool prints them (`cpuid -r`), so that a machine
//! can be decoded from a bug report.
//!
//! ```text
//! CPU 0:
//!    0x40000000 0x00: eax=0x40000001 ebx=0x4b4d564b ecx=0x564b4d56 edx=0x0000004d
//!    0x40000001 0x00: eax=0x01007efb ebx=0x00000000 ecx=0x00000000 edx=0x00000000
//! ```

use core::fmt;

use crate::leaf::{
    CpuidReader, CpuidRegs, HYPERVISOR_BASE_END, HYPERVISOR_BASE_STEP, KVM_CPUID_SIGNATURE,
};

/// How many places there are for a hypervisor's leaves.
const BASES: usize = ((HYPERVISOR_BASE_END - KVM_CPUID_SIGNATURE) / HYPERVISOR_BASE_STEP) as usize;

/// The text of a dump.
///
/// Lines that are not CPUID entries (headings, a mail's quoting, cut lines)
/// are passed over. Of several CPUs the first one that has a leaf counts.
///
/// ```
/// use cpuid_features::{Dump, KvmLeaf};
///
/// let dump = Dump::new(
///     "> 0x40000000 0x00: eax=0x0 ebx=0x4b4d564b ecx=0x564b4d56 edx=0x4d\n\
///      > 0x40000001 0x00: eax=0x80 ebx=0x0 ecx=0x0 edx=0x0\n",
/// );
/// assert_eq!(dump.entries().count(), 2);
/// let leaf = KvmLeaf::read(&dump).unwrap();
/// assert_eq!((leaf.base, leaf.max_leaf), (0x4000_0000, 0x4000_0001));
/// assert_eq!(leaf.features.to_string(), "pv-unhalt");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Dump<'a> {
    text: &'a str,
}

/// One line of a dump.
///
/// ```
/// use cpuid_features::DumpEntry;
///
/// let line = "   0x00000001 0x00: eax=0x00000001 ebx=0x00000002 ecx=0x00000003 edx=0x00000004";
/// let entry = DumpEntry::parse(line).unwrap();
/// assert_eq!((entry.leaf, entry.regs.ecx), (1, 3));
/// assert_eq!(entry.to_string(), line);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpEntry {
    /// The leaf: `eax` before CPUID.
    pub leaf: u32,
    /// The sub-leaf: `ecx` before CPUID.
    pub subleaf: u32,
    /// The four registers that CPUID returned.
    pub regs: CpuidRegs,
}

impl<'a> Dump<'a> {
    /// A dump is any text: whether it holds entries shows in
    /// [`entries`](Self::entries).
    #[must_use]
    pub const fn new(text: &'a str) -> Self {
        Self { text }
    }

    /// The entries in the order of the text.
    pub fn entries(&self) -> impl Iterator<Item = DumpEntry> + 'a {
        self.text.lines().filter_map(DumpEntry::parse)
    }
}

impl DumpEntry {
    /// One line, or `None` if it is not an entry. White space and `>` before
    /// it are a mail's quoting and are passed over.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let line = line.trim_start_matches(|c: char| c == '>' || c.is_whitespace());
        let mut words = line.split_ascii_whitespace();
        let leaf = hex(words.next()?)?;
        let subleaf = hex(words.next()?.strip_suffix(':')?)?;
        let mut register = |name| hex(words.next()?.strip_prefix(name)?.strip_prefix('=')?);
        let regs = CpuidRegs {
            eax: register("eax")?,
            ebx: register("ebx")?,
            ecx: register("ecx")?,
            edx: register("edx")?,
        };
        Some(Self {
            leaf,
            subleaf,
            regs,
        })
    }
}

/// The line of a dump, as [`DumpEntry::parse`] reads it back.
impl fmt::Display for DumpEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CpuidRegs { eax, ebx, ecx, edx } = self.regs;
        write!(
            f,
            "   {:#010x} {:#04x}: eax={eax:#010x} ebx={ebx:#010x} ecx={ecx:#010x} edx={edx:#010x}",
            self.leaf, self.subleaf
        )
    }
}

/// `0x` and one to eight hexadecimal digits.
fn hex(word: &str) -> Option<u32> {
    let digits = word.strip_prefix("0x")?;
    // from_str_radix would take a sign.
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, 16).ok()
}

impl CpuidReader for Dump<'_> {
    fn leaf(&self, leaf: u32) -> Option<CpuidRegs> {
        self.entries()
            .find(|entry| entry.leaf == leaf && entry.subleaf == 0)
            .map(|entry| entry.regs)
    }

    /// One pass over the text; to ask for each possible base would take 256.
    fn kvm_base(&self) -> Option<u32> {
        let mut first_seen = [false; BASES];
        let mut lowest = None;
        for entry in self.entries().filter(|entry| entry.subleaf == 0) {
            let Some(offset) = entry.leaf.checked_sub(KVM_CPUID_SIGNATURE) else {
                continue;
            };
            if offset % HYPERVISOR_BASE_STEP != 0 {
                continue;
            }
            let Some(seen) = first_seen.get_mut((offset / HYPERVISOR_BASE_STEP) as usize) else {
                continue;
            };
            if !core::mem::replace(seen, true)
                && entry.regs.is_kvm_signature()
                && lowest.is_none_or(|base| entry.leaf < base)
            {
                lowest = Some(entry.leaf);
            }
        }
        lowest
    }
}
