//! Hypercall numbers of `include/uapi/linux/kvm_para.h`, the number space that
//! x86, PowerPC and MIPS share.

use core::fmt;

use crate::arch::Arch;
use crate::table::{TABLE, number_of};

/// A hypercall number as the guest wrote it. Open: any number is
/// representable, known or not.
///
/// `Debug` prints the kernel's name where there is one.
///
/// ```
/// use hypercall_abi::{HypercallNr, KVM_HC_KICK_CPU};
///
/// assert_eq!(HypercallNr(KVM_HC_KICK_CPU), HypercallNr::KICK_CPU);
/// assert_eq!(HypercallNr::KICK_CPU.name(), Some("KVM_HC_KICK_CPU"));
/// assert_eq!(HypercallNr(99).to_string(), "hypercall 0x63");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HypercallNr(pub u64);

/// Both forms of every number, from the one table.
macro_rules! numbers {
    ($($short:ident $alias:ident $name:literal $arch:ident;)*) => {
        impl HypercallNr {
            $(
                #[doc = concat!("`", $name, "`, see its row: [`find`](crate::find)`(Arch::",
                    stringify!($arch), ", ..)`.")]
                pub const $short: Self = Self(number_of(Arch::$arch, $name));
            )*
        }
        $(
            #[doc = concat!("`", $name, "` of `include/uapi/linux/kvm_para.h`. See [`HypercallNr`] for ",
                "an example.")]
            pub const $alias: u64 = HypercallNr::$short.0;
        )*
    };
}

numbers! {
    VAPIC_POLL_IRQ KVM_HC_VAPIC_POLL_IRQ "KVM_HC_VAPIC_POLL_IRQ" X86;
    MMU_OP KVM_HC_MMU_OP "KVM_HC_MMU_OP" X86;
    FEATURES KVM_HC_FEATURES "KVM_HC_FEATURES" PowerPc;
    PPC_MAP_MAGIC_PAGE KVM_HC_PPC_MAP_MAGIC_PAGE "KVM_HC_PPC_MAP_MAGIC_PAGE" PowerPc;
    KICK_CPU KVM_HC_KICK_CPU "KVM_HC_KICK_CPU" X86;
    MIPS_GET_CLOCK_FREQ KVM_HC_MIPS_GET_CLOCK_FREQ "KVM_HC_MIPS_GET_CLOCK_FREQ" Mips;
    MIPS_EXIT_VM KVM_HC_MIPS_EXIT_VM "KVM_HC_MIPS_EXIT_VM" Mips;
    MIPS_CONSOLE_OUTPUT KVM_HC_MIPS_CONSOLE_OUTPUT "KVM_HC_MIPS_CONSOLE_OUTPUT" Mips;
    CLOCK_PAIRING KVM_HC_CLOCK_PAIRING "KVM_HC_CLOCK_PAIRING" X86;
    SEND_IPI KVM_HC_SEND_IPI "KVM_HC_SEND_IPI" X86;
    SCHED_YIELD KVM_HC_SCHED_YIELD "KVM_HC_SCHED_YIELD" X86;
    MAP_GPA_RANGE KVM_HC_MAP_GPA_RANGE "KVM_HC_MAP_GPA_RANGE" X86;
}

impl HypercallNr {
    /// The kernel's name of this number, whichever of the architectures that
    /// share `linux/kvm_para.h` it belongs to.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        let mut rest = TABLE;
        while let [row, tail @ ..] = rest {
            if row.nr == self.0 && matches!(row.arch, Arch::X86 | Arch::PowerPc | Arch::Mips) {
                return Some(row.name);
            }
            rest = tail;
        }
        None
    }
}

impl fmt::Debug for HypercallNr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "HypercallNr({:#x})", self.0),
        }
    }
}

impl fmt::Display for HypercallNr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "hypercall {:#x}", self.0),
        }
    }
}
