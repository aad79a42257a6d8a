//! The architectures that have hypercalls of KVM's, or an equivalent.

/// An architecture: half of the key of a table row, since each has a number
/// space of its own (LoongArch's 1 is an IPI, x86's 1 polls the virtual APIC).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Arch {
    /// x86, 32 and 64 bits.
    X86,
    /// PowerPC.
    PowerPc,
    /// MIPS.
    Mips,
    /// LoongArch.
    LoongArch,
    /// 64-bit Arm.
    Arm64,
    /// s390.
    S390,
}

impl Arch {
    /// Every architecture of the table, in its order.
    pub const ALL: [Self; 6] = [
        Self::X86,
        Self::PowerPc,
        Self::Mips,
        Self::LoongArch,
        Self::Arm64,
        Self::S390,
    ];

    /// The name as printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86 => "x86",
            Self::PowerPc => "PPC",
            Self::Mips => "MIPS",
            Self::LoongArch => "LoongArch",
            Self::Arm64 => "arm64",
            Self::S390 => "s390",
        }
    }
}
