//! Is there a difference? A permutation test, as Firecracker's A/B tests use
//! one: if there is none, the labels mean nothing, and the difference of the
//! means is as large under many other labellings.

use std::fmt;

use oorandom::Rand64;

use super::bootstrap::{Interval, index, ratio_interval};

/// More labellings than this are sampled, not listed.
const LABELLINGS: usize = 9999;
/// A difference that chance makes more often is none.
const LEVEL: f64 = 0.05;

/// What two samples say of each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// The second is larger.
    Faster(Interval),
    /// The second is smaller.
    Slower(Interval),
    /// Chance alone may well have made the difference.
    NoneSeen(Option<Interval>),
    /// With so few values no difference could be told from chance.
    TooFew,
}

impl Verdict {
    /// The ratio of the second's median to the first's.
    pub const fn ratio(&self) -> Option<Interval> {
        match *self {
            Self::Faster(ratio) | Self::Slower(ratio) | Self::NoneSeen(Some(ratio)) => Some(ratio),
            Self::NoneSeen(None) | Self::TooFew => None,
        }
    }
}

impl fmt::Display for Verdict {
    /// `faster by 12 to 15 %`, `2.1 to 2.3 times as fast`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Faster(ratio) if ratio.low.get() >= 2.0 => {
                let (low, high) = (ratio.low.get(), ratio.high.get());
                let digits = usize::from(low < 10.0);
                write!(f, "{low:.digits$} to {high:.digits$} times as fast")
            }
            Self::Faster(ratio) => {
                let percent = |share: f64| (share - 1.0) * 100.0;
                let (low, high) = (percent(ratio.low.get()), percent(ratio.high.get()));
                write!(f, "faster by {} %", range(low, high))
            }
            Self::Slower(ratio) => {
                let percent = |share: f64| (1.0 - share) * 100.0;
                let (low, high) = (percent(ratio.high.get()), percent(ratio.low.get()));
                write!(f, "slower by {} %", range(low, high))
            }
            Self::NoneSeen(_) => f.write_str("no difference seen"),
            Self::TooFew => f.write_str("too few repetitions to tell"),
        }
    }
}

/// `12 to 15`, in whole numbers unless they are small.
fn range(low: f64, high: f64) -> String {
    let digits = usize::from(high < 10.0);
    let (low, high) = (format!("{low:.digits$}"), format!("{high:.digits$}"));
    if low == high {
        low
    } else {
        format!("{low} to {high}")
    }
}

/// Whether `b` differs from `a`, and by how much. A difference needs both: a
/// permutation test that chance passes once in 20 times at most, and an interval
/// of the ratio without 1 in it.
pub fn verdict(a: &[f64], b: &[f64], seed: u64) -> Verdict {
    judge(a, b, seed, chance(a, b, seed), |chance| chance <= LEVEL)
}

/// [`verdict`] of many pairs at once: of hundred pairs without a difference
/// chance makes five look like one, if each is asked for itself. Here it makes
/// any look like one once in 20 times; and of those that are said to differ, one
/// in 20 does not, at most (Benjamini and Hochberg's method).
pub fn verdicts(pairs: &[(Vec<f64>, Vec<f64>)], seed: u64) -> Vec<Verdict> {
    let chances: Vec<Option<f64>> = pairs.iter().map(|(a, b)| chance(a, b, seed)).collect();
    let mut sorted: Vec<f64> = chances.iter().copied().flatten().collect();
    sorted.sort_by(f64::total_cmp);
    // Where many differ, each is asked for less.
    let all = sorted.len() as f64;
    let ranks = (1u32..).map(f64::from).zip(sorted);
    let passes = ranks.filter(|&(rank, chance)| chance <= LEVEL * rank / all);
    let limit = passes.last().map(|(_, chance)| chance);
    let pairs = pairs.iter().zip(chances);
    let verdicts = pairs.map(|((a, b), chance)| {
        judge(a, b, seed, chance, |chance| {
            limit.is_some_and(|limit| chance <= limit)
        })
    });
    verdicts.collect()
}

