//! What a trace costs: the same cells with one and without, in turns.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use super::locks::LocksError;
use super::median;
use crate::demo::{Backend, choose};
use crate::halt_mode::HaltMode;
use crate::policy::Policy;
use crate::study::cells::{Cells, ways};
use crate::study::dataset::{CellKey, Halts, Load, Repetition, Series, Transport, Waiter};
use crate::study::driver::Run;
use crate::study::figures::units::number;
use crate::study::statistics::{Interval, median as middle, median_interval};
use crate::trace::{Collector, Recorder, What};
use crate::{host, stderr};

/// As `--trace` keeps them.
const EVENTS: usize = 20_000;
/// As in the study.
const SPIN: Duration = Duration::from_micros(10);
const SEED: u64 = 1;

/// A cell with and without a trace.
#[derive(Debug)]
struct Row {
    key: CellKey,
    off: Vec<f64>,
    on: Vec<f64>,
    /// Events of all vCPUs in a second.
    events_per_s: Vec<f64>,
}

/// What a trace costs.
#[derive(Debug)]
pub struct TraceCost {
    rows: Vec<Row>,
    /// Nanoseconds of an event, recorded and not.
    event_ns: [f64; 2],
}

/// Measures cells with a trace and without one, `turns` times each for `time`.
///
/// # Errors
/// A guest can't be run.
pub fn measure(backend: Backend, turns: usize, time: Duration) -> Result<TraceCost, LocksError> {
    let found = choose::find(&backend, Some(HaltMode::Userspace), None)?;
    let &(halts, transport) = ways(&found).first().ok_or(LocksError::NoWay)?;
    let cpus = u32::try_from(host::cpus()).unwrap_or(1);
    let spins = (Waiter::Ticket, Halts::Never, Transport::None);
    let pv = (Waiter::PvTicket, halts, transport);
    let cells = [(spins, cpus), (pv, cpus), (pv, 2 * cpus), (pv, 4 * cpus)];
    let mut rows = cells.map(|((waiter, halts, transport), vcpus)| Row {
        key: CellKey {
            load: Load::Short,
            series: Series {
                waiter,
                halts,
                transport,
            },
            vms: 1,
            vcpus,
        },
        off: Vec::new(),
        on: Vec::new(),
        events_per_s: Vec::new(),
    });
    let cells = Cells::new(backend, None, Policy::default(), SPIN, None)?;
    // The first turn warms up.
    for turn in 0..=turns {
        stderr::message(format_args!("turn {turn} of {turns}"));
        for row in &mut rows {
            // Neither is always the second one.
            for traced in [turn % 2 == 0, turn % 2 != 0] {
                let collector = Collector::new(EVENTS);
                let ran = cells.once(&row.key, time, traced.then_some(&collector));
                let repetition = measured(row.key, ran)?;
                let rate = repetition.rate().map_or(0.0, |rate| rate.get());
                if turn == 0 {
                    continue;
                }
                if !traced {
                    row.off.push(rate);
                    continue;
                }
                row.on.push(rate);
                let vcpus = collector.take().vcpus;
                let events = vcpus
                    .iter()
                    .map(|vcpu| vcpu.events.len() as u64 + vcpu.dropped);
                let events = events.sum::<u64>() as f64;
                row.events_per_s.push(events / repetition.seconds.get());
            }
        }
    }
    Ok(TraceCost {
        rows: rows.into(),
        event_ns: [
            event_ns(Collector::new(EVENTS).vm("").recorder(0)),
            event_ns(Recorder::OFF),
        ],
    })
}

fn measured(cell: CellKey, ran: Run) -> Result<Box<Repetition>, LocksError> {
    match ran {
        Run::Measured(repetition) => Ok(repetition),
        Run::Interrupted => Err(LocksError::Interrupted),
        Run::Failed(reason) => Err(LocksError::Failed { cell, reason }),
    }
}

/// Nanoseconds of one event.
fn event_ns(mut recorder: Recorder) -> f64 {
    const COUNT: u32 = 200_000;
    let mut batches: Vec<f64> = (0..15)
        .map(|_| {
            let begin = Instant::now();
            for _ in 0..COUNT {
                black_box(&mut recorder).record(What::Running);
            }
            begin.elapsed().as_nanos() as f64 / f64::from(COUNT)
        })
        .collect();
    median(&mut batches)
}

impl Row {
    /// The rate with a trace as a share of that without one in the same turn.
    fn kept(&self) -> Option<Interval> {
        let pairs = self.on.iter().zip(&self.off);
        let kept: Vec<f64> = pairs
            .filter(|(_, off)| **off > 0.0)
            .map(|(on, off)| on / off)
            .collect();
        median_interval(&kept, SEED)
    }
}

impl TraceCost {
    /// For a terminal.
    pub fn text(&self) -> String {
        let [on_ns, off_ns] = self.event_ns;
        let cpus = host::cpus() as f64;
        let mut out = String::new();
        // Writing to a String does not fail.
        for row in &self.rows {
            let _ = writeln!(out, "{}", row.key);
            let rate = |rates: &[f64]| middle(rates).map_or_else(|| "–".to_string(), number);
            let cost = row.kept().map_or_else(
                || "not measured".to_string(),
                |kept| {
                    let cost = |kept: f64| format!("{:.1} %", (1.0 - kept) * 100.0);
                    let [most, middle, least] =
                        [kept.low, kept.middle, kept.high].map(|k| cost(k.get()));
                    format!("{middle} ({least} to {most})")
                },
            );
            let events = middle(&row.events_per_s).unwrap_or(0.0);
            let share = |ns: f64| format!("{:.3} %", events * ns / 1e9 / cpus * 100.0);
            let _ = writeln!(
                out,
                "  acquisitions/s without {}, with {}: a trace costs {cost}, of {} turns",
                rate(&row.off),
                rate(&row.on),
                row.on.len(),
            );
            let _ = writeln!(
                out,
                "  {} events/s: their recording takes {} of the pCPUs' time, and without a trace {}",
                number(events),
                share(on_ns),
                share(off_ns),
            );
        }
        let _ = writeln!(
            out,
            "an event: {on_ns:.1} ns with a trace, {off_ns:.2} ns without"
        );
        out
    }
}
