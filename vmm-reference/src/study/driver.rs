//! A study from its plan to its data: runs cells in the schedule's order, keeps
//! what they measured, and says what runs now and how long it will take.

use std::time::{Duration, SystemTime};

use super::dataset::{Cell, CellKey, Dataset, End, FORMAT, Repetition, Settings, Timeline};
use super::schedule::{Limits, Schedule};
use super::watch::Watch;

/// Half an interval's width, as a share of the median, that is narrow.
const NARROW: f64 = 0.02;
/// Repetitions of a cell at most.
const MOST: usize = 30;
/// Starting and ending a cell's VMs, until it is known.
const AROUND: Duration = Duration::from_millis(60);

/// What a run came to.
#[derive(Debug)]
pub enum Run {
    /// It measured this.
    Measured(Box<Repetition>),
    /// A signal ended it.
    Interrupted,
    /// It failed, or hung.
    Failed(String),
}

/// What runs cells.
pub trait Measure {
    /// Runs a cell for `time`.
    fn measure(&mut self, key: &CellKey, time: Duration) -> Run;

    /// Runs a cell for `time` with a trace; what its vCPUs did around the worst
    /// wait, if that can be told.
    fn timeline(&mut self, key: &CellKey, time: Duration) -> Option<Timeline>;

    /// What runs the guests, and why not KVM.
    fn backend(&self) -> (&'static str, Option<String>);
}

/// Where a study is.
#[derive(Clone, Copy, Debug)]
pub struct Status<'a> {
    /// Runs that are over.
    pub done: usize,
    /// Runs that there will be, at least.
    pub of: usize,
    /// What runs now.
    pub now: &'a CellKey,
    /// Time left, at most.
    pub left: Duration,
}

/// A study that is to be run.
#[derive(Clone, Debug)]
pub struct Study {
    /// What is measured.
    pub cells: Vec<CellKey>,
    /// Of which of them timelines are kept.
    pub timelines: Vec<CellKey>,
    /// How long, by which rules.
    pub settings: Settings,
    /// CPUs of the host.
    pub cpus: u32,
}

impl Study {
    /// Runs it.
    pub fn run(self, measure: &mut impl Measure, mut progress: impl FnMut(Status<'_>)) -> Dataset {
        let began = SystemTime::now();
        let seconds = |value: f64| Duration::try_from_secs_f64(value).unwrap_or_default();
        let time = seconds(self.settings.seconds.get());
        let mut watch = Watch::begin();
        let limits = Limits {
            budget: seconds(self.settings.budget.get()),
            narrow: NARROW,
            most: MOST,
        };
        let seed = self.settings.seed;
        let mut cells: Vec<Cell> = self.cells.iter().map(|&key| empty(key)).collect();

        // First, so that a study that is cut short has them.
        let mut timelines = Vec::new();
        for key in &self.timelines {
            progress(Status {
                done: 0,
                of: cells.len(),
                now: key,
                left: limits.budget,
            });
            timelines.extend(measure.timeline(key, time));
        }
        let mut schedule = Schedule::new(cells.len(), time + AROUND, limits, seed);
        let mut interrupted = false;
        while let Some(next) = schedule.next(watch.elapsed()) {
            let Some(cell) = cells.get_mut(next.cell) else {
                break;
            };
            let (done, of) = schedule.runs();
            let begin = watch.elapsed();
            progress(Status {
                done,
                of,
                now: &cell.key,
                left: schedule.time_left(begin),
            });
            watch.calibrate();
            let run = measure.measure(&cell.key, time);
            let took = watch.elapsed().saturating_sub(begin);
            let undisturbed = watch.is_undisturbed();
            match run {
                Run::Interrupted => {
                    interrupted = true;
                    break;
                }
                Run::Failed(reason) => {
                    cell.failure = Some(reason);
                    schedule.fail(next);
                }
                Run::Measured(_) if !undisturbed => schedule.lose(next, took),
                Run::Measured(mut repetition) => {
                    repetition.at = begin.into();
                    let rate = repetition.rate().map_or(0.0, super::finite::Finite::get);
                    schedule.record(next, rate, took);
                    if !next.warm_up {
                        cell.repetitions.push(*repetition);
                    }
                }
            }
        }
        let end = match (interrupted, schedule.is_done()) {
            (true, _) => End::Interrupted,
            (_, true) => End::Narrow,
            (_, false) => End::Budget,
        };
        let (backend, why_hosted) = measure.backend();
        Dataset {
            format: FORMAT,
            tool: concat!("vmm-reference ", env!("CARGO_PKG_VERSION")).to_string(),
            began: humantime::format_rfc3339_seconds(began).to_string(),
            took: watch.elapsed().into(),
            end,
            host: watch.end(backend, why_hosted, self.cpus),
            settings: self.settings,
            cells,
            timelines,
        }
    }
}

const fn empty(key: CellKey) -> Cell {
    Cell {
        key,
        repetitions: Vec::new(),
        failure: None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{plan, sample};
    use super::*;
    use crate::study::dataset::{Halts, Transport};

    /// Takes no time, fails for one cell, and is interrupted once.
    struct Fake {
        runs: usize,
        interrupt_after: usize,
        fails: CellKey,
    }

    impl Measure for Fake {
        fn measure(&mut self, key: &CellKey, _: Duration) -> Run {
            self.runs += 1;
            if self.runs > self.interrupt_after {
                return Run::Interrupted;
            }
            if *key == self.fails {
                return Run::Failed("it hung".to_string());
            }
            let acquisitions = vec![1000; (key.vms * key.vcpus) as usize];
            Run::Measured(Box::new(sample::repetition(0.0, &acquisitions)))
        }

        fn timeline(&mut self, _: &CellKey, _: Duration) -> Option<Timeline> {
            sample::dataset().timelines.into_iter().next()
        }

        fn backend(&self) -> (&'static str, Option<String>) {
            ("kvm", None)
        }
    }

    fn study(interrupt_after: usize) -> (Dataset, usize) {
        let ways = [(Halts::Userspace, Transport::Port)];
        let cells = plan::cells(plan::Extent::Quick, 2, &ways);
        let mut fake = Fake {
            runs: 0,
            interrupt_after,
            fails: cells[3],
        };
        let study = Study {
            timelines: vec![cells[0]],
            cells,
            settings: sample::dataset().settings,
            cpus: 2,
        };
        let mut shown = 0;
        let data = study.run(&mut fake, |status| {
            shown += 1;
            assert!(status.done <= status.of);
        });
        (data, shown)
    }

    #[test]
    fn to_the_end() {
        let (data, shown) = study(usize::MAX);
        assert_eq!(data.end, End::Narrow);
        assert!(shown > data.cells.len());
        for (index, cell) in data.cells.iter().enumerate() {
            let expected = if index == 3 { 0 } else { 6 };
            assert_eq!(cell.repetitions.len(), expected, "without the warm-up");
        }
        assert_eq!(data.cells[3].failure.as_deref(), Some("it hung"));
        assert_eq!(data.timelines.len(), 1);
        assert!(data.began.ends_with('Z'));
    }

    #[test]
    fn a_signal_leaves_what_was_measured() {
        let (data, _) = study(40);
        assert_eq!(data.end, End::Interrupted);
        let repetitions: usize = data.cells.iter().map(|c| c.repetitions.len()).sum();
        assert!(repetitions > 0 && repetitions < 40);
    }
}
