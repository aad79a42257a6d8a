#![doc = include_str!("../README.md")]
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]
// Nothing but the issuing side needs an instruction of its own.
#![cfg_attr(not(feature = "guest"), forbid(unsafe_code))]

#[cfg(test)]
extern crate std;

mod arch;
mod call;
mod convert;
mod dispatch;
mod document;
pub mod doorbell;
mod errno;
#[cfg(all(feature = "guest", target_arch = "x86_64"))]
pub mod guest;
pub mod kernel;
#[cfg(all(feature = "kvm-bindings", target_arch = "x86_64"))]
mod kvm;
mod nr;
mod raw;
mod request;
mod table;

#[doc = include_str!("../docs/HYPERCALLS.md")]
pub mod hypercalls {}

pub use arch::{Arch, Convention};
pub use call::{
    ClockPairing, ClockPairingData, GpaRange, Hypercall, Ipi, IpiTargets, KickCpu, MapGpaRange,
    MmuOp, PageSize, SchedYield, SendIpi,
};
pub use convert::{Conversion, MemoryConverter, Visibility, convert, to_protected_ret};
pub use cpuid_features::Since;
pub use cpuid_features::print::Format;
pub use dispatch::{Enforcement, HypercallHandler, admit, dispatch};
pub use document::Document;
pub use errno::{
    Errno, HypercallResult, KVM_E2BIG, KVM_EFAULT, KVM_EINVAL, KVM_ENOSYS, KVM_EOPNOTSUPP,
    KVM_EPERM, KvmErrno, from_rax, to_rax,
};
#[cfg(all(feature = "kvm-bindings", target_arch = "x86_64"))]
pub use kvm::write_result;
pub use nr::{
    HypercallNr, KVM_HC_CLOCK_PAIRING, KVM_HC_FEATURES, KVM_HC_KICK_CPU, KVM_HC_MAP_GPA_RANGE,
    KVM_HC_MIPS_CONSOLE_OUTPUT, KVM_HC_MIPS_EXIT_VM, KVM_HC_MIPS_GET_CLOCK_FREQ, KVM_HC_MMU_OP,
    KVM_HC_PPC_MAP_MAGIC_PAGE, KVM_HC_SCHED_YIELD, KVM_HC_SEND_IPI, KVM_HC_VAPIC_POLL_IRQ,
};
pub use raw::{Mode, RawHypercall};
pub use request::Request;
pub use table::{
    Answer, Field, Gate, HostGate, Place, Register, Return, Row, Server, Status, TABLE, Width, find,
};
