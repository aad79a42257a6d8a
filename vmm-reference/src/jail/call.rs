//! A row of a filter: a system call, when it is allowed, and why.

use super::request::Request;

/// The type of a system call's number.
pub type Number = libc::c_long;

/// A system call that a kind of thread makes.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Its number.
    pub number: Number,
    /// With which arguments.
    pub when: When,
    /// What needs it.
    pub why: &'static str,
}

/// With which arguments a system call is allowed.
#[derive(Clone, Copy, Debug)]
pub enum When {
    /// With any.
    Always,
    /// If these bits of an argument have this value.
    Bits {
        /// Which argument, from 0.
        argument: u8,
        /// The bits that are looked at.
        mask: u64,
        /// Their value.
        is: u64,
        /// The same for people.
        says: &'static str,
    },
    /// If the first argument is this process.
    OwnProcess,
    /// ioctl with one of these requests.
    Requests(&'static [Request]),
    /// ioctl with this request on standard input.
    OnStdin(Request),
    /// Never; it fails with EACCES, which whoever calls it can do with. A call that
    /// is in no row ends the process.
    Refused,
    /// It fails as [`When::Refused`] does, with these arguments.
    RefusedIf(&'static When),
}

/// Allowed with any arguments.
pub(super) const fn call(number: Number, why: &'static str) -> Call {
    Call {
        number,
        when: When::Always,
        why,
    }
}

/// Allowed with some arguments.
pub(super) const fn call_if(number: Number, when: When, why: &'static str) -> Call {
    Call { number, when, why }
}

/// It fails.
pub(super) const fn refused(number: Number, why: &'static str) -> Call {
    Call {
        number,
        when: When::Refused,
        why,
    }
}

/// It fails with some arguments.
pub(super) const fn refused_if(number: Number, when: &'static When, why: &'static str) -> Call {
    Call {
        number,
        when: When::RefusedIf(when),
        why,
    }
}

/// Memory that is to be executed is not to be had: argument 2 of mmap and mprotect.
pub(super) const NOT_EXECUTABLE: When = When::Bits {
    argument: 2,
    mask: libc::PROT_EXEC as u64,
    is: 0,
    says: "without PROT_EXEC",
};

/// A file is made if it is not there: argument 2 of openat.
pub(super) const CREATES: When = When::Bits {
    argument: 2,
    mask: libc::O_CREAT.cast_unsigned() as u64,
    is: libc::O_CREAT.cast_unsigned() as u64,
    says: "with O_CREAT",
};

/// prctl of this option.
pub(super) const fn option(option: libc::c_int, says: &'static str) -> When {
    When::Bits {
        argument: 0,
        mask: u32::MAX as u64,
        is: option.cast_unsigned() as u64,
        says,
    }
}

/// fcntl of this command.
pub(super) const fn command(command: libc::c_int, says: &'static str) -> When {
    When::Bits {
        argument: 1,
        mask: u32::MAX as u64,
        is: command.cast_unsigned() as u64,
        says,
    }
}

/// The name of a system call.
pub(super) fn name(number: Number) -> &'static str {
    syscall_numbers::native::sys_call_name(number).unwrap_or("an unknown system call")
}
