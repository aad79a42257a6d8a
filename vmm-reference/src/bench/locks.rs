//! The scheduler's policies against each other where there is more than one
//! lock: what a link of one convoy may hold besides, and who else wants it.

use std::fmt::Write as _;
use std::time::Duration;

use clap::ValueEnum;

use crate::demo::choose::ChoiceError;
use crate::demo::{Backend, choose};
use crate::halt_mode::HaltMode;
use crate::policy::{Policy, YieldPolicy};
use crate::study::cells::{CellError, Cells, ways};
use crate::study::dataset::{CellKey, Load, Repetition, Series, Waiter, Waits};
use crate::study::driver::Run;
use crate::study::figures::units::{nanoseconds, number, percent};
use crate::study::finite::Finite;
use crate::study::statistics::{Interval, median, median_interval};
use crate::{host, stderr};

/// Which locks the guest has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LockSet {
    /// One, which all vCPUs take
    One,
    /// Every other vCPU takes an inner lock within an outer one, the rest the
    /// inner one alone
    Nested,
    /// Two, each for every other vCPU
    Independent,
    /// One, which half of the vCPUs take; the others compute
    Some,
}

impl LockSet {
    const fn load(self) -> Load {
        match self {
            Self::One => Load::Short,
            Self::Nested => Load::Nested,
            Self::Independent => Load::Independent,
            Self::Some => Load::Partial,
        }
    }
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum LocksError {
    /// The ways to halt and kick.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
    /// A guest.
    #[error(transparent)]
    Cell(#[from] CellError),
    /// This host has none.
    #[error("no way to halt in this process and kick on this host")]
    NoWay,
    /// A cell failed.
    #[error("{cell}: {reason}")]
    Failed {
        /// Which one.
        cell: CellKey,
        /// Why.
        reason: String,
    },
    /// A signal.
    #[error("interrupted")]
    Interrupted,
}

/// What a policy made of a load.
#[derive(Debug)]
struct Row {
    key: CellKey,
    policy: YieldPolicy,
    repetitions: Vec<Repetition>,
}

/// Rates, waits and fairness by locks, overcommit and policy.
#[derive(Debug)]
pub struct LockTable {
    backend: &'static str,
    rows: Vec<Row>,
}

/// The policies that take part, the default first.
const POLICIES: [YieldPolicy; 3] = [YieldPolicy::Hold, YieldPolicy::Nothing, YieldPolicy::Sched];
/// As in the study.
const SPIN: Duration = Duration::from_micros(10);
const SEED: u64 = 1;

/// Runs the PV ticket lock on each set of locks at 1x, 2x, 4x and 8x, each cell
/// `turns` times for `time`; the policies take turns.
///
/// # Errors
/// A guest can't be run, or its lock did not hold.
pub fn measure(
    backend: Backend,
    sets: &[LockSet],
    turns: usize,
    time: Duration,
) -> Result<LockTable, LocksError> {
    let found = choose::find(&backend, Some(HaltMode::Userspace), None)?;
    let &(halts, transport) = ways(&found).first().ok_or(LocksError::NoWay)?;
    let series = Series {
        waiter: Waiter::PvTicket,
        halts,
        transport,
    };
    let cpus = u32::try_from(host::cpus()).unwrap_or(1);
    let mut rows: Vec<Row> = Vec::new();
    for set in sets {
        // One vCPU has nobody to share two locks with.
        for vcpus in [1, 2, 4, 8]
            .map(|x| x * cpus)
            .into_iter()
            .filter(|&n| n > 1)
        {
            let key = CellKey {
                load: set.load(),
                series,
                vms: 1,
                vcpus,
            };
            rows.extend(POLICIES.map(|policy| Row {
                key,
                policy,
                repetitions: Vec::new(),
            }));
        }
    }
    let kind = backend.kind().name();
    let mut cells = Cells::new(backend, None, Policy::default(), SPIN, None)?;
    for turn in 0..turns {
        stderr::message(format_args!("turn {} of {turns}", turn + 1));
        for row in &mut rows {
            cells.set_policy(Policy {
                yielding: row.policy,
                ..Policy::default()
            });
            match cells.once(&row.key, time, None) {
                Run::Measured(repetition) => row.repetitions.push(*repetition),
                Run::Interrupted => return Err(LocksError::Interrupted),
                Run::Failed(reason) => {
                    let cell = row.key;
                    return Err(LocksError::Failed { cell, reason });
                }
            }
        }
    }
    Ok(LockTable {
        backend: kind,
        rows,
    })
}

impl Row {
    fn each(&self, value: impl Fn(&Repetition) -> Option<Finite>) -> Vec<f64> {
        let values = self.repetitions.iter().filter_map(value);
        values.map(Finite::get).collect()
    }

    fn rate(&self) -> Option<f64> {
        median(&self.each(Repetition::rate))
    }
}

fn words(interval: Option<Interval>, name: fn(f64) -> String) -> String {
    interval.map_or_else(
        || "–".to_string(),
        |all| {
            let [low, middle, high] = [all.low, all.middle, all.high].map(|v| name(v.get()));
            format!("{middle} ({low} to {high})")
        },
    )
}

impl LockTable {
    /// For docs/POLICIES.md.
    pub fn markdown(&self) -> String {
        let cpus = host::cpus() as f64;
        let mut out = format!(
            "| {} locks | vCPUs | policy | acquisitions/s (95 %) | of the best | p99 wait | \
             least share (95 %) |\n|---|--:|---|--:|--:|--:|--:|\n",
            self.backend
        );
        for row in &self.rows {
            let same = self.rows.iter().filter(|other| other.key == row.key);
            let best = same.filter_map(Row::rate).fold(0.0, f64::max);
            let mut waits = Waits::default();
            for repetition in &row.repetitions {
                waits.merge(&repetition.waits);
            }
            let rates = median_interval(&row.each(Repetition::rate), SEED);
            let shares = median_interval(&row.each(Repetition::least_share), SEED);
            let policy = row.policy.to_possible_value();
            // Writing to a String does not fail.
            let _ = writeln!(
                out,
                "| {} | {} ({}x) | {} | {} | {} | {} | {} |",
                row.key.load.name(),
                row.key.vcpus,
                f64::from(row.key.vcpus) / cpus,
                policy.as_ref().map_or("", |value| value.get_name()),
                words(rates, number),
                row.rate()
                    .map_or_else(|| "–".to_string(), |rate| percent(rate / best)),
                waits
                    .quantile(0.99)
                    .map_or_else(|| "–".to_string(), |ns| nanoseconds(ns as f64)),
                words(shares, percent),
            );
        }
        out
    }
}
