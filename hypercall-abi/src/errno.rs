//! Return codes, and how they travel in RAX.

use core::fmt;
use core::num::NonZeroU16;

use crate::raw::{Mode, low32};

/// One return code of `linux/kvm_para.h`.
///
/// ```
/// use hypercall_abi::Errno;
///
/// let enosys = Errno::ALL.iter().find(|errno| errno.name == "KVM_ENOSYS").unwrap();
/// assert_eq!(enosys.code, 1000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Errno {
    /// The name of the macro in the kernel's header, as in `KVM_ENOSYS`.
    pub name: &'static str,
    /// The value, positive. A guest reads its negative.
    pub code: u16,
    /// In which cases KVM answers it.
    pub meaning: &'static str,
}

impl Errno {
    /// Every code of the header, by value.
    pub const ALL: &'static [Self] = &[
        Self {
            name: "KVM_EPERM",
            code: 1,
            meaning: "not called from CPL 0",
        },
        Self {
            name: "KVM_E2BIG",
            code: 7,
            meaning: "defined by the header, answered by no call of this table",
        },
        Self {
            name: "KVM_EFAULT",
            code: 14,
            meaning: "guest memory could not be written",
        },
        Self {
            name: "KVM_EINVAL",
            code: 22,
            meaning: "an argument is out of its range",
        },
        Self {
            name: "KVM_EOPNOTSUPP",
            code: 95,
            meaning: "known, but not possible here and now",
        },
        Self {
            name: "KVM_ENOSYS",
            code: 1000,
            meaning: "no such hypercall, or not enabled; not the 38 of the C library's ENOSYS",
        },
    ];
}

/// The code of that name. For constants only.
#[expect(clippy::panic, reason = "called by constants alone: a compile error")]
const fn code_of(name: &str) -> u16 {
    let mut rest = Errno::ALL;
    while let [errno, tail @ ..] = rest {
        if crate::table::same(errno.name, name) {
            return errno.code;
        }
        rest = tail;
    }
    panic!("no return code of that name")
}

/// `KVM_ENOSYS` (`include/uapi/linux/kvm_para.h`), positive.
///
/// See [`KvmErrno`] for an example.
pub const KVM_ENOSYS: u64 = KvmErrno::ENOSYS.code();
/// `KVM_EFAULT` (`include/uapi/linux/kvm_para.h`), positive.
///
/// See [`KvmErrno`] for an example.
pub const KVM_EFAULT: u64 = KvmErrno::EFAULT.code();
/// `KVM_EINVAL` (`include/uapi/linux/kvm_para.h`), positive.
///
/// See [`KvmErrno`] for an example.
pub const KVM_EINVAL: u64 = KvmErrno::EINVAL.code();
/// `KVM_E2BIG` (`include/uapi/linux/kvm_para.h`), positive.
///
/// See [`KvmErrno`] for an example.
pub const KVM_E2BIG: u64 = KvmErrno::E2BIG.code();
/// `KVM_EPERM` (`include/uapi/linux/kvm_para.h`), positive.
///
/// See [`KvmErrno`] for an example.
pub const KVM_EPERM: u64 = KvmErrno::EPERM.code();
/// `KVM_EOPNOTSUPP` (`include/uapi/linux/kvm_para.h`), positive.
///
/// See [`KvmErrno`] for an example.
pub const KVM_EOPNOTSUPP: u64 = KvmErrno::EOPNOTSUPP.code();

/// A failed hypercall's code: 1 to 4095, the range that the kernel keeps for
/// errors (`MAX_ERRNO`, `include/linux/err.h`).
///
/// ```
/// use hypercall_abi::{KVM_ENOSYS, KvmErrno};
///
/// assert_eq!(KvmErrno::ENOSYS.code(), KVM_ENOSYS);
/// assert_eq!(KvmErrno::new(22), Some(KvmErrno::EINVAL));
/// assert_eq!(KvmErrno::EINVAL.name(), Some("KVM_EINVAL"));
/// assert_eq!(KvmErrno::new(0), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KvmErrno(NonZeroU16);

