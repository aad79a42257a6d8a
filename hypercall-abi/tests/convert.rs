//! Conversions of guest memory, good and bad.

use hypercall_abi::{
    Conversion, KvmErrno, MapGpaRange, MemoryConverter, PageSize, Visibility, convert,
    to_protected_ret,
};

/// 1 MiB of memory, and what was asked of it.
#[derive(Default)]
struct Memory(Vec<Conversion>);

impl MemoryConverter for Memory {
    fn convert(&mut self, range: Conversion) -> Result<(), KvmErrno> {
        if !range.within(0, 1 << 20) {
            return Err(KvmErrno::EFAULT);
        }
        self.0.push(range);
        Ok(())
    }
}

#[test]
fn good_ranges_reach_the_memory() {
    for (attributes, to, page_size) in [
        (0, Visibility::Shared, PageSize::SIZE_4K),
        (0x10, Visibility::Private, PageSize::SIZE_4K),
        (0x11, Visibility::Private, PageSize::SIZE_2M),
        (0x02, Visibility::Shared, PageSize::SIZE_1G),
        // A hint that the ABI does not name is still a hint.
        (0x1f, Visibility::Private, PageSize(15)),
    ] {
        let mut memory = Memory::default();
        let call = MapGpaRange {
            gpa: 0x1_0000,
            pages: 16,
            attributes,
        };
        assert_eq!(convert(&call, &mut memory), Ok(0));
        let range = memory.0[0];
        assert_eq!((range.start, range.bytes), (0x1_0000, 0x1_0000));
        assert_eq!((range.to, range.page_size), (to, page_size));
        assert_eq!(memory.0.len(), 1);
    }
}

#[test]
fn bad_ranges_do_not() {
    let mut memory = Memory::default();
    let last_page = !0xfff;
    for (gpa, pages, attributes, errno) in [
        (0x1001, 1, 0, KvmErrno::EINVAL),
        (0x1000, 0, 0, KvmErrno::EINVAL),
        (0x1000, u64::MAX, 0, KvmErrno::EINVAL),
        (0x1000, 1 << 52, 0, KvmErrno::EINVAL),
        (last_page, 2, 0, KvmErrno::EINVAL),
        (0x1000, 1, 1 << 5, KvmErrno::EINVAL),
        (0x1000, 1, 1 << 63, KvmErrno::EINVAL),
        // Whole, and not the guest's memory.
        (last_page, 1, 0, KvmErrno::EFAULT),
        (0x10_0000, 1, 0, KvmErrno::EFAULT),
        (0xf_f000, 2, 0, KvmErrno::EFAULT),
        (0, 257, 0, KvmErrno::EFAULT),
    ] {
        let call = MapGpaRange {
            gpa,
            pages,
            attributes,
        };
        let result = convert(&call, &mut memory);
        assert_eq!(result, Err(errno), "{call:x?}");
        assert_eq!(to_protected_ret(result), 22);
    }
    assert!(memory.0.is_empty());
    let all = MapGpaRange {
        gpa: 0,
        pages: 256,
        attributes: 0,
    };
    assert_eq!(convert(&all, &mut memory), Ok(0));
    assert_eq!(to_protected_ret(Ok(0)), 0);
}
