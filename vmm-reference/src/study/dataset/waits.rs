//! How long the lock was waited for.

use serde::{Deserialize, Serialize};

use super::super::finite::Finite;

/// A histogram of waits: how many lasted up to which limit.
///
/// In a file it is a list of `[nanoseconds, count]`, the limits ascending, only
/// those with a count; a wait lies above the limit before its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct Waits(Vec<(u64, u64)>);

impl From<Vec<(u64, u64)>> for Waits {
    fn from(mut counts: Vec<(u64, u64)>) -> Self {
        counts.retain(|&(_, count)| count != 0);
        counts.sort_unstable();
        counts.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 = kept.1.saturating_add(next.1);
            }
            same
        });
        Self(counts)
    }
}

impl From<Waits> for Vec<(u64, u64)> {
    fn from(waits: Waits) -> Self {
        waits.0
    }
}

impl Waits {
    /// Limits in nanoseconds and their counts, ascending.
    pub fn counts(&self) -> &[(u64, u64)] {
        &self.0
    }

    /// Number of waits.
    pub fn total(&self) -> u64 {
        let counts = self.0.iter();
        counts.fold(0, |sum, &(_, count)| sum.saturating_add(count))
    }

    /// Adds another's.
    pub fn merge(&mut self, other: &Self) {
        let mut all = std::mem::take(&mut self.0);
        all.extend_from_slice(&other.0);
        *self = all.into();
    }

    /// Nanoseconds that a share `q` of all waits did not exceed.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let rank = (self.total() as f64 * q).ceil().max(1.0);
        let mut seen = 0u64;
        let counts = self.0.iter();
        let found = counts.copied().find(|&(_, count)| {
            seen = seen.saturating_add(count);
            seen as f64 >= rank
        });
        found.map(|(limit, _)| limit)
    }

    /// Nanoseconds that no wait exceeded.
    pub fn longest(&self) -> Option<u64> {
        self.0.last().map(|&(limit, _)| limit)
    }

    /// For each limit the share of waits that were longer, of those limits that
    /// some wait exceeded: the complementary distribution.
    pub fn tail(&self) -> Vec<(u64, Finite)> {
        let total = self.total();
        let mut left = total;
        let shares = self.0.iter().filter_map(|&(limit, count)| {
            left = left.saturating_sub(count);
            let share = Finite::ratio(left as f64, total as f64)?;
            (left > 0).then_some((limit, share))
        });
        shares.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_known_waits() {
        let waits = Waits::from(vec![(100, 90), (1000, 9), (10_000, 1)]);
        assert_eq!(waits.total(), 100);
        assert_eq!(waits.quantile(0.5), Some(100));
        assert_eq!(waits.quantile(0.9), Some(100));
        assert_eq!(waits.quantile(0.91), Some(1000));
        assert_eq!(waits.quantile(0.99), Some(1000));
        assert_eq!(waits.quantile(1.0), Some(10_000));
        assert_eq!(Waits::default().quantile(0.5), None);
        let tail = waits.tail();
        let tail: Vec<_> = tail.iter().map(|(l, s)| (*l, s.get())).collect();
        assert_eq!(tail, [(100, 0.1), (1000, 0.01)]);
    }

    #[test]
    fn merging_is_counting_together() {
        let mut waits = Waits::from(vec![(8, 1), (2, 3), (8, 1), (4, 0)]);
        assert_eq!(waits.counts(), [(2, 3), (8, 2)]);
        waits.merge(&Waits::from(vec![(4, 7), (8, u64::MAX)]));
        assert_eq!(waits.counts(), [(2, 3), (4, 7), (8, u64::MAX)]);
        assert_eq!(waits.longest(), Some(8));
    }
}
