//! The architectures that have hypercalls of KVM's, or an equivalent, and how
//! a guest makes one there.

use core::fmt;

use crate::table::Register::{
    self, A0, A1, A2, A3, A4, A5, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10, R11, Rax, Rbx, Rcx, Rdx,
    Rsi, V0, X0, X1, X2, X3,
};

/// An architecture: half of the key of a table row, since each has a number
/// space of its own (LoongArch's 1 is an IPI, x86's 1 polls the virtual APIC).
///
/// ```
/// use hypercall_abi::{Arch, Register};
///
/// assert_eq!(Arch::X86.convention().number, Register::Rax);
/// assert_eq!(Arch::X86.convention().arguments[1], Register::Rcx);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Arch {
    /// x86, 32 and 64 bits.
    X86,
    /// PowerPC, the kernel's `powerpc`.
    PowerPc,
    /// MIPS, the kernel's `mips`.
    Mips,
    /// LoongArch, the kernel's `loongarch`.
    LoongArch,
    /// 64-bit Arm, the kernel's `arm64`.
    Arm64,
    /// IBM Z, the kernel's `s390`.
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

    /// How a guest makes the call. See [`Arch`] for an example.
    #[must_use]
    pub const fn convention(self) -> Convention {
        match self {
            Self::X86 => Convention {
                instruction: "VMCALL (0F 01 C1) or VMMCALL (0F 01 D9), by the CPU's vendor: \
                              three bytes either way, which the hypervisor can replace by the \
                              one that is guaranteed to be supported",
                number: Rax,
                number_note: "",
                arguments: &[Rbx, Rcx, Rdx, Rsi],
                result: Rax,
                result_note: "errors negated; 32 bits of everything outside 64-bit mode",
                preserved: "every other register, unless the hypercall says otherwise",
                source: "Documentation/virt/kvm/x86/hypercalls.rst",
            },
            Self::PowerPc => Convention {
                instruction: "the 4-byte opcodes, 4 at most, of the property hypercall-instructions in \
                              the device tree's /hypervisor node",
                number: R11,
                number_note: "the number combined by OR with KVM's vendor code 42 << 16",
                arguments: &[R3, R4, R5, R6, R7, R8, R9, R10],
                result: R3,
                result_note: "0, 12 for not implemented, or a negative error; outputs in r4 to \
                              r11",
                preserved: "not r0, r3 to r12",
                source: "Documentation/virt/kvm/ppc-pv.rst",
            },
            Self::Mips => Convention {
                instruction: "HYPCALL with code 0",
                number: V0,
                number_note: "$2",
                arguments: &[A0, A1, A2, A3],
                result: V0,
                result_note: "",
                preserved: "every other register",
                source: "Documentation/virt/kvm/x86/hypercalls.rst",
            },
            Self::LoongArch => Convention {
                instruction: "HVCL with code 0x100 for a numbered function, or with the code \
                              that is the row's number",
                number: A0,
                number_note: "",
                arguments: &[A1, A2, A3, A4, A5],
                result: A0,
                result_note: "v0 is another name for it: 0, -1 for not implemented, -2 for a bad \
                              parameter; not the KVM_E codes",
                preserved: "every other register, those of floating point and vectors too",
                source: "Documentation/virt/kvm/loongarch/hypercalls.rst",
            },
            Self::Arm64 => Convention {
                instruction: "HVC, by the SMC calling convention 1.1 (Arm DEN0028C)",
                number: X0,
                number_note: "32 bits, the function id",
                arguments: &[X1, X2, X3],
                result: X0,
                result_note: "0, -1 not supported, -2 not required, -3 invalid parameter; outputs \
                              in x0 to x3",
                preserved: "x4 and up",
                source: "Documentation/virt/kvm/arm/hypercalls.rst; include/linux/arm-smccc.h",
            },
            Self::S390 => Convention {
                instruction: "DIAGNOSE, in the RS-a format; the function code is bits 48-63 of \
                              the second operand's address. Code 0x500 has a subcode",
                number: R1,
                number_note: "the subcode of 0x500",
                arguments: &[R2, R3, R4, R5, R6, R7],
                result: R2,
                result_note: "of 0x500",
                preserved: "every other register",
                source: "Documentation/virt/kvm/s390/s390-diag.rst",
            },
        }
    }
}

/// How a guest of an architecture makes a hypercall. See [`Arch`] for an
/// example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Convention {
    /// The instruction that makes the call.
    pub instruction: &'static str,
    /// The register that holds the hypercall's number.
    pub number: Register,
    /// A note on the number register; may be empty.
    pub number_note: &'static str,
    /// Where the arguments go, in order.
    pub arguments: &'static [Register],
    /// Where the result is found.
    pub result: Register,
    /// How errors look, and where outputs are; may be empty.
    pub result_note: &'static str,
    /// Which registers the call preserves.
    pub preserved: &'static str,
    /// The kernel's document, or source file, that says all this.
    pub source: &'static str,
}

impl Convention {
    pub(crate) const fn number_text(&self) -> impl fmt::Display {
        Noted(self.number, self.number_note)
    }

    pub(crate) const fn result_text(&self) -> impl fmt::Display {
        Noted(self.result, self.result_note)
    }

    pub(crate) const fn arguments_text(&self) -> impl fmt::Display {
        Listed(self.arguments)
    }
}

struct Noted(Register, &'static str);

impl fmt::Display for Noted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        if self.1.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", self.1)
    }
}

struct Listed(&'static [Register]);

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, register) in self.0.iter().enumerate() {
            write!(f, "{}{register}", if nth == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}
