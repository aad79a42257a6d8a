//! The knee: the overcommit ratio up to which a host still does the work that
//! it does at 1x.
//!
//! Only some ratios are measured, and each only so well: so the knee is an
//! interval between two of them, and what a ratio does is said only where the
//! data show it.

use std::fmt;

use super::super::finite::Finite;
use super::permutation::{Verdict, verdict};

/// The share of the work at 1x that counts as held.
pub const HELD: f64 = 0.9;

/// Whether the work at a ratio is [`HELD`] of that at 1x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// It is shown to be more.
    Yes,
    /// It is shown to be less.
    No,
    /// Neither is shown.
    Open,
}

/// What the rates at a ratio say against those at 1x. A difference from
/// [`HELD`] of them is asked for what any other is.
pub fn holds(rates: &[f64], base: &[f64], seed: u64) -> Holds {
    let least: Vec<f64> = base.iter().map(|rate| rate * HELD).collect();
    match verdict(&least, rates, seed) {
        Verdict::Faster(_) => Holds::Yes,
        Verdict::Slower(_) => Holds::No,
        Verdict::NoneSeen(_) | Verdict::TooFew => Holds::Open,
    }
}

/// Where a curve falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knee {
    /// It surely holds at the one, and surely not at the other.
    Between {
        /// The last ratio, before the other, that is shown to hold.
        held: Finite,
        /// The first that is shown not to.
        lost: Finite,
    },
    /// It is shown to hold up to the last ratio measured.
    Beyond(Finite),
    /// No ratio is shown not to hold, and the last ones are not shown to hold.
    Open {
        /// The last ratio that is shown to hold.
        held: Finite,
        /// The last measured.
        last: Finite,
    },
    /// Nothing above 1x was measured.
    Unknown,
}

impl fmt::Display for Knee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Between { held, lost } => write!(f, "between {held}x and {lost}x"),
            Self::Beyond(last) => write!(f, "above {last}x, the highest measured"),
            Self::Open { held, last } => {
                write!(
                    f,
                    "above {held}x; whether below {last}x, the highest measured, the figures do not show"
                )
            }
            Self::Unknown => f.write_str("not measured"),
        }
    }
}

impl Knee {
    /// The last ratio that is shown to hold, and the first that is not: as far as
    /// they are known.
    fn ends(self) -> (f64, f64) {
        match self {
            Self::Between { held, lost } => (held.get(), lost.get()),
            Self::Beyond(held) | Self::Open { held, .. } => (held.get(), f64::INFINITY),
            Self::Unknown => (0.0, f64::INFINITY),
        }
    }

    /// Whether the two can be the same.
    pub fn agrees(self, other: Self) -> bool {
        let ((low, high), (other_low, other_high)) = (self.ends(), other.ends());
        low.max(other_low) < high.min(other_high)
    }
}

/// The knee of these ratios and what was shown of them: what comes after a ratio
/// that does not hold is luck.
pub fn knee(points: &[(Finite, Holds)]) -> Knee {
    let mut above: Vec<(Finite, Holds)> = points
        .iter()
        .copied()
        .filter(|(ratio, _)| ratio.get() > 1.0)
        .collect();
    above.sort_by_key(|&(ratio, _)| ratio);
    let mut held = Finite::new(1.0).unwrap_or_default();
    let Some(&(last, _)) = above.last() else {
        return Knee::Unknown;
    };
    for (ratio, holds) in above {
        match holds {
            Holds::Yes => held = ratio,
            Holds::No => return Knee::Between { held, lost: ratio },
            Holds::Open => {}
        }
    }
    if held == last {
        Knee::Beyond(last)
    } else {
        Knee::Open { held, last }
    }
}

#[cfg(test)]
mod tests {
    use oorandom::Rand64;

    use super::super::permutation::tests::{exponential, normal};
    use super::*;

    fn number(value: f64) -> Finite {
        Finite::new(value).unwrap()
    }

    fn between(held: f64, lost: f64) -> Knee {
        Knee::Between {
            held: number(held),
            lost: number(lost),
        }
    }