fn judge(
    a: &[f64],
    b: &[f64],
    seed: u64,
    chance: Option<f64>,
    is_rare: impl Fn(f64) -> bool,
) -> Verdict {
    let Some(chance) = chance else {
        return Verdict::TooFew;
    };
    match ratio_interval(b, a, seed) {
        Some(ratio) if is_rare(chance) && ratio.low.get() > 1.0 => Verdict::Faster(ratio),
        Some(ratio) if is_rare(chance) && ratio.high.get() < 1.0 => Verdict::Slower(ratio),
        ratio => Verdict::NoneSeen(ratio),
    }
}

/// How often chance makes the means differ by as much; nothing where the two
/// are so few that even the clearest difference is not rarer than once in 20 times.
pub fn chance(a: &[f64], b: &[f64], seed: u64) -> Option<f64> {
    let labellings = choose(a.len() + b.len(), a.len());
    // Both ends count: the clearest labelling and its mirror image.
    if labellings.is_none_or(|all| (all as f64) * LEVEL < 2.0) {
        return None;
    }
    let mut all: Vec<f64> = a.iter().chain(b).copied().collect();
    if all.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let sum: f64 = all.iter().sum();
    let (n, m) = (a.len() as f64, b.len() as f64);
    let difference = |first: f64| (first / n - (sum - first) / m).abs();
    let seen = difference(a.iter().sum());
    // Rounding must not make a labelling differ from its equal.
    let seen = seen - 1e-9 * (seen.abs() + sum.abs() / (n + m));
    let mut random = Rand64::new(seed.into());
    let mut as_large = 0usize;
    for _ in 0..LABELLINGS {
        // The first steps of a shuffle: a random choice of a's labels.
        for place in 0..a.len() {
            let other = place + index(all.len() - place, &mut random);
            all.swap(place, other);
        }
        let first = all.iter().take(a.len()).sum();
        as_large += usize::from(difference(first) >= seen);
    }
    // The labelling that was seen is one of them.
    Some((as_large + 1) as f64 / (LABELLINGS + 1) as f64)
}

