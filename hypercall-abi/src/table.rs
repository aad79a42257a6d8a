//! The one table. Every number, name, gate and printed document of the crate
//! derives from it.

mod arm64;
mod loongarch;
mod mips;
mod powerpc;
mod s390;
mod x86;

use cpuid_features::KvmFeatures;

use crate::arch::Arch;

/// Whether a hypercall is still one.
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
    /// Seen, but not in a kernel that has it.
    Unverified,
}

impl Status {
    /// The word as printed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Deprecated => "deprecated",
            Self::Reserved => "reserved",
            Self::Unverified => "unverified",
        }
    }
}

/// What a guest must see before it calls, and whether the host insists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gate {
    /// Nothing: a guest finds out by calling.
    None,
    /// A bit of CPUID leaf `0x40000001` eax, without which KVM answers
    /// -`KVM_ENOSYS` once `KVM_CAP_ENFORCE_PV_FEATURE_CPUID` is on.
    Enforced(KvmFeatures),
    /// A bit of the same word that a guest must look for, and that KVM does
    /// not look at; and what the host looks at in its place.
    Advertised(KvmFeatures, &'static str),
    /// Another architecture's way to say so.
    Other(&'static str),
    /// Not known to this table.
    Unverified,
}

/// One register of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Field {
    /// The register or memory that holds it.
    pub place: &'static str,
    /// Meaning and unit.
    pub meaning: &'static str,
}

impl Field {
    /// The call has none.
    pub const NONE: &[Self] = &[];
    /// What the call has is not known to this table.
    pub const UNVERIFIED: &[Self] = &[Self {
        place: "unverified",
        meaning: "no kernel source read says",
    }];
}

/// One answer of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Return {
    /// The value as the guest reads it, by name where it has one.
    pub value: &'static str,
    /// When.
    pub meaning: &'static str,
}

/// The first kernel release that had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Since {
    /// That release of Linux.
    Linux(&'static str),
    /// Not checked against a release.
    Unverified,
}

/// Who serves the call on the host.
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
    /// Not known to this table.
    Unverified,
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
            Self::Unverified => "unverified",
        }
    }
}

/// One hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Row {
    /// Whose number space it is.
    pub arch: Arch,
    /// The number, as [`Arch`] passes it in its number register or immediate.
    pub nr: u64,
    /// The kernel's name.
    pub name: &'static str,
    /// Whether it is still served.
    pub status: Status,
    /// What it is for.
    pub purpose: &'static str,
    /// What goes in, by register.
    pub inputs: &'static [Field],
    /// What comes out beside the return code.
    pub outputs: &'static [Field],
    /// The return codes.
    pub returns: &'static [Return],
    /// What announces it.
    pub gate: Gate,
    /// Its first release.
    pub since: Since,
    /// Who serves it.
    pub server: Server,
    /// Where the kernel has it.
    pub source: &'static str,
}

impl Row {
    /// What the guest loads into the number register: the number, which
    /// PowerPC combines with KVM's vendor code 42.
    #[must_use]
    pub const fn number_register(&self) -> u64 {
        match self.arch {
            Arch::PowerPc => (42 << 16) | self.nr,
            _ => self.nr,
        }
    }
}

/// Every hypercall, by architecture and number.
pub const TABLE: &[Row] = &[
    x86::VAPIC_POLL_IRQ,
    x86::MMU_OP,
    x86::KICK_CPU,
    x86::CLOCK_PAIRING,
    x86::SEND_IPI,
    x86::SCHED_YIELD,
    x86::MAP_GPA_RANGE,
    powerpc::FEATURES,
    powerpc::PPC_MAP_MAGIC_PAGE,
    mips::MIPS_GET_CLOCK_FREQ,
    mips::MIPS_EXIT_VM,
    mips::MIPS_CONSOLE_OUTPUT,
    loongarch::FUNC_IPI,
    loongarch::FUNC_NOTIFY,
    loongarch::FUNC_KICK,
    loongarch::SWDBG,
    loongarch::USER_SERVICE,
    arm64::KVM_FEATURES,
    arm64::KVM_PTP,
    arm64::PV_TIME_FEATURES,
    arm64::PV_TIME_ST,
    arm64::HYP_MEMINFO,
    arm64::MEM_SHARE,
    arm64::MEM_UNSHARE,
    arm64::MMIO_GUARD,
    arm64::DISCOVER_IMPL_VER,
    arm64::DISCOVER_IMPL_CPUS,
    s390::YIELD_TO,
    s390::KVM,
    s390::BREAKPOINT,
];

/// The row of that number on that architecture.
#[must_use]
pub const fn find(arch: Arch, nr: u64) -> Option<&'static Row> {
    let mut rest = TABLE;
    while let [row, tail @ ..] = rest {
        if row.nr == nr && row.arch as u8 == arch as u8 {
            return Some(row);
        }
        rest = tail;
    }
    None
}

/// The number of that name. For constants only.
#[expect(clippy::panic, reason = "called by constants alone: a compile error")]
pub(crate) const fn number_of(arch: Arch, name: &str) -> u64 {
    let mut rest = TABLE;
    while let [row, tail @ ..] = rest {
        if row.arch as u8 == arch as u8 && same(row.name, name) {
            return row.nr;
        }
        rest = tail;
    }
    panic!("no row of that name")
}

/// `==` on strings, for constants.
pub(crate) const fn same(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    while let ([x, xs @ ..], [y, ys @ ..]) = (a, b) {
        if *x != *y {
            return false;
        }
        (a, b) = (xs, ys);
    }
    a.is_empty() && b.is_empty()
}

/// A table with a doubled key or name does not compile.
const _: () = {
    let mut rest = TABLE;
    while let [row, tail @ ..] = rest {
        let mut others = tail;
        while let [other, more @ ..] = others {
            if row.arch as u8 == other.arch as u8
                && (row.nr == other.nr || same(row.name, other.name))
            {
                panic!("two rows share an architecture and a number or a name");
            }
            others = more;
        }
        rest = tail;
    }
};

/// A register or memory, and its meaning.
const fn field(place: &'static str, meaning: &'static str) -> Field {
    Field { place, meaning }
}

/// A return value, and when.
const fn ret(value: &'static str, meaning: &'static str) -> Return {
    Return { value, meaning }
}
