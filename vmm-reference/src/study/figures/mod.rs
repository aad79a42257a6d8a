//! The report's figures, each with its table.
//!
//! - [`curves`]: work done and fairness against the overcommit ratio;
//! - [`tail`]: how often the lock is waited for how long;
//! - [`bars`]: what an acquisition costs, and where the vCPUs' time goes;
//! - [`beside`]: vCPUs that take no lock: their wake-ups, and who has the pCPUs;
//! - [`rows`]: vCPUs, pCPUs and the lock around the worst wait; [`mod@wait`]: what they
//!   tell of it, in words;
//! - [`plot`], [`palette`], [`units`]: axes, colours, numbers.

pub mod bars;
pub mod beside;
pub mod curves;
pub mod palette;
pub mod plot;
pub mod rows;
pub mod tail;
pub mod units;
pub mod wait;

use maud::{Markup, html};

use super::dataset::{CellKey, Dataset, Load, Series};

/// A table's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The names of its columns, with units.
    pub head: Vec<String>,
    /// Its rows; the first of each names it.
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// With these columns.
    pub fn new(head: &[&str]) -> Self {
        Self {
            head: head.iter().map(ToString::to_string).collect(),
            rows: Vec::new(),
        }
    }

    /// As HTML. It scrolls by itself where it is wider than its page.
    pub fn html(&self) -> Markup {
        html! {
            div class="scroll" tabindex="0" {
                table {
                    thead { tr { @for name in &self.head { th scope="col" { (name) } } } }
                    tbody {
                        @for row in &self.rows {
                            tr {
                                @for (column, cell) in row.iter().enumerate() {
                                    @if column == 0 { th scope="row" { (cell) } }
                                    @else { td { (cell) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A picture, what it is of, and the numbers in it.
#[derive(Debug)]
pub struct Figure {
    /// Names it within its page.
    pub id: String,
    /// What it shows.
    pub title: String,
    /// How to read it.
    pub caption: String,
    /// The SVG.
    pub picture: Markup,
    /// The series of its lines; none where it has no lines.
    pub lines: Vec<Series>,
    /// What its colours are.
    pub legend: Markup,
    /// Its numbers.
    pub table: Table,
}

impl Figure {
    /// As HTML.
    pub fn html(&self) -> Markup {
        html! {
            figure id=(self.id) {
                h3 { (self.title) }
                (self.picture)
                (self.legend)
                figcaption { (self.caption) }
                details open {
                    summary { "Its numbers" }
                    (self.table.html())
                }
            }
        }
    }
}

/// All figures that `data` has something for, in the order that one looks at
/// them.
pub fn all(data: &Dataset) -> Vec<Figure> {
    let mut figures = Vec::new();
    for load in Load::ALL {
        figures.extend(curves::work(data, load, curves::Sweep::Vcpus));
    }
    figures.extend(curves::work(data, Load::Short, curves::Sweep::Vms));
    for load in [Load::Short, Load::Long] {
        figures.extend(tail::waits(data, load));
    }
    let rows = data.timelines.iter().enumerate();
    figures.extend(rows.map(|(number, timeline)| rows::timeline(timeline, number)));
    figures.extend(bars::per_acquisition(data, Load::Short));
    for load in Load::LINUX {
        figures.extend(bars::per_acquisition(data, load));
    }
    figures.extend(curves::fairness(data, Load::Short, curves::Sweep::Vcpus));
    figures.extend(bars::time(data, Load::Short));
    figures.extend(beside::wakes(data, Load::Mixed));
    figures.extend(beside::shares(data, Load::Mixed));
    figures
}

/// The series of a load, in their order.
pub fn series(data: &Dataset, load: Load) -> Vec<Series> {
    let cells = data.cells.iter().filter(|cell| cell.key.load == load);
    let mut all: Vec<Series> = cells.map(|cell| cell.key.series).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Among the numbers of vCPUs of one VM that were measured, the one whose ratio
/// is nearest to 4: overcommitted enough that every effect shows, and what
/// operators ask about.
pub fn telling_vcpus(data: &Dataset, load: Load) -> Option<u32> {
    let single = data
        .cells
        .iter()
        .map(|cell| cell.key)
        .filter(|key| key.load == load && key.vms == 1);
    let distance = |key: &CellKey| (data.ratio(key).get() / 4.0).ln().abs();
    let nearest = single.min_by(|a, b| distance(a).total_cmp(&distance(b)));
    nearest.map(|key| key.vcpus)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::sample;

    #[test]
    fn each_has_a_picture_and_a_table_and_no_nan() {
        let figures = all(&sample::dataset());
        let ids: Vec<_> = figures.iter().map(|f| f.id.as_str()).collect();
        assert_eq!(
            ids,
            [
                "work-short-vcpus",
                "work-long-vcpus",
                "work-uncontended-vcpus",
                "work-mixed-vcpus",
                "work-short-vms",
                "waits-short",
                "waits-long",
                "timeline-0",
                "timeline-1",
                "per-acquisition-short",
                "fairness-short-vcpus",
                "time-short",
                "wakes-mixed",
                "shares-mixed",
            ]
        );
        for figure in figures {
            let html = figure.html().into_string();
            assert!(html.contains("<svg viewBox=\"0 0 480 "), "{}", figure.id);
            assert!(!figure.table.rows.is_empty(), "{}", figure.id);
            assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
            let columns = figure.table.head.len();
            assert!(figure.table.rows.iter().all(|row| row.len() == columns));
        }
    }

    #[test]
    fn nothing_measured_is_no_figure_and_no_panic() {
        let mut data = sample::dataset();
        for cell in &mut data.cells {
            cell.repetitions.clear();
        }
        data.timelines.clear();
        assert!(all(&data).is_empty());
        data.cells.clear();
        assert!(all(&data).is_empty());
    }

    /// A stalled cell, a cell without waits, one repetition only.
    #[test]
    fn poor_data_is_drawn() {
        let mut data = sample::dataset();
        for cell in &mut data.cells {
            cell.repetitions.truncate(1);
            for repetition in &mut cell.repetitions {
                if cell.key.vcpus > 2 {
                    repetition.acquisitions.fill(0);
                    repetition.waits = Vec::new().into();
                }
            }
        }
        for figure in all(&data) {
            let html = figure.html().into_string();
            assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
        }
    }
}
