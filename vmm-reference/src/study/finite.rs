//! Numbers that a report may print: never NaN, never infinite.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An `f64` that is finite. A rate over no time, a share of nothing: what has
/// no value is an absent `Finite`, and no file and no figure holds a NaN.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Finite(f64);

/// A number that is none.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{0} is not a finite number")]
pub struct NotFinite(f64);

impl Finite {
    /// Nothing.
    pub const ZERO: Self = Self(0.0);

    /// `value`, if it is finite.
    pub fn new(value: f64) -> Option<Self> {
        value.is_finite().then_some(Self(value))
    }

    /// `part / whole`, unless that has no value.
    pub fn ratio(part: f64, whole: f64) -> Option<Self> {
        Self::new(part / whole)
    }

    /// The number.
    pub const fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Finite {
    type Error = NotFinite;

    fn try_from(value: f64) -> Result<Self, NotFinite> {
        Self::new(value).ok_or(NotFinite(value))
    }
}

impl From<Finite> for f64 {
    fn from(value: Finite) -> Self {
        value.0
    }
}

impl From<std::time::Duration> for Finite {
    /// Seconds: a duration has no infinite value.
    fn from(time: std::time::Duration) -> Self {
        Self(time.as_secs_f64())
    }
}

impl PartialEq for Finite {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Finite {}

impl PartialOrd for Finite {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Finite {
    /// Finite numbers have a total order; 0 and -0 are told apart in it.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl fmt::Debug for Finite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Finite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_value_is_absent() {
        assert_eq!(Finite::ratio(1.0, 0.0), None);
        assert_eq!(Finite::ratio(0.0, 0.0), None);
        assert_eq!(Finite::ratio(1.0, 4.0).map(Finite::get), Some(0.25));
        assert!(Finite::try_from(f64::NEG_INFINITY).is_err());
    }

    #[test]
    fn a_file_cannot_bring_one_in() {
        assert!(serde_json::from_str::<Finite>("null").is_err());
        assert!(serde_json::from_str::<Finite>("1e999").is_err());
        assert_eq!(serde_json::from_str::<Finite>("2.5").unwrap().get(), 2.5);
    }
}
