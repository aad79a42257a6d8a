//! What a VM runs.

use std::fmt::Debug;
use std::sync::Arc;

use super::backend_error::BackendError;
use super::hosted::Program;
use super::kvm::KvmVcpu;
use crate::memory::GuestMemory;

/// A guest that is loaded into memory: what a VM is started with.
pub trait GuestImage: Debug {
    /// Guest memory, with the guest in it.
    fn memory(&self) -> &Arc<GuestMemory>;

    /// Sets the registers that the vCPU with this index starts with. A vCPU that
    /// the guest itself is to start keeps those of a reset.
    ///
    /// # Errors
    /// KVM refused them.
    fn set_registers(&self, vcpu: &KvmVcpu, index: u32) -> Result<(), BackendError>;

    /// The same guest for the hosted backend: the program of the vCPU with this
    /// index.
    ///
    /// # Errors
    /// There is none.
    fn program(&self, index: u32) -> Result<Box<dyn Program>, BackendError> {
        let _ = index;
        Err(BackendError::NotHosted)
    }
}
