//! Who puts a halted vCPU to sleep.

/// Who puts a vCPU to sleep that executed HLT, until it is kicked.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum HaltMode {
    /// KVM: the VM has KVM's interrupt controllers, and HLT does not leave the
    /// kernel.
    Kernel,
    /// This process: KVM has no interrupt controller, HLT exits, and the vCPU's
    /// thread sleeps in pv-lock-host.
    Userspace,
}

impl HaltMode {
    /// `kernel` or `userspace`, as on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Userspace => "userspace",
        }
    }
}
