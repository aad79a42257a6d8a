//! The request that makes a vCPU leave the guest, and cannot be lost.
//!
//! A signal alone can be: one that arrives after the vCPU's thread has looked at
//! its slot and before it is in KVM_RUN interrupts nothing. KVM therefore has a
//! byte in `kvm_run`, `immediate_exit`: while it is not 0, KVM_RUN returns EINTR
//! before it enters the guest. Here the page is mapped a second time, so that
//! other threads can set the byte while the vCPU's thread is in KVM_RUN.
//!
//! ```text
//!  whoever wants the vCPU out            the vCPU's thread, before each run
//!    1. says why, in the vCPU's slot       1. take(): is the byte set? clear it
//!    2. set(): byte = 1                    2. looks at its slot
//!    3. one signal to the thread           3. KVM_RUN: leaves at once if the byte is set
//! ```
//!
//! If the thread's `take` sees the byte, its look at the slot sees why. If it
//! does not, the byte is still set when KVM_RUN reads it. If it is set later, the
//! thread is in KVM_RUN by then, or will read it there, and the signal ends that.
//! The hosted backend looks at the byte by itself and needs no signal.

#![expect(
    unsafe_code,
    reason = "a page of kvm_run is mapped, and one of its bytes used as an atomic"
)]

use std::mem::offset_of;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;
use rustix::fd::AsRawFd as _;
use rustix::fd::BorrowedFd;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::backend_error::BackendError;

/// `immediate_exit` lies in the first page; the rest of `kvm_run` is not mapped.
const PAGE: usize = 4096;
const OFFSET: usize = offset_of!(kvm_run, immediate_exit);
const _: () = assert!(OFFSET < PAGE);

/// Makes one vCPU leave the guest, or not enter it.
#[derive(Debug)]
pub struct ExitRequest(Byte);

#[derive(Debug)]
enum Byte {
    /// `immediate_exit` of a vCPU of KVM.
    Mapped(RunPage),
    /// A vCPU that is a program of this process.
    Own(AtomicU8),
}

/// The first page of a vCPU's `kvm_run`.
#[derive(Debug)]
struct RunPage(NonNull<u8>);

// SAFETY: the page is memory that belongs to no thread; all that this type does
// with it after its creation is atomic.
unsafe impl Send for RunPage {}
// SAFETY: as above.
unsafe impl Sync for RunPage {}

impl Drop for RunPage {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `ExitRequest::of_vcpu`, is PAGE bytes
        // long, and nothing borrows from it any more: references to the byte
        // borrow `self`.
        // It fails only for an address that is none.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), PAGE) };
    }
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
        // SAFETY: `vcpu` keeps the descriptor open for longer than this call.
        let fd = unsafe { BorrowedFd::borrow_raw(vcpu.as_raw_fd()) };
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: the kernel chooses the address, so that no mapping is replaced.
        let page = unsafe { mmap(std::ptr::null_mut(), PAGE, prot, flags, fd.as_fd(), 0) };
        let page = page.map_err(|e| BackendError::MapRun(e.into()))?;
        let page = NonNull::new(page.cast::<u8>())
            .ok_or_else(|| BackendError::MapRun(std::io::ErrorKind::OutOfMemory.into()))?;
        Ok(Self(Byte::Mapped(RunPage(page))))
    }

    /// Not 0 while the vCPU is asked to leave.
    #[inline]
    pub fn byte(&self) -> &AtomicU8 {
        match &self.0 {
            Byte::Own(byte) => byte,
            Byte::Mapped(page) => {
                // SAFETY: OFFSET lies in the page.
                let byte = unsafe { page.0.add(OFFSET) };
                // SAFETY: the pointer is valid for as long as `page`, which the
                // result borrows; a byte is always aligned. Whatever else uses it
                // is the kernel, which only reads it, and other atomics of this
                // type: kvm-ioctls writes it in a function that nobody calls.
                unsafe { AtomicU8::from_ptr(byte.as_ptr()) }
            }
        }
    }

    /// Whether [`ExitRequest::set`] is to be followed by a signal to the vCPU's
    /// thread.
    pub fn needs_signal(&self) -> bool {
        matches!(self.0, Byte::Mapped(_))
    }

    /// Asks. Whoever calls has said why in the vCPU's slot, and sends a signal
    /// to its thread afterwards.
    pub fn set(&self) {
        // SeqCst, and a fence in effect: what was said in the slot before is
        // seen by the `take` that sees this, and this by the KVM_RUN that the
        // signal behind it does not reach.
        self.byte().swap(1, Ordering::SeqCst);
    }

    /// Whether somebody asked; the request is used up. Called by the vCPU's
    /// thread before it looks at its slot.
    #[inline]
    pub fn take(&self) -> bool {
        // Relaxed: most of the time nobody asked, and a request that this misses
        // is still there for KVM_RUN.
        self.byte().load(Ordering::Relaxed) != 0
            // SeqCst: partner of the swap in `set`.
            && self.byte().swap(0, Ordering::SeqCst) != 0
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
