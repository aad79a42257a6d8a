//! Medians and their intervals, by resampling.
//!
//! The bootstrap draws as many values from the sample, with replacement, again
//! and again: the middle 95 % of those medians is the interval (Efron's
//! percentile method).

use oorandom::Rand64;

use super::super::finite::Finite;

/// Often enough that an interval's ends do not move in their third digit.
const RESAMPLES: usize = 2000;

/// A median and the 95 % interval that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Lower end.
    pub low: Finite,
    /// The median.
    pub middle: Finite,
    /// Upper end.
    pub high: Finite,
    /// Values behind it.
    pub count: usize,
}

impl Interval {
    /// Half of its width, as a share of the median.
    pub fn relative_width(&self) -> Option<Finite> {
        let half = (self.high.get() - self.low.get()) / 2.0;
        Finite::ratio(half, self.middle.get())
    }

    /// Enough values that it is one of 95 %; else it is the range of what was
    /// seen.
    pub const fn is_95(&self) -> bool {
        self.count >= super::ENOUGH
    }

    /// Whether `value` lies in it.
    pub fn contains(&self, value: f64) -> bool {
        (self.low.get()..=self.high.get()).contains(&value)
    }
}

/// The middle value, or the mean of the two middle ones. NaN has no place in an
/// order: a sample with one has no median.
pub fn median(values: &[f64]) -> Option<f64> {
    middle(&mut values.to_vec())
}

fn middle(values: &mut [f64]) -> Option<f64> {
    if values.iter().any(|value| value.is_nan()) {
        return None;
    }
    let half = values.len() / 2;
    let odd = values.len() % 2 == 1;
    if values.is_empty() {
        return None;
    }
    let (below, &mut upper, _) = values.select_nth_unstable_by(half, f64::total_cmp);
    if odd {
        return Some(upper);
    }
    let lower = below.iter().copied().max_by(f64::total_cmp)?;
    Some(f64::midpoint(lower, upper))
}

/// The median of `values` and its interval.
pub fn median_interval(values: &[f64], seed: u64) -> Option<Interval> {
    let mut random = Rand64::new(seed.into());
    let mut drawn = Vec::with_capacity(values.len());
    let medians = (0..RESAMPLES).map(|_| resampled(values, &mut drawn, &mut random));
    interval(
        median(values)?,
        medians.collect::<Option<_>>()?,
        values.len(),
    )
}

/// The median of `values` over that of `base`, and the interval of that ratio.
pub fn ratio_interval(values: &[f64], base: &[f64], seed: u64) -> Option<Interval> {
    let mut random = Rand64::new(seed.into());
    let mut drawn = Vec::new();
    let ratios = (0..RESAMPLES).map(|_| {
        let over = resampled(values, &mut drawn, &mut random)?;
        let under = resampled(base, &mut drawn, &mut random)?;
        // A base that stalled once makes one ratio endless, and no interval.
        Finite::ratio(over, under).map(Finite::get)
    });
    let ratios = ratios.collect::<Option<Vec<_>>>()?;
    let ratio = Finite::ratio(median(values)?, median(base)?)?;
    interval(ratio.get(), ratios, values.len().min(base.len()))
}

fn interval(middle: f64, mut all: Vec<f64>, count: usize) -> Option<Interval> {
    all.sort_by(f64::total_cmp);
    // 2.5 % on either side.
    let tail = all.len() / 40;
    let (low, high) = (*all.get(tail)?, *all.get(all.len().checked_sub(tail + 1)?)?);
    Some(Interval {
        low: Finite::new(low)?,
        middle: Finite::new(middle)?,
        high: Finite::new(high)?,
        count,
    })
}

/// The median of as many values, drawn with replacement.
fn resampled(values: &[f64], drawn: &mut Vec<f64>, random: &mut Rand64) -> Option<f64> {
    drawn.clear();
    for _ in 0..values.len() {
        drawn.push(*values.get(index(values.len(), random))?);
    }
    middle(drawn)
}

/// A number below `len`, which is not 0.
pub(super) fn index(len: usize, random: &mut Rand64) -> usize {
    let below = random.rand_range(0..len as u64);
    // Below a `usize`: it fits.
    usize::try_from(below).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::permutation::tests::{exponential, normal};
    use super::*;

    #[test]
    fn medians_by_hand() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[5.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[1.0, f64::NAN]), None);
    }

    #[test]
    fn one_value_is_its_own_range_and_no_95_percent() {
        let one = median_interval(&[7.0], 1).unwrap();
        assert_eq!((one.low, one.middle, one.high), {
            let seven = Finite::new(7.0).unwrap();
            (seven, seven, seven)
        });
        assert!(!one.is_95());
        assert_eq!(median_interval(&[], 1), None);
        assert_eq!(ratio_interval(&[1.0], &[0.0], 1), None, "over nothing");
    }

    #[test]
    fn the_same_seed_gives_the_same_interval() {
        let values: Vec<f64> = (0..15).map(|n| f64::from((n * 7) % 15)).collect();
        assert_eq!(median_interval(&values, 9), median_interval(&values, 9));
    }

    /// Of 400 samples of 15 with a known median, 95 % of the intervals hold it.
    /// The share of 400 such draws has a standard deviation of 1.1 %; the
    /// percentile bootstrap of a median is a little conservative.
    #[test]
    fn intervals_hold_the_median_of_known_distributions() {
        for (draw, truth) in [
            (normal as fn(&mut Rand64) -> f64, 0.0),
            (exponential, std::f64::consts::LN_2),
        ] {
            let mut random = Rand64::new(4);
            let held = (0..400u64).filter(|&seed| {
                let values: Vec<f64> = (0..15).map(|_| draw(&mut random)).collect();
                median_interval(&values, seed).unwrap().contains(truth)
            });
            let held = held.count();
            assert!((364..=396).contains(&held), "{held} of 400");
        }
    }

    #[test]
    fn the_ratio_of_medians_is_held_too() {
        let mut random = Rand64::new(5);
        let held = (0..200u64).filter(|&seed| {
            let over: Vec<f64> = (0..12).map(|_| 300.0 + normal(&mut random)).collect();
            let under: Vec<f64> = (0..12).map(|_| 100.0 + normal(&mut random)).collect();
            ratio_interval(&over, &under, seed).unwrap().contains(3.0)
        });
        assert!(held.count() >= 180);
    }
}
