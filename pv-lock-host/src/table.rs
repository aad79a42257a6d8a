//! APIC ID to slot, in constant time, built once and never changed.

use crate::apic_id::ApicId;

/// Ids below this are looked up in an array, 16 KiB at most; those above it in
/// a hash table.
const DENSE: usize = 4096;

const EMPTY: u32 = u32::MAX;

/// Which slot an APIC ID names.
#[derive(Debug)]
pub(crate) struct ApicTable {
    /// Slot by id, for small ids.
    dense: Box<[u32]>,
    /// Open addressing with linear probing, at most half full; `(id, slot)`.
    sparse: Box<[(u32, u32)]>,
    /// Right shift that turns a product into a place in `sparse`.
    shift: u32,
    /// No id is further than this from its place: the bound of a look-up,
    /// hit or miss, whatever id a guest comes up with.
    reach: usize,
}

impl ApicTable {
    /// Fails with the first id that comes twice.
    pub(crate) fn new(ids: &[ApicId]) -> Result<Self, ApicId> {
        let (mut small, mut large) = (0, 0usize);
        for id in ids {
            match usize::try_from(id.0) {
                Ok(id) if id < DENSE => small = small.max(id + 1),
                _ => large += 1,
            }
        }
        let places = (large * 2).next_power_of_two().max(2);
        let mut table = Self {
            dense: vec![EMPTY; small].into_boxed_slice(),
            sparse: vec![(0, EMPTY); if large == 0 { 0 } else { places }].into_boxed_slice(),
            shift: u32::BITS - places.trailing_zeros(),
            reach: 0,
        };
        for (slot, &id) in (0u32..).zip(ids) {
            table.insert(id, slot)?;
        }
        Ok(table)
    }

    fn insert(&mut self, id: ApicId, slot: u32) -> Result<(), ApicId> {
        if let Some(place) = self.dense.get_mut(id.0 as usize) {
            if *place != EMPTY {
                return Err(id);
            }
            *place = slot;
            return Ok(());
        }
        let mask = self.sparse.len() - 1;
        let home = self.home(id);
        for distance in 0..self.sparse.len() {
            let Some(place) = self.sparse.get_mut((home + distance) & mask) else {
                break;
            };
            if place.1 == EMPTY {
                *place = (id.0, slot);
                self.reach = self.reach.max(distance);
                return Ok(());
            }
            if place.0 == id.0 {
                break;
            }
        }
        // The table is at most half full, so only a duplicate ends up here.
        Err(id)
    }

    /// Fibonacci hashing: the high bits of a product with 2^32 / phi.
    fn home(&self, id: ApicId) -> usize {
        (id.0.wrapping_mul(0x9e37_79b9) >> self.shift) as usize
    }

    /// The slot of `id`.
    #[inline]
    pub(crate) fn get(&self, id: ApicId) -> Option<usize> {
        if let Some(&slot) = self.dense.get(id.0 as usize) {
            return (slot != EMPTY).then_some(slot as usize);
        }
        if self.sparse.is_empty() {
            return None;
        }
        let mask = self.sparse.len() - 1;
        let home = self.home(id);
        (home..=home + self.reach)
            .filter_map(|place| self.sparse.get(place & mask))
            .take_while(|(_, slot)| *slot != EMPTY)
            .find(|(there, _)| *there == id.0)
            .map(|&(_, slot)| slot as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn finds_what_a_map_finds(
            ids in proptest::collection::vec(
                prop_oneof![0u32..64, 4090u32..4100, any::<u32>(), (0u32..64).prop_map(|n| n << 26)],
                1..200,
            ),
            strangers in proptest::collection::vec(any::<u32>(), 0..50),
        ) {
            let ids: Vec<ApicId> = ids.into_iter().map(ApicId).collect();
            let mut map = HashMap::new();
            let duplicate = ids.iter().zip(0usize..).find(|(id, n)| map.insert(**id, *n).is_some());
            match (ApicTable::new(&ids), duplicate) {
                (Ok(table), None) => {
                    for id in ids.iter().copied().chain(strangers.into_iter().map(ApicId)) {
                        prop_assert_eq!(table.get(id), map.get(&id).copied());
                    }
                }
                (Err(id), Some(_)) => {
                    prop_assert!(ids.iter().filter(|other| **other == id).count() > 1);
                }
                (table, duplicate) => prop_assert!(false, "{table:?} {duplicate:?}"),
            }
        }
    }

    /// What topologies hand out: packages, cores and threads in bit fields.
    #[test]
    fn reach_stays_short_for_regular_ids() {
        for stride in [1, 2, 16, 256, 4096, 1 << 16, 1 << 20] {
            let ids: Vec<ApicId> = (0..4096u32)
                .map(|n| ApicId(4096 + n.wrapping_mul(stride)))
                .collect();
            if let Ok(table) = ApicTable::new(&ids) {
                assert!(table.reach <= 64, "stride {stride}: {}", table.reach);
            }
        }
    }
}
