//! What a call answers.

use core::fmt;

use super::Register;
use crate::errno::KvmErrno;

/// A value of the result register.
///
/// ```
/// use hypercall_abi::{Answer, KvmErrno};
///
/// assert_eq!(Answer::Error(KvmErrno::ENOSYS).to_string(), "-KVM_ENOSYS");
/// assert_eq!(Answer::Code(-2).to_string(), "-2");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Answer {
    /// That value, which is no error.
    Value(u64),
    /// Any value that is no error: a count, an address.
    Number,
    /// A code of `linux/kvm_para.h`, negated.
    Error(KvmErrno),
    /// A code of the architecture's own set, as it stands in the register.
    Code(i64),
    /// A negative code, which the table does not name.
    Negative,
    /// The output that this register holds.
    Output(Register),
    /// Any value: the VMM chooses the answer, and KVM passes it on.
    Vmm,
    /// An exception at the instruction instead of an answer.
    Exception(&'static str),
    /// Nothing: the register stays as it was.
    Nothing,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => write!(f, "{value}"),
            Self::Number => f.write_str("n >= 0"),
            Self::Error(errno) => write!(f, "-{errno:?}"),
            Self::Code(code) => write!(f, "{code}"),
            Self::Negative => f.write_str("n < 0"),
            Self::Output(register) => register.fmt(f),
            Self::Vmm => f.write_str("any"),
            Self::Exception(name) => write!(f, "{name} exception"),
            Self::Nothing => f.write_str("nothing"),
        }
    }
}

/// One answer of a call.
///
/// ```
/// use hypercall_abi::{Answer, Arch, KvmErrno, find};
///
/// let kick = find(Arch::X86, 5).unwrap();
/// let eperm = Answer::Error(KvmErrno::EPERM);
/// assert!(kick.returns.iter().any(|answer| answer.value == eperm));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Return {
    /// The value as the guest reads it.
    pub value: Answer,
    /// In which case the guest reads this value, and what it means then.
    pub meaning: &'static str,
}

impl Return {
    pub(super) const fn new(value: Answer, meaning: &'static str) -> Self {
        Self { value, meaning }
    }
}