impl KvmErrno {
    /// The greatest code: the kernel's `MAX_ERRNO`.
    pub const MAX: u16 = 4095;

    /// No such hypercall, or not enabled. 1000, not 38.
    pub const ENOSYS: Self = Self::named("KVM_ENOSYS");
    /// Guest memory could not be written.
    pub const EFAULT: Self = Self::named("KVM_EFAULT");
    /// An argument is out of its range.
    pub const EINVAL: Self = Self::named("KVM_EINVAL");
    /// Defined by the header; no call of the table answers it.
    pub const E2BIG: Self = Self::named("KVM_E2BIG");
    /// Not called from CPL 0.
    pub const EPERM: Self = Self::named("KVM_EPERM");
    /// Known, but not possible here and now.
    pub const EOPNOTSUPP: Self = Self::named("KVM_EOPNOTSUPP");

    /// The error of that positive code, or `None` outside 1 to
    /// [`MAX`](Self::MAX).
    #[inline]
    #[must_use]
    pub const fn new(code: u16) -> Option<Self> {
        match NonZeroU16::new(code) {
            Some(code) if code.get() <= Self::MAX => Some(Self(code)),
            _ => None,
        }
    }

    /// The code as a positive number; a guest reads its negative.
    #[inline]
    #[must_use]
    pub const fn code(self) -> u64 {
        self.0.get() as u64
    }

    /// The kernel's name, where the header has one.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        let mut rest = Errno::ALL;
        while let [errno, tail @ ..] = rest {
            if errno.code == self.0.get() {
                return Some(errno.name);
            }
            rest = tail;
        }
        None
    }

    #[expect(clippy::panic, reason = "called by constants alone: a compile error")]
    const fn named(name: &str) -> Self {
        match Self::new(code_of(name)) {
            Some(errno) => errno,
            None => panic!("a return code outside 1 to MAX"),
        }
    }
}

impl fmt::Debug for KvmErrno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "KvmErrno({})", self.0),
        }
    }
}

impl fmt::Display for KvmErrno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "hypercall failed: -{name} (-{})", self.0),
            None => write!(f, "hypercall failed: -{}", self.0),
        }
    }
}

impl core::error::Error for KvmErrno {}

/// What a hypercall answers: the value for RAX, or an error that is negated
/// on its way there.
///
/// See [`to_rax`] for an example.
pub type HypercallResult = Result<u64, KvmErrno>;

/// The value a guest finds in RAX: an error negated, and the whole truncated
/// to 32 bits after a 32-bit call, so that -1000 reads `0xffff_fc18` there
/// (`kvm_emulate_hypercall` in `arch/x86/kvm/x86.c`).
///
/// ```
/// use hypercall_abi::{KvmErrno, Mode, from_rax, to_rax};
///
/// let rax = to_rax(Err(KvmErrno::ENOSYS), Mode::Bits32);
/// assert_eq!(rax, 0xffff_fc18);
/// assert_eq!(from_rax(rax, Mode::Bits32), Err(KvmErrno::ENOSYS));
/// assert_eq!(to_rax(Ok(3), Mode::Bits64), 3);
/// ```
#[inline]
#[must_use]
pub const fn to_rax(result: HypercallResult, mode: Mode) -> u64 {
    let value = match result {
        Ok(value) => value,
        Err(errno) => errno.code().wrapping_neg(),
    };
    mode.truncate(value)
}

/// The guest's reading of RAX, the inverse of [`to_rax`]: the top 4095 values
/// of the mode's width are errors. After a 32-bit call the upper half of RAX
/// is not looked at.
///
/// See [`to_rax`] for an example.
#[inline]
pub const fn from_rax(rax: u64, mode: Mode) -> HypercallResult {
    let (value, negated) = match mode {
        Mode::Bits64 => (rax, rax.wrapping_neg()),
        Mode::Bits32 => (low32(rax) as u64, low32(rax).wrapping_neg() as u64),
    };
    if negated == 0 || negated > KvmErrno::MAX as u64 {
        return Ok(value);
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "at most MAX, by the test above"
    )]
    match KvmErrno::new(negated as u16) {
        Some(errno) => Err(errno),
        None => Ok(value),
    }
}
