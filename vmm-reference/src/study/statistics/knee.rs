//! The knee: the largest overcommit ratio up to which a host still does the
//! work that it does at 1x.

use std::fmt;

use super::super::finite::Finite;
use super::bootstrap::Interval;

/// The share of the work at 1x that counts as held.
pub const HELD: f64 = 0.9;

/// A point of the curve: the work done at a ratio, relative to that at 1x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// vCPUs a pCPU.
    pub ratio: Finite,
    /// Work done, relative to 1x.
    pub work: Interval,
}

/// Where a curve falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knee {
    /// It held up to here, and not at the next ratio measured.
    At {
        /// The last ratio that held.
        held: Finite,
        /// The first that did not.
        lost: Finite,
    },
    /// It held up to the last ratio measured.
    Beyond(Finite),
    /// Nothing above 1x was measured.
    Unknown,
}

impl fmt::Display for Knee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At { held, lost } => write!(f, "{held}x (not at {lost}x)"),
            Self::Beyond(last) => write!(f, "beyond {last}x, the last measured"),
            Self::Unknown => f.write_str("not measured"),
        }
    }
}

/// The last ratio, from 1x upward, whose lower bound stays at 90 % of the work
/// at 1x: what comes after a ratio that did not is luck.
pub fn knee(points: &[Point]) -> Knee {
    let mut above: Vec<Point> = points
        .iter()
        .copied()
        .filter(|point| point.ratio.get() > 1.0)
        .collect();
    above.sort_by_key(|point| point.ratio);
    let one = Finite::new(1.0).unwrap_or_default();
    let mut held = one;
    for point in above {
        if point.work.low.get() < HELD {
            return Knee::At {
                held,
                lost: point.ratio,
            };
        }
        held = point.ratio;
    }
    if held == one {
        Knee::Unknown
    } else {
        Knee::Beyond(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: &[(f64, f64)]) -> Vec<Point> {
        let number = |value: f64| Finite::new(value).unwrap();
        let points = points.iter().map(|&(ratio, low)| Point {
            ratio: number(ratio),
            work: Interval {
                low: number(low),
                middle: number(low + 0.02),
                high: number(low + 0.04),
                count: 9,
            },
        });
        points.collect()
    }

    #[test]
    fn known_curves() {
        let number = |value: f64| Finite::new(value).unwrap();
        let at = |held, lost| Knee::At {
            held: number(held),
            lost: number(lost),
        };
        for (points, expected) in [
            (curve(&[(0.5, 0.4), (1.0, 0.98), (2.0, 0.1)]), at(1.0, 2.0)),
            (
                curve(&[(8.0, 0.2), (1.0, 1.0), (2.0, 0.95), (4.0, 0.91)]),
                at(4.0, 8.0),
            ),
            // A later ratio that holds again does not move the knee.
            (
                curve(&[(1.5, 0.97), (2.0, 0.89), (4.0, 0.99)]),
                at(1.5, 2.0),
            ),
            (curve(&[(2.0, 0.9), (8.0, 1.3)]), Knee::Beyond(number(8.0))),
            (curve(&[(0.5, 0.4), (1.0, 1.0)]), Knee::Unknown),
            (Vec::new(), Knee::Unknown),
        ] {
            assert_eq!(knee(&points), expected);
        }
        assert_eq!(at(1.5, 2.0).to_string(), "1.5x (not at 2x)");
    }
}
