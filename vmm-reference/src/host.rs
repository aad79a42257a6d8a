//! This host: /dev/kvm, opened once, and what it says of itself.

use std::path::Path;

use cpuid_features::KvmFeatures;
use kvm_bindings::CpuId;
use kvm_ioctls::Kvm;
use serde::Serialize;

use crate::cpuid::{self, CpuidError};

/// The only version of the API that there ever was.
const API_VERSION: i32 = 12;

/// Why there is no KVM here.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No such device.
    #[error("/dev/kvm is absent: this kernel has no KVM, or its module is not loaded")]
    Absent,
    /// The device refuses this user.
    #[error("/dev/kvm is refused: {0} (is this user in the group kvm?)")]
    Refused(vmm_sys_util::errno::Error),
    /// The device is there and does not open.
    #[error("/dev/kvm does not open: {0}")]
    Open(vmm_sys_util::errno::Error),
    /// It opens, and is not KVM.
    #[error("/dev/kvm has API version {0}, not {API_VERSION}: not a KVM that this program knows")]
    ApiVersion(i32),
    /// It does not say which MSRs a vCPU's state has.
    #[error("KVM_GET_MSR_INDEX_LIST: {0}")]
    Msrs(vmm_sys_util::errno::Error),
    /// It does not say which CPUID a guest can have.
    #[error(transparent)]
    Cpuid(#[from] CpuidError),
}

/// This host's KVM.
#[derive(Debug)]
pub struct KvmHost {
    /// The device.
    pub kvm: Kvm,
    /// KVM_GET_SUPPORTED_CPUID.
    pub cpuid: CpuId,
    /// The paravirtual features in it.
    pub features: KvmFeatures,
}

impl KvmHost {
    /// Opens /dev/kvm and checks that it is one.
    ///
    /// # Errors
    /// It is not there, not for this user, or not KVM.
    pub fn open() -> Result<Self, HostError> {
        let kvm = Kvm::new().map_err(|e| match e.errno() {
            libc::ENOENT | libc::ENODEV | libc::ENXIO => HostError::Absent,
            libc::EACCES | libc::EPERM => HostError::Refused(e),
            _ => HostError::Open(e),
        })?;
        match kvm.get_api_version() {
            API_VERSION => {}
            other => return Err(HostError::ApiVersion(other)),
        }
        let (cpuid, features) = cpuid::supported(&kvm)?;
        Ok(Self {
            kvm,
            cpuid,
            features,
        })
    }
}

impl KvmHost {
    /// The MSRs that are part of a vCPU's state, as KVM says.
    ///
    /// # Errors
    /// It does not say.
    pub fn msrs(&self) -> Result<Vec<u32>, HostError> {
        let list = self.kvm.get_msr_index_list().map_err(HostError::Msrs)?;
        Ok(list.as_slice().to_vec())
    }
}

/// What virtualizes here, as far as a program can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Virtualization {
    /// Intel's extensions.
    Vmx,
    /// AMD's extensions.
    Svm,
    /// The kernel's pagetable-based virtual machines: no extensions.
    Pvm,
    /// None of them can be seen.
    Unknown,
}

impl Virtualization {
    /// That of this host.
    pub fn here() -> Self {
        let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let flags = info.lines().find(|line| line.starts_with("flags"));
        let has = |flag| flags.is_some_and(|f| f.split_ascii_whitespace().any(|f| f == flag));
        if has("vmx") {
            Self::Vmx
        } else if has("svm") {
            Self::Svm
        } else if Path::new("/sys/module/kvm_pvm").exists() {
            Self::Pvm
        } else {
            Self::Unknown
        }
    }

    /// As in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vmx => "vmx",
            Self::Svm => "svm",
            Self::Pvm => "pvm",
            Self::Unknown => "unknown",
        }
    }
}

/// pCPUs that this process may run on: what overcommit is measured against.
pub fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
