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

    /// How a guest makes the call.
    #[must_use]
    pub const fn convention(self) -> Convention {
        match self {
            Self::X86 => Convention {
                instruction: "VMCALL (0F 01 C1) or VMMCALL (0F 01 D9), by the CPU's vendor",
                number: "rax",
                arguments: "rbx, rcx, rdx, rsi",
                result: "rax, errors negated; 32 bits of everything outside 64-bit mode",
                source: "Documentation/virt/kvm/x86/hypercalls.rst",
            },
            Self::PowerPc => Convention {
                instruction: "the opcodes of hypercall-instructions in the device tree's \
                              /hypervisor node",
                number: "r11, the number combined by OR with 42 << 16",
                arguments: "r3 to r10",
                result: "r3: 0, 12 for not implemented, or a negative error; outputs from r4 on",
                source: "Documentation/virt/kvm/ppc-pv.rst",
            },
            Self::Mips => Convention {
                instruction: "HYPCALL with code 0",
                number: "v0",
                arguments: "a0 to a3",
                result: "v0",
                source: "Documentation/virt/kvm/x86/hypercalls.rst",
            },
            Self::LoongArch => Convention {
                instruction: "HVCL with code 0x100 for a numbered function, or with the code \
                              that is the row's number",
                number: "a0",
                arguments: "a1 to a5",
                result: "a0: 0, -1 for not implemented, -2 for a bad parameter; not the KVM_E \
                         codes",
                source: "Documentation/virt/kvm/loongarch/hypercalls.rst",
            },
            Self::Arm64 => Convention {
                instruction: "HVC, by the SMC calling convention 1.1",
                number: "w0, the function id",
                arguments: "x1 to x3",
                result: "x0: 0, -1 not supported, -2 not required, -3 invalid parameter; \
                         outputs in x0 to x3",
                source: "Documentation/virt/kvm/arm/hypercalls.rst; include/linux/arm-smccc.h",
            },
            Self::S390 => Convention {
                instruction: "DIAGNOSE",
                number: "the function code: bits 48-63 of the second operand's address; its \
                         subfunction in r1",
                arguments: "r2 to r7",
                result: "r2",
                source: "Documentation/virt/kvm/s390/s390-diag.rst",
            },
        }
    }
}

/// How a guest of an architecture makes a hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Convention {
    /// The instruction.
    pub instruction: &'static str,
    /// Where the number goes.
    pub number: &'static str,
    /// Where the arguments go, in order.
    pub arguments: &'static str,
    /// Where the result is found, and how errors look.
    pub result: &'static str,
    /// The kernel's document.
    pub source: &'static str,
}