/// Ways to choose `k` of `n`; a number past all use is as good as more.
fn choose(n: usize, k: usize) -> Option<usize> {
    if k == 0 || k == n {
        return None;
    }
    let mut ways = 1usize;
    for i in 0..k {
        ways = ways.saturating_mul(n - i) / (i + 1);
        if ways > LABELLINGS {
            return Some(ways);
        }
    }
    Some(ways)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Box and Muller.
    pub(crate) fn normal(random: &mut Rand64) -> f64 {
        let (u, v) = (1.0 - random.rand_float(), random.rand_float());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    pub(crate) fn exponential(random: &mut Rand64) -> f64 {
        -(1.0 - random.rand_float()).ln()
    }

    fn sample(n: usize, draw: fn(&mut Rand64) -> f64, random: &mut Rand64) -> Vec<f64> {
        (0..n).map(|_| 100.0 + 10.0 * draw(random)).collect()
    }

    /// The bar: a difference of 0 is called none in 95 of 100.
    #[test]
    fn no_difference_is_called_none() {
        for (draw, name) in [
            (normal as fn(&mut Rand64) -> f64, "normal"),
            (exponential, "exponential"),
        ] {
            let mut random = Rand64::new(11);
            let none = (0..300u64).filter(|&seed| {
                let (a, b) = (sample(10, draw, &mut random), sample(10, draw, &mut random));
                matches!(verdict(&a, &b, seed), Verdict::NoneSeen(_))
            });
            let none = none.count();
            assert!(none >= 285, "{name}: {none} of 300");
            assert!(none < 300, "{name}: a test that never errs is none");
        }
    }

    /// 12 studies of 20 cells each without a difference: some cell seems to have
    /// one in one of 20; asking each cell for itself finds one in 12 of 20.
    #[test]
    fn many_pairs_do_not_make_a_difference() {
        let mut random = Rand64::new(13);
        let wrong = (0..12u64).filter(|&seed| {
            let pair = |_| {
                (
                    sample(7, normal, &mut random),
                    sample(7, normal, &mut random),
                )
            };
            let pairs: Vec<_> = (0..20).map(pair).collect();
            let none = |verdict: &Verdict| matches!(verdict, Verdict::NoneSeen(_));
            !verdicts(&pairs, seed).iter().all(none)
        });
        assert!(wrong.count() <= 3);
        // And a clear one among them is still seen.
        let mut pairs = vec![(vec![1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7], vec![1.0; 8]); 20];
        for (n, pair) in pairs.iter_mut().enumerate() {
            pair.1.clone_from(&pair.0);
            if n == 3 {
                pair.1.iter_mut().for_each(|value| *value *= 3.0);
            }
        }
        let seen = verdicts(&pairs, 1);
        let faster = seen
            .iter()
            .map(|verdict| matches!(verdict, Verdict::Faster(_)));
        assert_eq!(faster.filter(|&yes| yes).count(), 1);
        assert!(matches!(seen[3], Verdict::Faster(_)));
        assert_eq!(verdicts(&[], 1), []);
    }

    #[test]
    fn a_difference_is_seen_and_its_size_said() {
        let mut random = Rand64::new(12);
        let mut seen = 0;
        for seed in 0..100 {
            let a = sample(10, normal, &mut random);
            let b: Vec<f64> = a
                .iter()
                .map(|_| 130.0 + 10.0 * normal(&mut random))
                .collect();
            match verdict(&a, &b, seed) {
                Verdict::Faster(ratio) => seen += usize::from(ratio.contains(1.3)),
                Verdict::NoneSeen(_) => {}
                other => panic!("{other:?}"),
            }
            assert!(!matches!(verdict(&b, &a, seed), Verdict::Faster(_)));
        }
        assert!(seen >= 90, "{seen} of 100");
    }

    /// By hand: of the 70 labellings of 4 and 4, this one and its mirror image
    /// are the clearest.
    #[test]
    fn chance_is_that_of_all_labellings() {
        let p = chance(&[1.0, 2.0, 3.0, 4.0], &[5.0, 6.0, 7.0, 8.0], 1).unwrap();
        assert!((p - 2.0 / 70.0).abs() < 0.006, "{p}");
        let p = chance(&[1.0; 5], &[1.0; 5], 1).unwrap();
        assert_eq!(p, 1.0);
    }

    #[test]
    fn too_few_are_called_that() {
        assert_eq!(verdict(&[1.0; 3], &[9.0; 3], 1), Verdict::TooFew);
        assert_eq!(verdict(&[], &[1.0; 9], 1), Verdict::TooFew);
        assert_eq!(verdict(&[1.0; 9], &[], 1), Verdict::TooFew);
        assert!(matches!(
            verdict(&[1.0, 1.1, 1.2, 1.3], &[9.0, 9.1, 9.2, 9.3], 1),
            Verdict::Faster(_)
        ));
    }

    #[test]
    fn a_sample_that_stalled_is_no_panic() {
        let stalled = [0.0; 8];
        let good = [1.0, 1.1, 1.2, 1.0, 1.1, 1.2, 1.0, 1.1];
        assert!(matches!(verdict(&good, &stalled, 1), Verdict::Slower(_)));
        // Nothing is a multiple of nothing.
        assert_eq!(verdict(&stalled, &good, 1), Verdict::NoneSeen(None));
        assert_eq!(verdict(&stalled, &stalled, 1), Verdict::NoneSeen(None));
    }

    #[test]
    fn words() {
        let ratio = |low: f64, high: f64| Interval {
            low: low.try_into().unwrap(),
            middle: f64::midpoint(low, high).try_into().unwrap(),
            high: high.try_into().unwrap(),
            count: 9,
        };
        for (verdict, words) in [
            (Verdict::Faster(ratio(1.12, 1.15)), "faster by 12 to 15 %"),
            (Verdict::Faster(ratio(24.0, 26.0)), "24 to 26 times as fast"),
            (
                Verdict::Slower(ratio(0.967, 0.984)),
                "slower by 1.6 to 3.3 %",
            ),
            (Verdict::Slower(ratio(0.79, 0.791)), "slower by 21 %"),
            (Verdict::NoneSeen(None), "no difference seen"),
        ] {
            assert_eq!(verdict.to_string(), words);
        }
    }
}
