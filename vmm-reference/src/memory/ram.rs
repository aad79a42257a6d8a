//! RAM of a booted guest: where it lies, and the map that a guest is given.
//!
//! ```text
//! 0 ........ 0x9fc00   RAM
//! 0x9fc00 .. 0x100000  legacy BIOS area: reserved; ACPI tables at 0xe0000, the
//!                      reset vector at its end
//! 0x100000 . 3 GiB     RAM
//! 3 GiB .... 4 GiB     hole: I/O APIC, local APICs, KVM's TSS
//! 4 GiB ....           RAM beyond 3 GiB
//! ```

use super::{GuestMemory, MemoryError};

/// Where the hole for devices begins.
pub const HOLE_START: u64 = 3 << 30;
/// Where RAM goes on behind it.
pub const HOLE_END: u64 = 4 << 30;
/// End of the RAM that a PC guest may use below 1 MiB.
pub const LOW_RAM_END: u64 = 0x9_fc00;
/// ACPI tables: a guest looks for their root here, on 16-byte boundaries.
pub const ACPI_START: u64 = 0xe_0000;
/// Where "high memory" begins, and with it the place of kernels.
pub const HIGH_RAM_START: u64 = 0x10_0000;
/// The least memory a guest is given: one MiB above the first.
pub const MIN_BYTES: u64 = 2 << 20;

/// What a range of guest physical addresses is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeKind {
    /// Free to use.
    Ram,
    /// Not free: firmware tables lie in it.
    Reserved,
}

impl RangeKind {
    /// The number that e820, multiboot and PVH share.
    pub fn e820(self) -> u32 {
        match self {
            Self::Ram => 1,
            Self::Reserved => 2,
        }
    }
}

/// A range of guest physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first address.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
    /// What it is for.
    pub kind: RangeKind,
}

/// The layout of `bytes` of RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RamLayout {
    bytes: u64,
}

impl RamLayout {
    /// `bytes` of RAM, at least [`MIN_BYTES`] for the map to make sense.
    pub fn new(bytes: u64) -> Self {
        Self { bytes }
    }

    /// End of the RAM below the hole.
    pub fn low_end(self) -> u64 {
        self.bytes.min(HOLE_START)
    }

    /// Bytes above 4 GiB.
    pub fn high_bytes(self) -> u64 {
        self.bytes.saturating_sub(HOLE_START)
    }

    /// The map that a guest is given, by address.
    pub fn map(self) -> Vec<Range> {
        let range = |start: u64, end: u64, kind| Range {
            start,
            len: end.saturating_sub(start),
            kind,
        };
        let mut map = vec![
            range(0, LOW_RAM_END, RangeKind::Ram),
            range(LOW_RAM_END, HIGH_RAM_START, RangeKind::Reserved),
            range(HIGH_RAM_START, self.low_end(), RangeKind::Ram),
        ];
        if self.high_bytes() > 0 {
            let end = HOLE_END.saturating_add(self.high_bytes());
            map.push(range(HOLE_END, end, RangeKind::Ram));
        }
        map
    }

    /// Maps it. Nothing is touched: a page costs when the guest uses it.
    ///
    /// # Errors
    /// The mapping was refused.
    pub fn allocate(self) -> Result<GuestMemory, MemoryError> {
        let mut ranges = vec![(0, self.low_end())];
        if self.high_bytes() > 0 {
            ranges.push((HOLE_END, self.high_bytes()));
        }
        super::allocate(&ranges)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ram(layout: RamLayout) -> u64 {
        let map = layout.map();
        for pair in map.windows(2) {
            assert!(pair[0].start + pair[0].len <= pair[1].start, "{pair:?}");
        }
        map.iter()
            .filter(|r| r.kind == RangeKind::Ram)
            .map(|r| r.len)
            .sum()
    }

    #[test]
    fn all_memory_but_the_bios_area_is_told() {
        let bios = HIGH_RAM_START - LOW_RAM_END;
        for mib in [2, 256, 3071, 3072, 3073, 4096, 100_000] {
            let bytes = mib << 20;
            assert_eq!(ram(RamLayout::new(bytes)), bytes - bios, "{mib} MiB");
        }
    }

    #[test]
    fn no_ram_lies_in_the_hole() {
        use vm_memory::{GuestAddress, GuestMemoryBackend as _, GuestMemoryRegion as _};
        let memory = RamLayout::new((3 << 30) + (1 << 20)).allocate().unwrap();
        assert!(!memory.address_in_range(GuestAddress(HOLE_START)));
        assert!(!memory.address_in_range(GuestAddress(HOLE_END - 1)));
        assert!(memory.address_in_range(GuestAddress(HOLE_END)));
        let total: u64 = memory.iter().map(|r| r.len()).sum();
        assert_eq!(total, (3 << 30) + (1 << 20));
    }
}
