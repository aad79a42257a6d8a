//! One row of the table.

use core::fmt;

use cpuid_features::Since;

use super::{Field, Gate, Return};
use crate::arch::Arch;

/// Whether a hypercall is still one.
///
/// ```
/// use hypercall_abi::{Arch, Status, find};
///
/// assert_eq!(find(Arch::X86, 2).unwrap().status, Status::Deprecated);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// Served by current kernels.
    Active,
    /// Superseded, and its code removed: current kernels answer as to an
    /// unknown number.
    Deprecated,
    /// A number that the header keeps, and that the kernel answers as an
    /// unknown one.
    Reserved,
    /// In patches only: no kernel has it, and its number may come to mean
    /// something else.
    Proposed,
}

impl Status {
    /// The word as printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Deprecated => "deprecated",
            Self::Reserved => "reserved",
            Self::Proposed => "proposed",
        }
    }
}

/// Who serves the call on the host.
///
/// ```
/// use hypercall_abi::{Arch, KVM_HC_MAP_GPA_RANGE, Server, find};
///
/// let row = find(Arch::X86, KVM_HC_MAP_GPA_RANGE).unwrap();
/// assert_eq!(row.server, Server::KernelMayExit);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Server {
    /// KVM alone; userspace never sees it.
    Kernel,
    /// KVM, which can be told to hand it to userspace.
    KernelMayExit,
    /// Userspace; KVM only passes it on.
    Userspace,
    /// Nobody: the kernel has no code for it.
    Nobody,
}

impl Server {
    /// The words as printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::KernelMayExit => "kernel, may exit to userspace",
            Self::Userspace => "userspace",
            Self::Nobody => "nobody",
        }
    }
}

/// One hypercall. Found by [`find`](crate::find), where there is an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Row {
    /// Whose number space it is.
    pub arch: Arch,
    /// The number, as [`Arch`] passes it in its number register or immediate.
    pub nr: u64,
    /// The name of the macro in the kernel's header, as in `KVM_HC_KICK_CPU`.
    pub name: &'static str,
    /// Whether it is still served.
    pub status: Status,
    /// What the call is for, in a sentence.
    pub purpose: &'static str,
    /// How it is used, and what else is to be known; may be empty.
    pub notes: &'static str,
    /// What goes in, by register.
    pub inputs: &'static [Field],
    /// What comes out beside the return code.
    pub outputs: &'static [Field],
    /// What the guest may read in the result register, and when.
    pub returns: &'static [Return],
    /// What tells the guest that it may make the call.
    pub gate: Gate,
    /// The first release of Linux that has it, as far as a source says so.
    pub since: Since,
    /// Who serves the call: KVM, the VMM, or nobody.
    pub server: Server,
    /// Where the kernel has it.
    pub source: &'static str,
}

impl Row {
    /// What most rows say; no row is this one, which has neither number nor name.
    pub(super) const BASE: Self = Self {
        arch: Arch::X86,
        nr: 0,
        name: "",
        status: Status::Active,
        purpose: "",
        notes: "",
        inputs: &[],
        outputs: &[],
        returns: &[],
        gate: Gate::None,
        since: Since::AtLatest {
            release: "6.1",
            file: "include/uapi/linux/kvm_para.h",
        },
        server: Server::Kernel,
        source: "",
    };

    /// What the guest loads into the number register: the number, which
    /// PowerPC combines with KVM's vendor code 42 (`EV_KVM_VENDOR_ID`).
    ///
    /// ```
    /// use hypercall_abi::{Arch, find};
    ///
    /// assert_eq!(find(Arch::PowerPc, 3).unwrap().number_register(), 0x2a_0003);
    /// ```
    #[must_use]
    pub const fn number_register(&self) -> u64 {
        match self.arch {
            Arch::PowerPc => (42 << 16) | self.nr,
            _ => self.nr,
        }
    }

    /// The number as it is written in its architecture's documents, near
    /// enough: small ones decimal, function codes and identifiers hexadecimal.
    pub(crate) const fn number(&self) -> Number {
        Number(self.nr)
    }
}

/// Prints decimal below 100, and hexadecimal from there on.
#[derive(Clone, Copy)]
pub(crate) struct Number(u64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 100 {
            write!(f, "{}", self.0)
        } else {
            write!(f, "{:#x}", self.0)
        }
    }
}
