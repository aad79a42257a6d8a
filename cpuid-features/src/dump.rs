//! Raw dumps as the `cpuid` tool prints them (`cpuid -r`), so that a machine
//! can be decoded from a bug report.
//!
//! ```text
//! CPU 0:
//!    0x40000000 0x00: eax=0x40000001 ebx=0x4b4d564b ecx=0x564b4d56 edx=0x0000004d
//!    0x40000001 0x00: eax=0x01007efb ebx=0x00000000 ecx=0x00000000 edx=0x00000000
//! ```

use crate::leaf::{
    CpuidReader, CpuidRegs, HYPERVISOR_BASE_END, HYPERVISOR_BASE_STEP, KVM_CPUID_SIGNATURE,
};

/// The text of a dump.
///
/// Lines that are not CPUID entries (headings, a mail's quoting, cut lines)
/// are passed over. Of several CPUs the first one that has a leaf counts.
#[derive(Clone, Copy, Debug)]
pub struct Dump<'a> {
    text: &'a str,
}

/// One line of a dump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DumpEntry {
    /// The leaf, `eax` on the way in.
    pub leaf: u32,
    /// The sub-leaf, `ecx` on the way in.
    pub subleaf: u32,
    /// What CPUID returned.
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

    /// One pass over the text; asking for each possible base would be 256.
    fn kvm_base(&self) -> Option<u32> {
        self.entries()
            .filter(|entry| entry.subleaf == 0 && entry.regs.is_kvm_signature())
            .map(|entry| entry.leaf)
            .filter(|leaf| {
                (KVM_CPUID_SIGNATURE..HYPERVISOR_BASE_END).contains(leaf)
                    && leaf.is_multiple_of(HYPERVISOR_BASE_STEP)
            })
            .filter(|&leaf| {
                self.leaf(leaf)
                    .is_some_and(|first| first.is_kvm_signature())
            })
            .min()
    }
}
