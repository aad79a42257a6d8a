//! Which cell runs next: rounds in random order, so that drift of the host
//! hits all cells alike, until each interval is narrow or the budget is spent.
//!
//! A value without clock or threads: the caller says what time it is.

use std::time::Duration;

use oorandom::Rand64;

use super::statistics::{ENOUGH, Interval, median_interval};

/// When enough was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// All the time there is.
    pub budget: Duration,
    /// A cell whose interval is this narrow is done: half its width as a share
    /// of the median.
    pub narrow: f64,
    /// Repetitions of a cell at most.
    pub most: usize,
}

impl Limits {
    /// Whether a cell needs no more than these values.
    fn suffice(&self, values: &[f64], seed: u64) -> bool {
        if values.len() >= self.most {
            return true;
        }
        let interval = median_interval(values, seed).filter(Interval::is_95);
        interval.is_some_and(|interval| {
            let width = interval.relative_width();
            // A cell that stalls, every time, has no relative width and is done.
            width.is_none_or(|width| width.get() <= self.narrow)
        })
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// Index of the cell.
    pub cell: usize,
    /// Its first run: it warms up caches and the host, and is not counted.
    pub warm_up: bool,
}

#[derive(Clone, Debug, Default)]
struct Progress {
    values: Vec<f64>,
    warm: bool,
    /// Its interval is narrow, or it failed.
    done: bool,
    /// What its last run took, with everything around it.
    took: Option<Duration>,
}

/// The order of a study.
#[derive(Clone, Debug)]
pub struct Schedule {
    limits: Limits,
    seed: u64,
    random: Rand64,
    cells: Vec<Progress>,
    /// The rest of this round, last first.
    round: Vec<usize>,
    /// What a run takes of which nothing is known.
    guess: Duration,
}

impl Schedule {
    /// For so many cells, each run of which takes about `guess`.
    pub fn new(cells: usize, guess: Duration, limits: Limits, seed: u64) -> Self {
        Self {
            limits,
            seed,
            random: Rand64::new(seed.into()),
            cells: vec![Progress::default(); cells],
            round: Vec::new(),
            guess,
        }
    }

    /// The next run at `now`, measured from the begin; nothing when all is done
    /// or no run fits into the budget any more. A round is measured to its end
    /// before a cell has its next turn.
    pub fn next(&mut self, now: Duration) -> Option<Next> {
        if self.round.is_empty() {
            self.round = (0..self.cells.len()).filter(|&i| self.wants(i)).collect();
            for place in (1..self.round.len()).rev() {
                let other = self.random.rand_range(0..place as u64 + 1);
                self.round.swap(place, usize::try_from(other).unwrap_or(0));
            }
        }
        while let Some(cell) = self.round.pop() {
            if now + self.takes(cell) <= self.limits.budget {
                let warm_up = self.cells.get(cell).is_some_and(|progress| !progress.warm);
                return Some(Next { cell, warm_up });
            }
        }
        None
    }

    /// A run is over: what it measured, and how long it took with its start and
    /// its end.
    pub fn record(&mut self, run: Next, value: f64, took: Duration) {
        if let Some(cell) = self.cells.get_mut(run.cell) {
            cell.took = Some(took);
            if run.warm_up {
                cell.warm = true;
            } else {
                cell.values.push(value);
                cell.done = self.limits.suffice(&cell.values, self.seed);
            }
        }
    }

    /// A run is over that measured nothing of use: the host slept meanwhile.
    pub fn lose(&mut self, run: Next, took: Duration) {
        if let Some(cell) = self.cells.get_mut(run.cell) {
            cell.took = Some(took);
        }
    }

    /// A run failed: its cell is not tried again.
    pub fn fail(&mut self, run: Next) {
        if let Some(cell) = self.cells.get_mut(run.cell) {
            cell.done = true;
        }
    }

    /// Whether every cell is done, failed ones included.
    pub fn is_done(&self) -> bool {
        (0..self.cells.len()).all(|cell| !self.wants(cell))
    }

    /// Runs that are over, and how many there will be at least.
    pub fn runs(&self) -> (usize, usize) {
        let done = self
            .cells
            .iter()
            .map(|c| c.values.len() + usize::from(c.warm));
        let done: usize = done.sum();
        let left: usize = (0..self.cells.len())
            .map(|cell| self.least_left(cell))
            .sum();
        (done, done + left)
    }

    /// Time left at `now`: to the end of the budget, or less if what is missing
    /// takes less.
    pub fn time_left(&self, now: Duration) -> Duration {
        let missing = (0..self.cells.len()).map(|cell| {
            let runs = u32::try_from(self.least_left(cell)).unwrap_or(u32::MAX);
            self.takes(cell).saturating_mul(runs)
        });
        let missing = missing.fold(Duration::ZERO, Duration::saturating_add);
        missing.min(self.limits.budget.saturating_sub(now))
    }

