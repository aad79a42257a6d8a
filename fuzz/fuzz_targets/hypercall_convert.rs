//! KVM_HC_MAP_GPA_RANGE as KVM_EXIT_HYPERCALL brings it, with any content: which
//! pages of a small memory change, and what the guest is answered, are worked out
//! again with numbers of 128 bits.
//!
//! The input is fixed fields, little-endian: gpa, pages, attributes, start of the
//! memory (u64 each), its pages (u8), flags (u8: bit 0 64-bit mode, bit 1 the
//! conversion fails). What is missing reads as 0.

#![no_main]

mod input;

use hypercall_abi::{
    Conversion, Enforcement, HypercallHandler, HypercallResult, KVM_HC_MAP_GPA_RANGE, KvmErrno,
    MapGpaRange, MemoryConverter, Mode, RawHypercall, Visibility, convert, dispatch, from_rax,
    to_protected_ret,
};
use input::take;
use libfuzzer_sys::fuzz_target;

const PAGE: u64 = 4096;

/// Memory whose pages remember what they were made.
struct Memory {
    start: u64,
    pages: Vec<Option<Visibility>>,
    fails: bool,
}

impl MemoryConverter for Memory {
    fn convert(&mut self, range: Conversion) -> Result<(), KvmErrno> {
        let bytes = self.pages.len() as u64 * PAGE;
        if !range.within(self.start, bytes) {
            return Err(KvmErrno::EINVAL);
        }
        if self.fails {
            return Err(KvmErrno::EFAULT);
        }
        let first = (range.start - self.start) / PAGE;
        for page in first..first + range.bytes / PAGE {
            self.pages[page as usize] = Some(range.to);
        }
        Ok(())
    }
}

impl HypercallHandler for Memory {
    fn map_gpa_range(&mut self, call: MapGpaRange) -> HypercallResult {
        let result = convert(&call, self);
        assert!(matches!(to_protected_ret(result), 0 | 22));
        result
    }
}

fuzz_target!(|input: &[u8]| {
    let mut input = input;
    let args = [(); 3].map(|()| u64::from_le_bytes(take(&mut input)));
    // Where memory begins is for the VMM to choose: on a page, and it ends below
    // 2^64.
    let start = u64::from_le_bytes(take(&mut input)).min(u64::MAX - (PAGE << 9)) & !(PAGE - 1);
    let [size, flags] = take(&mut input);
    let fails = flags & 2 != 0;
    let mut memory = Memory {
        start,
        pages: vec![None; size.into()],
        fails,
    };
    let mode = Mode::from_longmode(flags.into());
    let slots = [args[0], args[1], args[2], !0, !0, !0];
    let raw = RawHypercall::from_hypercall_exit(KVM_HC_MAP_GPA_RANGE, &slots, flags.into());
    let ret = dispatch(&raw, Enforcement::NotEnforced, &mut memory);

    let low = |value: u64| {
        if flags & 1 == 0 {
            value & 0xffff_ffff
        } else {
            value
        }
    };
    let [gpa, pages, attributes] = args.map(|value| u128::from(low(value)));
    let (start, end) = (u128::from(start), gpa + pages * u128::from(PAGE));
    let size = u128::from(size) * u128::from(PAGE);
    let good = gpa % u128::from(PAGE) == 0
        && pages > 0
        && attributes < 1 << 5
        && gpa >= start
        && end <= start + size;
    let answer = match (good, fails) {
        (false, _) => Err(KvmErrno::EINVAL),
        (true, true) => Err(KvmErrno::EFAULT),
        (true, false) => Ok(0),
    };
    assert_eq!(
        from_rax(ret, mode),
        answer,
        "{gpa:#x} {pages:#x} {attributes:#x}"
    );
    let to = if attributes & 16 == 0 {
        Visibility::Shared
    } else {
        Visibility::Private
    };
    for (at, page) in memory.pages.iter().enumerate() {
        let address = start + at as u128 * u128::from(PAGE);
        let converted = answer.is_ok() && (gpa..end).contains(&address);
        assert_eq!(*page, converted.then_some(to), "{address:#x}");
    }
});
