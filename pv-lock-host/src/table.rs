//! APIC ID to slot, in constant time, built once and never changed.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

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
    sparse: Option<Sparse>,
}

impl ApicTable {
    /// Fails with an id that comes twice.
    pub(crate) fn new(ids: &[ApicId]) -> Result<Self, ApicId> {
        let is_small = |id: &ApicId| (id.0 as usize) < DENSE;
        let small = ids.iter().filter(|id| is_small(id)).max();
        let mut dense = vec![EMPTY; small.map_or(0, |id| id.0 as usize + 1)].into_boxed_slice();
        let mut large = Vec::new();
        for (slot, &id) in (0u32..).zip(ids) {
            match dense.get_mut(id.0 as usize) {
                Some(place) if *place == EMPTY => *place = slot,
                Some(_) => return Err(id),
                None => large.push(Entry { id, slot }),
            }
        }
        let sparse = match large.as_slice() {
            [] => None,
            large => Some(Sparse::new(large)?),
        };
        Ok(Self { dense, sparse })
    }

    /// The slot of `id`.
    #[inline]
    pub(crate) fn get(&self, id: ApicId) -> Option<usize> {
        let slot = match self.dense.get(id.0 as usize) {
            Some(&slot) => slot,
            None => self.sparse.as_ref()?.get(id),
        };
        (slot != EMPTY).then_some(slot as usize)
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: ApicId,
    /// [`EMPTY`]: none, whatever the id.
    slot: u32,
}

/// Cuckoo hashing: an id is in one of two places or nowhere. So a look-up takes
/// as long among thousands as among two, hit or miss, whatever ids a guest
/// comes up with.
#[derive(Debug)]
struct Sparse {
    /// At most a third of them taken.
    places: Box<[Entry]>,
    multipliers: [u64; 2],
    /// Right shift that turns a product into a place.
    shift: u32,
}

impl Sparse {
    /// A third: entries find their places at nearly the first try.
    const ROOM: usize = 3;
    /// Entries that one insertion may move, before it is taken for a cycle.
    const MOVES: usize = 64;
    /// Pairs of multipliers that are tried before there are more places.
    const TRIES: usize = 8;

    /// Fails with an id that comes twice.
    fn new(entries: &[Entry]) -> Result<Self, ApicId> {
        let mut multiplier = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            // A multiplicative congruential generator: odd numbers stay odd.
            multiplier = multiplier.wrapping_mul(0xda94_2042_e4dd_58b5);
            multiplier
        };
        let mut places = (entries.len() * Self::ROOM).next_power_of_two();
        loop {
            for _ in 0..Self::TRIES {
                let mut table = Self {
                    places: vec![Self::NOTHING; places].into_boxed_slice(),
                    multipliers: [next(), next()],
                    shift: u64::BITS - places.trailing_zeros(),
                };
                if table.fill(entries)? {
                    return Ok(table);
                }
            }
            places *= 2;
        }
    }

    const NOTHING: Entry = Entry {
        id: ApicId(0),
        slot: EMPTY,
    };

    /// `false` if some entry finds no place.
    fn fill(&mut self, entries: &[Entry]) -> Result<bool, ApicId> {
        for &entry in entries {
            if self.get(entry.id) != EMPTY {
                return Err(entry.id);
            }
            if !self.insert(entry) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn insert(&mut self, entry: Entry) -> bool {
        let mut homeless = entry;
        let [mut at, _] = self.places_of(entry.id);
        for _ in 0..Self::MOVES {
            let Some(place) = self.places.get_mut(at) else {
                return false;
            };
            core::mem::swap(place, &mut homeless);
            if homeless.slot == EMPTY {
                return true;
            }
            let [first, second] = self.places_of(homeless.id);
            at = if at == first { second } else { first };
        }
        false
    }

    /// The high bits of two products.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "shifted down to the width of an index"
    )]
    fn places_of(&self, id: ApicId) -> [usize; 2] {
        self.multipliers
            .map(|by| (u64::from(id.0).wrapping_mul(by) >> self.shift) as usize)
    }

    #[inline]
    fn get(&self, id: ApicId) -> u32 {
        // Both at once, with nothing to predict between them.
        let [first, second] = self.places_of(id).map(|at| match self.places.get(at) {
            Some(entry) if entry.id == id => entry.slot,
            _ => EMPTY,
        });
        first.min(second)
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
    fn regular_ids_need_no_more_room() {
        for stride in [1, 2, 16, 256, 4096, 1 << 16, 1 << 20] {
            for n in [1u32, 2, 3, 100, 4096] {
                let ids: Vec<ApicId> = (0..n)
                    .map(|i| ApicId(4096 + i.wrapping_mul(stride)))
                    .collect();
                let table = ApicTable::new(&ids).unwrap();
                let places = table.sparse.map_or(0, |sparse| sparse.places.len());
                assert_eq!(places, (ids.len() * Sparse::ROOM).next_power_of_two());
            }
        }
    }
}
