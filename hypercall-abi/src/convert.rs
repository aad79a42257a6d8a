//! Serving `KVM_HC_MAP_GPA_RANGE`: what a VMM has to decide is the conversion,
//! and the rest is here.

use crate::call::{GpaRange, MapGpaRange, PageSize};
use crate::errno::{HypercallResult, KvmErrno};

/// Who may read a range of guest memory. See [`convert`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// The guest alone: encrypted, or backed by guest_memfd
    /// (`KVM_MEMORY_ATTRIBUTE_PRIVATE`).
    Private,
    /// The guest and the host.
    Shared,
}

/// A range to convert; all of its bytes are at addresses below 2^64.
/// [`convert`] makes it, and has an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Conversion {
    /// Guest physical address of the first byte, page aligned.
    pub start: u64,
    /// Length in bytes, a multiple of 4096 and not 0.
    pub bytes: u64,
    /// What the pages are to become.
    pub to: Visibility,
    /// The page size that the guest would like: a hint.
    pub page_size: PageSize,
}

impl Conversion {
    /// Whether the range lies within the memory that has `bytes` bytes and
    /// begins at `start`. No value of them overflows.
    ///
    /// ```
    /// use hypercall_abi::{Conversion, KvmErrno, MapGpaRange, MemoryConverter, convert};
    ///
    /// struct Ram;
    /// impl MemoryConverter for Ram {
    ///     fn convert(&mut self, range: Conversion) -> Result<(), KvmErrno> {
    ///         if range.within(0, 0x10_0000) { Ok(()) } else { Err(KvmErrno::EINVAL) }
    ///     }
    /// }
    /// let call = |gpa| MapGpaRange { gpa, pages: 1, attributes: 0 };
    /// assert_eq!(convert(&call(0xf_f000), &mut Ram), Ok(0));
    /// assert_eq!(convert(&call(0x10_0000), &mut Ram), Err(KvmErrno::EINVAL));
    /// ```
    #[must_use]
    pub const fn within(&self, start: u64, bytes: u64) -> bool {
        self.start >= start && {
            let before = self.start - start;
            before <= bytes && self.bytes <= bytes - before
        }
    }
}

/// Guest memory that can be converted.
///
/// See [`convert`] for an example.
pub trait MemoryConverter {
    /// Makes the range private or shared, all of it or none: for memory of
    /// guest_memfd by `KVM_SET_MEMORY_ATTRIBUTES`, for encrypted memory in the
    /// platform's own way. The implementation has to check whether the range is
    /// the guest's memory at all: [`Conversion::within`]. See [`convert`] for
    /// an example.
    ///
    /// # Errors
    /// Any code: it goes to the guest.
    fn convert(&mut self, range: Conversion) -> Result<(), KvmErrno>;
}

/// Serves the call: KVM's checks, and those that it leaves to the VMM. Give the
/// result to the guest by [`to_rax`](crate::to_rax), or if its state is protected
/// by [`to_protected_ret`].
///
/// ```
/// use hypercall_abi::{
///     Conversion, KvmErrno, MapGpaRange, MemoryConverter, Visibility, convert,
/// };
///
/// #[derive(Default)]
/// struct Log(Vec<Conversion>);
///
/// impl MemoryConverter for Log {
///     fn convert(&mut self, range: Conversion) -> Result<(), KvmErrno> {
///         self.0.push(range);
///         Ok(())
///     }
/// }
///
/// let mut memory = Log::default();
/// let call = MapGpaRange { gpa: 0x1000, pages: 2, attributes: MapGpaRange::ENCRYPTED };
/// assert_eq!(convert(&call, &mut memory), Ok(0));
/// assert_eq!((memory.0[0].start, memory.0[0].bytes), (0x1000, 0x2000));
/// assert_eq!(memory.0[0].to, Visibility::Private);
/// // Unchecked by KVM: a reserved attribute.
/// let reserved = MapGpaRange { attributes: 1 << 5, ..call };
/// assert_eq!(convert(&reserved, &mut memory), Err(KvmErrno::EINVAL));
/// ```
///
/// # Errors
/// [`KvmErrno::EINVAL`] for what [`MapGpaRange::check`] refuses, for a reserved
/// attribute bit and for a range with a byte at 2^64 or above; and the
/// converter's own.
pub fn convert<C: MemoryConverter + ?Sized>(call: &MapGpaRange, memory: &mut C) -> HypercallResult {
    let range: GpaRange = call.check()?;
    let bytes = range.bytes().ok_or(KvmErrno::EINVAL)?;
    if range.reserved() != 0 || range.gpa().checked_add(bytes - 1).is_none() {
        return Err(KvmErrno::EINVAL);
    }
    memory.convert(Conversion {
        start: range.gpa(),
        bytes,
        to: if range.encrypted() {
            Visibility::Private
        } else {
            Visibility::Shared
        },
        page_size: range.page_size(),
    })?;
    Ok(0)
}

/// The value for `kvm_run.hypercall.ret` when the exit stands for a protected
/// guest's own request (SEV-SNP's page state change, TDX's MapGPA): KVM looks
/// whether it is 0, and later kernels than 6.12 take nothing else than 0, a
/// positive `EINVAL` or a positive `EAGAIN`. An error is `EINVAL`, whichever it
/// was.
///
/// ```
/// use hypercall_abi::{KvmErrno, to_protected_ret};
///
/// assert_eq!(to_protected_ret(Ok(0)), 0);
/// assert_eq!(to_protected_ret(Err(KvmErrno::EPERM)), 22);
/// ```
#[must_use]
pub const fn to_protected_ret(result: HypercallResult) -> u64 {
    match result {
        Ok(_) => 0,
        Err(_) => KvmErrno::EINVAL.code(),
    }
}