    #[test]
    fn known_curves() {
        use Holds::{No, Open, Yes};
        let open = |held, last| Knee::Open {
            held: number(held),
            last: number(last),
        };
        for (points, expected, words) in [
            (
                vec![(0.5, No), (1.0, Open), (2.0, No)],
                between(1.0, 2.0),
                "between 1x and 2x",
            ),
            (
                vec![(8.0, No), (1.0, Open), (2.0, Yes), (4.0, Yes)],
                between(4.0, 8.0),
                "between 4x and 8x",
            ),
            // A ratio that nobody can tell makes the interval wider.
            (
                vec![(2.0, Yes), (4.0, Open), (8.0, No)],
                between(2.0, 8.0),
                "between 2x and 8x",
            ),
            // Unless a later one is shown to hold.
            (
                vec![(2.0, Open), (4.0, Yes), (8.0, No)],
                between(4.0, 8.0),
                "between 4x and 8x",
            ),
            // A later ratio that holds again does not move the knee.
            (
                vec![(1.5, Yes), (2.0, No), (4.0, Yes)],
                between(1.5, 2.0),
                "between 1.5x and 2x",
            ),
            (
                vec![(2.0, Open), (8.0, Yes)],
                Knee::Beyond(number(8.0)),
                "above 8x, the highest measured",
            ),
            (
                vec![(2.0, Yes), (4.0, Open), (8.0, Open)],
                open(2.0, 8.0),
                "above 2x; whether below 8x, the highest measured, the figures do not show",
            ),
            (vec![(0.5, No), (1.0, Open)], Knee::Unknown, "not measured"),
            (Vec::new(), Knee::Unknown, "not measured"),
        ] {
            let points: Vec<_> = points.into_iter().map(|(r, h)| (number(r), h)).collect();
            assert_eq!(knee(&points), expected);
            assert_eq!(expected.to_string(), words);
        }
    }

    #[test]
    fn two_that_overlap_agree() {
        let beyond = Knee::Beyond(number(4.0));
        assert!(between(1.0, 4.0).agrees(between(2.0, 4.0)));
        assert!(!between(1.0, 2.0).agrees(between(2.0, 4.0)));
        assert!(beyond.agrees(between(4.0, 8.0)) && !beyond.agrees(between(2.0, 4.0)));
        assert!(Knee::Unknown.agrees(between(1.0, 2.0)) && beyond.agrees(beyond));
    }

    const RATIOS: [f64; 3] = [2.0, 4.0, 8.0];

    /// A study of cells with these true medians relative to 1x, and six
    /// repetitions that scatter by `spread` around them.
    fn measured(
        truth: [f64; 3],
        spread: f64,
        draw: fn(&mut Rand64) -> f64,
        random: &mut Rand64,
    ) -> Knee {
        let mut cell = |median: f64| -> Vec<f64> {
            let rates = (0..6).map(|_| 1000.0 * median * (1.0 + spread * draw(random)));
            rates.collect()
        };
        let base = cell(1.0);
        let points = RATIOS.iter().zip(truth).map(|(&ratio, median)| {
            let rates = cell(median);
            (number(ratio), holds(&rates, &base, 1))
        });
        knee(&points.collect::<Vec<_>>())
    }

    /// An exponential whose median is 0, scaled as wide as the normal one.
    fn skewed(random: &mut Rand64) -> f64 {
        exponential(random) - std::f64::consts::LN_2
    }

    /// Of 40 studies of a known curve, taken two and two: the knee is where it is,
    /// and the two agree, at least 95 times in 100. The curves with 0.9 are exactly at
    /// the limit at 4x, where an answer would be a guess: either side is right.
    #[test]
    fn knees_of_known_distributions() {
        let draws: [fn(&mut Rand64) -> f64; 2] = [normal, skewed];
        for (draw, truth, spread, low, high) in [
            (draws[0], [1.0, 0.99, 0.4], 0.03, 4.0, 8.0),
            (draws[1], [0.97, 0.85, 0.2], 0.08, 2.0, 4.0),
            (draws[0], [1.0, 0.9, 0.5], 0.05, 2.0, 8.0),
            (draws[1], [1.0, 0.9, 0.5], 0.05, 2.0, 8.0),
            (draws[1], [0.3, 0.2, 0.1], 0.1, 1.0, 2.0),
            (draws[0], [0.95, 0.93, 0.92], 0.1, 8.0, f64::INFINITY),
        ] {
            let mut random = Rand64::new(21);
            let knees = (0..40).map(|_| measured(truth, spread, draw, &mut random));
            let knees: Vec<Knee> = knees.collect();
            let right = knees.iter().filter(|knee| {
                let (held, lost) = knee.ends();
                held.max(low) < lost.min(high)
            });
            assert!(right.count() >= 38, "{truth:?}: {knees:?}");
            let pairs = knees.chunks_exact(2);
            let agree = pairs.filter(|pair| pair[0].agrees(pair[1])).count();
            assert!(agree >= 19, "{truth:?}: {agree} of 20: {knees:?}");
        }
    }

    /// Where nothing falls, a knee is seen in at most one of 20 studies.
    #[test]
    fn no_knee_where_nothing_falls() {
        let mut random = Rand64::new(22);
        let seen = (0..100).filter(|_| {
            let knee = measured([1.0; 3], 0.1, normal, &mut random);
            matches!(knee, Knee::Between { .. })
        });
        assert!(seen.count() <= 5);
    }

    #[test]
    fn too_few_show_nothing() {
        assert_eq!(holds(&[1.0; 3], &[9.0; 3], 1), Holds::Open);
        assert_eq!(holds(&[], &[9.0; 9], 1), Holds::Open);
        assert_eq!(holds(&[0.0; 8], &[9.0; 8], 1), Holds::No);
    }
}
