use crate::errno::KvmErrno;

/// `KVM_HC_MAP_GPA_RANGE`: the guest changes a range of its memory between
/// shared and encrypted. The one call that KVM hands to userspace, as
/// `KVM_EXIT_HYPERCALL`, once `KVM_CAP_EXIT_HYPERCALL` is enabled for it.
///
/// ```
/// use hypercall_abi::{KvmErrno, MapGpaRange, PageSize};
///
/// let call = MapGpaRange { gpa: 0x20_0000, pages: 512, attributes: 0x11 };
/// let range = call.check().unwrap();
/// assert_eq!((range.gpa(), range.pages(), range.bytes()), (0x20_0000, 512, Some(2 << 20)));
/// assert_eq!((range.encrypted(), range.page_size()), (true, PageSize::SIZE_2M));
/// assert_eq!(range.reserved(), 0);
/// assert_eq!(MapGpaRange { pages: 0, ..call }.check(), Err(KvmErrno::EINVAL));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MapGpaRange {
    /// a0: guest physical address of the first page.
    pub gpa: u64,
    /// a1: number of 4 KiB pages.
    pub pages: u64,
    /// a2: attributes, see [`GpaRange`].
    pub attributes: u64,
}

impl MapGpaRange {
    /// Bit 4 of the attributes (`KVM_MAP_GPA_RANGE_ENCRYPTED`).
    pub const ENCRYPTED: u64 = 1 << 4;

    /// The range, if it is one KVM would pass on.
    ///
    /// # Errors
    /// [`KvmErrno::EINVAL`] for an address that is not page aligned, for no
    /// page at all, and for a range whose page numbers wrap.
    #[inline]
    pub const fn check(&self) -> Result<GpaRange, KvmErrno> {
        let first = self.gpa / GpaRange::PAGE;
        if self.gpa % GpaRange::PAGE != 0
            || self.pages == 0
            || first.checked_add(self.pages).is_none()
        {
            return Err(KvmErrno::EINVAL);
        }
        Ok(GpaRange {
            gpa: self.gpa,
            pages: self.pages,
            attributes: self.attributes,
        })
    }
}

/// A page range that passed KVM's tests; from [`MapGpaRange::check`].
///
/// Its end in bytes may still lie above 2^64, as KVM counts in page numbers.
///
/// See [`MapGpaRange`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GpaRange {
    gpa: u64,
    pages: u64,
    attributes: u64,
}

impl GpaRange {
    /// The size in bytes of the pages that the call counts in, whatever page
    /// size is preferred.
    pub const PAGE: u64 = 4096;

    /// Guest physical address of the first byte, page aligned.
    #[inline]
    #[must_use]
    pub const fn gpa(&self) -> u64 {
        self.gpa
    }

    /// Number of 4 KiB pages, not 0.
    #[inline]
    #[must_use]
    pub const fn pages(&self) -> u64 {
        self.pages
    }

    /// Length in bytes, or `None` from 2^64 on.
    #[inline]
    #[must_use]
    pub const fn bytes(&self) -> Option<u64> {
        self.pages.checked_mul(Self::PAGE)
    }

    /// Bits 3:0 of the attributes: the preferred page size.
    #[inline]
    #[must_use]
    pub const fn page_size(&self) -> PageSize {
        PageSize((self.attributes & 0xf) as u8)
    }

    /// Bit 4 of the attributes: encrypted, that is private to the guest.
    #[inline]
    #[must_use]
    pub const fn encrypted(&self) -> bool {
        self.attributes & MapGpaRange::ENCRYPTED != 0
    }

    /// Bits 63:5 of the attributes, in place. The ABI wants 0; KVM does not
    /// look and passes them on.
    #[inline]
    #[must_use]
    pub const fn reserved(&self) -> u64 {
        self.attributes & !0x1f
    }
}

/// A page size as bits 3:0 of the attribute word encode it. Any value is
/// representable.
///
/// See [`MapGpaRange`] for an example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageSize(pub u8);

impl PageSize {
    /// Pages of 4 KiB, encoded as 0.
    pub const SIZE_4K: Self = Self(0);
    /// Pages of 2 MiB, encoded as 1.
    pub const SIZE_2M: Self = Self(1);
    /// Pages of 1 GiB, encoded as 2.
    pub const SIZE_1G: Self = Self(2);
}
