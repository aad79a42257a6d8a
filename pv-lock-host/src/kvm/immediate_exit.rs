//! `immediate_exit`, for threads that do not own the vCPU.
#![expect(
    unsafe_code,
    reason = "a page of kvm_run is mapped, and one of its bytes used as an atomic"
)]

use core::mem::offset_of;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicU8, Ordering};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use kvm_bindings::kvm_run;
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// `immediate_exit` lies in the first page; the rest of `kvm_run` is not mapped.
const PAGE: usize = 4096;
const OFFSET: usize = offset_of!(kvm_run, immediate_exit);
const _: () = assert!(OFFSET < PAGE);

/// Makes a vCPU leave the guest, or not enter it, from any thread.
///
/// A signal alone can be lost: one that arrives after the vCPU's thread has
/// looked at [`enter`](crate::VcpuParker::enter) and before it is in `KVM_RUN`
/// interrupts nothing. KVM therefore has a byte in `kvm_run`: while
/// `immediate_exit` is not 0, `KVM_RUN` returns `EINTR` before it enters the guest.
/// Here its page is mapped a second time, so that other threads can set the byte
/// while the vCPU's thread is in `KVM_RUN`.
///
/// ```text
///  whoever wants the vCPU out           the vCPU's thread, before each run
///    1. pause_all, stop_all, interrupt    1. take()
///    2. set()                             2. enter(): is there a reason not to run?
///    3. a signal to the thread            3. KVM_RUN: returns at once if the byte is set
/// ```
///
/// If `take` sees the byte, `enter` sees the reason. If it does not, the byte is
/// still set when `KVM_RUN` reads it. If it is set later, the thread is in
/// `KVM_RUN` by then, or will read it there, and the signal ends that. The
/// signal's handler need not do anything.
///
/// ```
/// use kvm_ioctls::Kvm;
/// use pv_lock_host::ImmediateExit;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let Ok(kvm) = Kvm::new() else { return Ok(()) };
/// let vm = kvm.create_vm()?;
/// let mut vcpu = vm.create_vcpu(0)?;
/// let exit = ImmediateExit::of_vcpu(&vcpu)?; // Send + Sync: for all threads
/// exit.set();
/// assert_eq!(vcpu.run().unwrap_err().errno(), libc::EINTR); // no guest has run
/// assert!(exit.take());
/// assert!(!exit.take());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ImmediateExit(NonNull<u8>);

// SAFETY: the page is memory that belongs to no thread; all that this type does
// with it after its creation is atomic.
unsafe impl Send for ImmediateExit {}
// SAFETY: as above.
unsafe impl Sync for ImmediateExit {}

impl Drop for ImmediateExit {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `of_vcpu`, is PAGE bytes long, and
        // nothing borrows from it any more: references to the byte borrow `self`.
        // It fails only for an address that is none.
        let _ = unsafe { munmap(self.0.as_ptr().cast(), PAGE) };
    }
}

impl ImmediateExit {
    /// For the vCPU with this descriptor: a `VcpuFd` of kvm-ioctls, or any other.
    ///
    /// # Errors
    /// The descriptor is of a file, a device or nothing (of other things that are
    /// no vCPU it may be accepted, if they can be mapped), or the process may map no
    /// more.
    pub fn of_vcpu(vcpu: &impl AsRawFd) -> io::Result<Self> {
        let fd = vcpu.as_raw_fd();
        if fd < 0 {
            return Err(Errno::BADF.into());
        }
        // SAFETY: it is not -1, and `vcpu` keeps it open for longer than this call.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        // KVM's descriptors have an inode that is of no type. In a file the byte would
        // be the file's, or lie behind its end, where a look at it raises SIGBUS.
        if FileType::from_raw_mode(fstat(fd)?.st_mode) != FileType::Unknown {
            return Err(Errno::NODEV.into());
        }
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: the kernel chooses the address, so that no mapping is replaced.
        let page = unsafe { mmap(null_mut(), PAGE, prot, flags, fd, 0) }?;
        let page = NonNull::new(page.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self(page))
    }

    /// The byte itself: not 0 while the vCPU is asked to leave.
    #[inline]
    pub fn byte(&self) -> &AtomicU8 {
        // SAFETY: OFFSET lies in the page.
        let byte = unsafe { self.0.add(OFFSET) };
        // SAFETY: the pointer is valid for as long as the mapping, which lives as
        // long as `self`, which the result borrows; a byte is always aligned.
        // Whatever else uses it is the kernel, which only reads it, and other
        // atomics of this type.
        unsafe { AtomicU8::from_ptr(byte.as_ptr()) }
    }

    /// Asks the vCPU to leave. To be called after the reason for it (a pause, a
    /// stop, an interruption) and before the signal.
    #[inline]
    pub fn set(&self) {
        // SeqCst, and a fence in effect: what was said in the slot before is
        // seen by the `take` that sees this, and this by the KVM_RUN that the
        // signal behind it does not reach.
        self.byte().swap(1, Ordering::SeqCst);
    }

    /// Whether somebody asked; the request is used up. To be called by the
    /// vCPU's thread before each [`enter`](crate::VcpuParker::enter).
    #[inline]
    pub fn take(&self) -> bool {
        // Relaxed: most of the time nobody asked, and a request that this misses
        // is still there for KVM_RUN.
        self.byte().load(Ordering::Relaxed) != 0
            // SeqCst: partner of the swap in `set`.
            && self.byte().swap(0, Ordering::SeqCst) != 0
    }
}
