//! A set of interrupt vectors.

use serde::{Deserialize, Serialize};

/// A set of the 256 vectors, 64 a word.
#[derive(Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vectors([u64; Self::WORDS]);

impl Vectors {
    /// How many words it has.
    pub(crate) const WORDS: usize = 4;
    /// Without any.
    pub const EMPTY: Self = Self([0; Self::WORDS]);

    /// The set with these words, vector 0 in bit 0 of the first.
    pub const fn from_words(words: [u64; Self::WORDS]) -> Self {
        Self(words)
    }

    /// In which word a vector is, and its bit there.
    pub(crate) const fn place(vector: u8) -> (usize, u64) {
        ((vector >> 6) as usize, 1 << (vector & 63))
    }

    /// Whether `vector` is in it.
    pub fn contains(&self, vector: u8) -> bool {
        let (word, bit) = Self::place(vector);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    /// Puts `vector` in.
    pub fn insert(&mut self, vector: u8) {
        let (word, bit) = Self::place(vector);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    /// Takes `vector` out.
    pub fn remove(&mut self, vector: u8) {
        let (word, bit) = Self::place(vector);
        if let Some(word) = self.0.get_mut(word) {
            *word &= !bit;
        }
    }

    /// Those that are in either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        self.zip(other, |a, b| a & !b)
    }

    fn zip(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        let ([a, b, c, d], [w, x, y, z]) = (self.0, other.0);
        Self([f(a, w), f(b, x), f(c, y), f(d, z)])
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    /// The greatest, which is the one of highest priority.
    pub fn highest(&self) -> Option<u8> {
        let [a, b, c, d] = self.0;
        let (base, word) = [(192, d), (128, c), (64, b), (0, a)]
            .into_iter()
            .find(|&(_, word)| word != 0)?;
        u8::try_from(base + word.ilog2()).ok()
    }

    /// 32 of them as an APIC's register has them: `index` 0 is vectors 0 to 31,
    /// and one above 7 has none.
    pub fn register(&self, index: u32) -> u32 {
        let word = usize::try_from(index / 2).ok().and_then(|i| self.0.get(i));
        let word = word.copied().unwrap_or(0);
        let half = if index.is_multiple_of(2) {
            word
        } else {
            word >> 32
        };
        u32::try_from(half & 0xffff_ffff).unwrap_or(0)
    }
}

impl std::fmt::Debug for Vectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set()
            .entries((0..=u8::MAX).filter(|&vector| self.contains(vector)))
            .finish()
    }
}

impl FromIterator<u8> for Vectors {
    fn from_iter<I: IntoIterator<Item = u8>>(vectors: I) -> Self {
        let mut set = Self::EMPTY;
        vectors.into_iter().for_each(|vector| set.insert(vector));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every vector alone, and every pair: what an array of 256 flags says.
    #[test]
    fn it_is_a_set_of_256() {
        for a in 0..=u8::MAX {
            for b in 0..=u8::MAX {
                let mut set: Vectors = [a, b].into_iter().collect();
                assert_eq!(set.highest(), Some(a.max(b)));
                assert!(set.contains(a) && set.contains(b));
                set.remove(a);
                assert!(!set.contains(a));
                assert_eq!(set.highest(), (a != b).then_some(b));
                assert_eq!(set.is_empty(), a == b);
            }
        }
        assert_eq!(Vectors::EMPTY.highest(), None);
    }

    /// SDM: the eight registers of ISR, IRR and TMR have bit v % 32 of register
    /// v / 32 for vector v.
    #[test]
    fn registers_have_32_vectors_each() {
        for vector in 0..=u8::MAX {
            let set: Vectors = [vector].into_iter().collect();
            for index in 0..8 {
                let wanted = match u32::from(vector) / 32 == index {
                    true => 1u32 << (vector % 32),
                    false => 0,
                };
                assert_eq!(set.register(index), wanted, "vector {vector}");
            }
            assert_eq!(set.register(8), 0);
            assert_eq!(set.register(u32::MAX), 0);
        }
    }
}
