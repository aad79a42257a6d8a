//! The request that makes a vCPU leave the guest, and cannot be lost: on KVM
//! pv-lock-host's [`ImmediateExit`], whose documentation says why a signal alone
//! can be.
//!
//! ```text
//!  whoever wants the vCPU out            the vCPU's thread, before each run
//!    1. says why, in the vCPU's slot       1. take(): is the byte set? clear it
//!    2. set(): byte = 1                    2. looks at its slot
//!    3. one signal to the thread           3. KVM_RUN: leaves at once if the byte is set
//! ```
//!
//! The hosted backend looks at a byte of its own by itself and needs no signal.

use std::sync::atomic::{AtomicU8, Ordering};

use kvm_ioctls::VcpuFd;
use pv_lock_host::ImmediateExit;

use super::backend_error::BackendError;

/// Makes one vCPU leave the guest, or not enter it.
#[derive(Debug)]
pub struct ExitRequest(Byte);

#[derive(Debug)]
enum Byte {
    /// `immediate_exit` of a vCPU of KVM.
    Kvm(ImmediateExit),
    /// A vCPU that is a program of this process.
    Own(AtomicU8),
}

impl ExitRequest {
    /// For a vCPU that looks at [`ExitRequest::byte`] itself.
    pub fn polled() -> Self {
        Self(Byte::Own(AtomicU8::new(0)))
    }

    /// For a vCPU of KVM.
    ///
    /// # Errors
    /// The page can't be mapped.
    pub fn of_vcpu(vcpu: &VcpuFd) -> Result<Self, BackendError> {
        let exit = ImmediateExit::of_vcpu(vcpu).map_err(BackendError::MapRun)?;
        Ok(Self(Byte::Kvm(exit)))
    }

    /// Not 0 while the vCPU is asked to leave.
    #[inline]
    pub fn byte(&self) -> &AtomicU8 {
        match &self.0 {
            Byte::Own(byte) => byte,
            Byte::Kvm(exit) => exit.byte(),
        }
    }

    /// Whether [`ExitRequest::set`] is to be followed by a signal to the vCPU's
    /// thread.
    pub fn needs_signal(&self) -> bool {
        matches!(self.0, Byte::Kvm(_))
    }

    /// Asks. Whoever calls has said why in the vCPU's slot, and sends a signal
    /// to its thread afterwards.
    pub fn set(&self) {
        match &self.0 {
            // SeqCst: as in `ImmediateExit::set`.
            Byte::Own(byte) => _ = byte.swap(1, Ordering::SeqCst),
            Byte::Kvm(exit) => exit.set(),
        }
    }

    /// Whether somebody asked; the request is used up. Called by the vCPU's
    /// thread before it looks at its slot.
    #[inline]
    pub fn take(&self) -> bool {
        match &self.0 {
            // Relaxed, then SeqCst: as in `ImmediateExit::take`.
            Byte::Own(byte) => {
                byte.load(Ordering::Relaxed) != 0 && byte.swap(0, Ordering::SeqCst) != 0
            }
            Byte::Kvm(exit) => exit.take(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_taken_once() {
        let request = ExitRequest::polled();
        assert!(!request.take());
        request.set();
        request.set();
        assert!(request.take());
        assert!(!request.take());
    }

    #[test]
    fn kvm_run_returns_at_once_while_it_is_set() {
        let Ok(kvm) = kvm_ioctls::Kvm::new() else {
            println!("not run here: no usable /dev/kvm");
            return;
        };
        let vm = kvm.create_vm().unwrap();
        let mut vcpu = vm.create_vcpu(0).unwrap();
        let request = ExitRequest::of_vcpu(&vcpu).unwrap();
        request.set();
        // There is no memory and no guest: without the request this would be
        // another exit.
        let error = vcpu.run().unwrap_err();
        assert_eq!(error.errno(), libc::EINTR);
        assert!(request.take());
    }
}
