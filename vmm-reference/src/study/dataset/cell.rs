//! A cell of the study: one way to wait for a lock, on one load, with so many
//! vCPUs; and its repetitions.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::super::finite::Finite;
use super::{Load, Repetition, Series, Waits};

/// What tells one cell from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CellKey {
    /// What the guest does.
    pub load: Load,
    /// How it waits.
    #[serde(flatten)]
    pub series: Series,
    /// VMs, all alike.
    pub vms: u32,
    /// vCPUs of each.
    pub vcpus: u32,
}

/// A cell and what was measured of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// What is measured.
    #[serde(flatten)]
    pub key: CellKey,
    /// Without the first, which warms up.
    pub repetitions: Vec<Repetition>,
    /// Why there are no more of them: it failed, or it hung.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure: Option<String>,
}

impl CellKey {
    /// vCPUs a pCPU.
    pub fn ratio(&self, cpus: u32) -> Finite {
        let vcpus = f64::from(self.vms) * f64::from(self.vcpus);
        // At least one CPU runs this program.
        Finite::ratio(vcpus, f64::from(cpus.max(1))).unwrap_or_default()
    }
}

impl fmt::Display for CellKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (load, vms, vcpus) = (self.load.name(), self.vms, self.vcpus);
        let plural = if vms == 1 { "" } else { "s" };
        write!(f, "{}; {load}; {vms} VM{plural} of {vcpus}", self.series)
    }
}

impl Cell {
    /// Acquisitions a second, a value for each repetition that has one.
    pub fn rates(&self) -> Vec<f64> {
        self.each(Repetition::rate)
    }

    /// A value for each repetition that has one.
    pub fn each(&self, value: impl Fn(&Repetition) -> Option<Finite>) -> Vec<f64> {
        let values = self.repetitions.iter().filter_map(value);
        values.map(Finite::get).collect()
    }

    /// The waits of all repetitions.
    pub fn waits(&self) -> Waits {
        let mut all = Waits::default();
        for repetition in &self.repetitions {
            all.merge(&repetition.waits);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::sample;
    use super::*;

    #[test]
    fn vms_count_in_the_ratio() {
        let key = CellKey {
            vms: 2,
            vcpus: 3,
            ..sample::dataset().cells[0].key
        };
        assert_eq!(key.ratio(2).get(), 3.0);
        assert_eq!(key.ratio(4).get(), 1.5);
    }
}
