//! What goes in and what comes out beside the return code: registers and
//! memory, with what of them counts.

use core::fmt;

/// A register by which a hypercall takes or gives something, on any
/// architecture.
///
/// ```
/// use hypercall_abi::Register;
///
/// assert_eq!(Register::Rcx.name(), "rcx");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names of registers are their own")]
pub enum Register {
    // x86
    Rax,
    Rbx,
    Rcx,
    Rdx,
    Rsi,
    // PowerPC: r3 to r11. s390: general registers 1 to 7.
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
    R11,
    // MIPS and LoongArch
    V0,
    A0,
    A1,
    A2,
    A3,
    A4,
    A5,
    // arm64
    X0,
    X1,
    X2,
    X3,
}

impl Register {
    /// The name as assemblers have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rax => "rax",
            Self::Rbx => "rbx",
            Self::Rcx => "rcx",
            Self::Rdx => "rdx",
            Self::Rsi => "rsi",
            Self::R1 => "r1",
            Self::R2 => "r2",
            Self::R3 => "r3",
            Self::R4 => "r4",
            Self::R5 => "r5",
            Self::R6 => "r6",
            Self::R7 => "r7",
            Self::R8 => "r8",
            Self::R9 => "r9",
            Self::R10 => "r10",
            Self::R11 => "r11",
            Self::V0 => "v0",
            Self::A0 => "a0",
            Self::A1 => "a1",
            Self::A2 => "a2",
            Self::A3 => "a3",
            Self::A4 => "a4",
            Self::A5 => "a5",
            Self::X0 => "x0",
            Self::X1 => "x1",
            Self::X2 => "x2",
            Self::X3 => "x3",
        }
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where an operand is.
///
/// ```
/// use hypercall_abi::{Place, Register};
///
/// assert_eq!(Place::Memory(Register::Rbx).to_string(), "memory at rbx");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Place {
    /// In this register itself.
    In(Register),
    /// In memory, at the guest physical address in that register.
    Memory(Register),
    /// In the register that this field of the instruction names (s390).
    Named(&'static str),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::In(register) => register.fmt(f),
            Self::Memory(register) => write!(f, "memory at {register}"),
            Self::Named(field) => write!(f, "the register that {field} names"),
        }
    }
}

/// How much of an operand counts.
///
/// ```
/// use hypercall_abi::Width;
///
/// assert_eq!(Width::Bits32.to_string(), "32 bits");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Width {
    /// The register in 64-bit mode, its low half outside of it.
    Mode,
    /// All 64 bits, whatever the mode.
    Bits64,
    /// The low 32 bits, whatever the mode.
    Bits32,
    /// Nothing: the callee does not look.
    Ignored,
    /// So many bytes of memory.
    Bytes(u16),
}

impl fmt::Display for Width {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mode => f.write_str("64 or 32 bits, by mode"),
            Self::Bits64 => f.write_str("64 bits"),
            Self::Bits32 => f.write_str("32 bits"),
            Self::Ignored => f.write_str("ignored"),
            Self::Bytes(bytes) => write!(f, "{bytes} bytes"),
        }
    }
}

/// One operand of a call.
///
/// ```
/// use hypercall_abi::{Arch, Place, Register, Width, find};
///
/// let kick = find(Arch::X86, 5).unwrap();
/// assert_eq!(kick.inputs[1].place, Place::In(Register::Rcx));
/// assert_eq!(kick.inputs[1].width, Width::Mode);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Field {
    /// The register or memory that holds it.
    pub place: Place,
    /// How much of it counts.
    pub width: Width,
    /// What the value means, and its unit.
    pub meaning: &'static str,
}

impl Field {
    pub(super) const fn new(place: Place, width: Width, meaning: &'static str) -> Self {
        Self {
            place,
            width,
            meaning,
        }
    }
}
