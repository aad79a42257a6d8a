//! Why a vCPU can't go on.

use crate::jail::JailError;
use crate::memory::MemoryError;

/// Why a vCPU can't go on: one line for the person who runs the VMM.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// An ioctl failed.
    #[error("{op}: {source}")]
    Ioctl {
        /// The ioctl's name.
        op: &'static str,
        /// The error that KVM returned.
        source: vmm_sys_util::errno::Error,
    },
    /// KVM_EXIT_INTERNAL_ERROR: KVM met what it can't run.
    #[error("KVM internal error, suberror {suberror} ({meaning}), guest rip {rip:#x}")]
    Internal {
        /// `kvm_run.internal.suberror`.
        suberror: u32,
        /// Its meaning, by the kernel's API documentation.
        meaning: &'static str,
        /// Where the guest was.
        rip: u64,
    },
    /// KVM_EXIT_FAIL_ENTRY.
    #[error(
        "the processor refused to enter the guest, hardware reason {reason:#x}, guest rip {rip:#x}"
    )]
    FailEntry {
        /// The processor vendor's code.
        reason: u64,
        /// Where the guest was.
        rip: u64,
    },
    /// An exit that this VMM did not ask for.
    #[error("unexpected KVM exit {exit}, guest rip {rip:#x}")]
    Unexpected {
        /// As kvm-ioctls names it.
        exit: String,
        /// Where the guest was.
        rip: u64,
    },
    /// The VMM's own code on the vCPU's thread panicked: a bug, but one that
    /// must end the VM and not leave it without a vCPU.
    #[error("a panic on the vCPU's thread (its message is above)")]
    Panicked,
    /// `kvm_run` could not be mapped a second time.
    #[error("can't map kvm_run: {0}")]
    MapRun(std::io::Error),
    /// KVM does not take a value that the local APIC's model does.
    #[error("KVM refused {0:#x} for IA32_APIC_BASE")]
    ApicBase(u64),
    /// KVM does not take a saved value of an MSR.
    #[error("MSR {index:#x}: this host refuses the saved value {value:#x}")]
    Msr {
        /// The MSR's number.
        index: u32,
        /// The value.
        value: u64,
    },
    /// The guest's TSC runs at another rate than this host's, which can't scale it.
    #[error("TSC: the guest was saved at {saved} kHz, this host has {here} kHz and does not scale")]
    TscRate {
        /// Of the guest.
        saved: u32,
        /// Of this host.
        here: u32,
    },
    /// More CPUID entries or MSRs than KVM takes.
    #[error("{what}: {count} entries are more than KVM takes")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// Number of entries.
        count: usize,
    },
    /// A state with a local APIC for a vCPU without one, or the other way round.
    #[error("the saved vCPU's local APIC is another kind than this one's")]
    OtherApic,
    /// What was saved of this process's local APIC is no state of one.
    #[error("not the state of a local APIC: {register} is {value:#x}")]
    Apic {
        /// Which register.
        register: &'static str,
        /// What it is.
        value: u64,
    },
    /// KVM_GET_NESTED_STATE is not part of what is saved.
    #[error("the guest has turned virtualization on, and guests of its own can't be saved")]
    Nested,
    /// Its vCPUs are threads whose state is their stack.
    #[error("the hosted backend's vCPUs can't be saved")]
    NotSaved,
    /// This guest exists as machine code only.
    #[error("this guest can't run on the hosted backend")]
    NotHosted,
    /// Its thread can't be put into the jail.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// The guest's memory ends before what is looked for.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// For `map_err`: the error of the ioctl with this name.
pub fn ioctl(op: &'static str) -> impl FnOnce(vmm_sys_util::errno::Error) -> BackendError {
    move |source| BackendError::Ioctl { op, source }
}
