//! An ioctl that KVM reads its argument of.
#![expect(unsafe_code, reason = "an ioctl is given an address")]

use core::ffi::c_void;
use core::ptr;
use std::os::fd::{BorrowedFd, RawFd};

use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};

/// KVMIO.
const GROUP: u8 = 0xae;

/// `_IOW(KVMIO, number, T)`; gives what the call returns.
///
/// # Safety
/// `T` is the structure that KVM reads for this number.
///
/// # Errors
/// The descriptor is none, or KVM refused.
pub(super) unsafe fn write<T>(fd: RawFd, number: u8, argument: &T) -> Result<i32, Errno> {
    if fd < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: it is not -1. Whether it is open, and of KVM, is for the kernel to
    // say: a closed one gives EBADF.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    let call = Write {
        opcode: opcode::write::<T>(GROUP, number),
        argument,
    };
    // SAFETY: the number says that a `T` is read and nothing is written, which
    // is true by the contract of this function.
    unsafe { ioctl(fd, call) }
}

struct Write<'a, T> {
    opcode: Opcode,
    argument: &'a T,
}

// SAFETY: the pointer is that of a `T` that lives for as long as the call, and
// the call only reads it.
unsafe impl<T> Ioctl for Write<'_, T> {
    type Output = i32;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        self.opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        ptr::from_ref(self.argument).cast_mut().cast()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> Result<Self::Output, Errno> {
        Ok(out)
    }
}