    /// Runs that a cell needs at least.
    fn least_left(&self, cell: usize) -> usize {
        let Some(progress) = self.cells.get(cell).filter(|_| self.wants(cell)) else {
            return 0;
        };
        let least = ENOUGH.min(self.limits.most);
        let values = least.saturating_sub(progress.values.len()).max(1);
        values + usize::from(!progress.warm)
    }

    fn wants(&self, cell: usize) -> bool {
        self.cells.get(cell).is_some_and(|progress| !progress.done)
    }

    fn takes(&self, cell: usize) -> Duration {
        let known = self.cells.get(cell).and_then(|progress| progress.took);
        known.unwrap_or(self.guess)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limits(budget: u64) -> Limits {
        Limits {
            budget: SECOND * u32::try_from(budget).unwrap(),
            narrow: 0.02,
            most: 20,
        }
    }

    /// Runs to the end; `value` of a cell and the number of its run.
    fn drive(
        mut schedule: Schedule,
        value: impl Fn(usize, usize) -> f64,
    ) -> (Vec<Next>, Schedule, Duration) {
        let (mut now, mut order) = (Duration::ZERO, Vec::new());
        while let Some(next) = schedule.next(now) {
            let number = order.iter().filter(|n: &&Next| n.cell == next.cell).count();
            let left = schedule.time_left(now);
            assert!(now + left <= schedule.limits.budget);
            schedule.record(next, value(next.cell, number), SECOND);
            order.push(next);
            now += SECOND;
        }
        (order, schedule, now)
    }

    #[test]
    fn steady_cells_are_done_and_the_others_go_on() {
        let schedule = Schedule::new(3, SECOND, limits(1000), 3);
        // Cell 1 jumps by half, for ever.
        let (order, schedule, _) = drive(schedule, |cell, number| match cell {
            1 => 100.0 + 50.0 * (number % 3) as f64,
            _ => 100.0,
        });
        let runs = |cell| order.iter().filter(|next| next.cell == cell).count();
        assert_eq!((runs(0), runs(2)), (ENOUGH + 1, ENOUGH + 1));
        assert_eq!(runs(1), 21, "20 and a warm-up");
        assert!(schedule.is_done());
        let (done, of) = schedule.runs();
        assert_eq!(done, of);
    }

    #[test]
    fn cells_take_turns_in_changing_order() {
        let (order, ..) = drive(Schedule::new(8, SECOND, limits(56), 5), |_, _| 1.0);
        let rounds: Vec<Vec<usize>> = order
            .chunks(8)
            .map(|round| round.iter().map(|next| next.cell).collect())
            .collect();
        for round in &rounds {
            let mut cells = round.clone();
            cells.sort_unstable();
            assert_eq!(cells, (0..8).collect::<Vec<_>>());
        }
        assert!(rounds.windows(2).any(|pair| pair[0] != pair[1]));
        assert!(order[..8].iter().all(|next| next.warm_up));
        assert!(order[8..].iter().all(|next| !next.warm_up));
    }

    #[test]
    fn the_budget_holds() {
        let (order, schedule, now) =
            drive(Schedule::new(10, SECOND, limits(35), 1), |_, n| n as f64);
        assert_eq!(order.len(), 35);
        assert_eq!(now, SECOND * 35);
        assert!(!schedule.is_done());
        // A cell that has no room any more is skipped; a shorter one runs.
        let mut schedule = Schedule::new(2, SECOND, limits(10), 1);
        let first = schedule.next(Duration::ZERO).unwrap();
        schedule.record(first, 1.0, SECOND * 9);
        let second = schedule.next(SECOND * 9).unwrap();
        assert_ne!(first.cell, second.cell);
        schedule.record(second, 1.0, SECOND / 4);
        let third = schedule.next(SECOND * 37 / 4).unwrap();
        assert_eq!(third.cell, second.cell);
    }

    #[test]
    fn a_failed_cell_is_not_tried_again() {
        let mut schedule = Schedule::new(2, SECOND, limits(1000), 2);
        let first = schedule.next(Duration::ZERO).unwrap();
        schedule.fail(first);
        let (order, schedule, _) = drive(schedule, |_, _| 5.0);
        assert!(order.iter().all(|next| next.cell != first.cell));
        assert!(schedule.is_done());
        assert_eq!(Schedule::new(0, SECOND, limits(1), 2).next(SECOND), None);
    }

    #[test]
    fn the_same_seed_is_the_same_order() {
        let run = |seed| drive(Schedule::new(6, SECOND, limits(40), seed), |_, _| 1.0).0;
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn a_stalled_cell_ends() {
        let (order, ..) = drive(Schedule::new(1, SECOND, limits(1000), 1), |_, _| 0.0);
        assert_eq!(order.len(), ENOUGH + 1);
    }
}
