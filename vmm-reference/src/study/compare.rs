//! Two studies side by side: two hosts, or two versions.

use std::fmt::Write as _;

use serde::Serialize;

use super::dataset::{Cell, Dataset, Load, Series};
use super::figures::curves::{Sweep, knee_of};
use super::figures::series;
use super::figures::units::{number, percent};
use super::finite::Finite;
use super::report::warnings::NOISY;
use super::statistics::{Interval, Knee, Verdict, median_interval, verdicts};

/// A cell that both have.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What the guest does.
    pub load: Load,
    /// How it waits.
    pub series: Series,
    /// VMs.
    pub vms: u32,
    /// vCPUs a pCPU: what is alike on hosts of different size.
    pub ratio: Finite,
    /// Acquisitions a second of the first.
    pub a: Interval,
    /// Of the second.
    pub b: Interval,
    /// Of the second against the first.
    pub verdict: Verdict,
}

/// A row, for a program.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    load: Load,
    #[serde(flatten)]
    series: Series,
    vms: u32,
    ratio: Finite,
    a: Finite,
    b: Finite,
    b_over_a: Option<[Finite; 3]>,
    verdict: String,
}

impl From<&Row> for Record {
    fn from(row: &Row) -> Self {
        let ratio = row.verdict.ratio();
        Self {
            load: row.load,
            series: row.series,
            vms: row.vms,
            ratio: row.ratio,
            a: row.a.middle,
            b: row.b.middle,
            b_over_a: ratio.map(|r| [r.low, r.middle, r.high]),
            verdict: row.verdict.to_string(),
        }
    }
}

/// The knees of a series that both have.
#[derive(Clone, Debug, PartialEq)]
pub struct Knees {
    /// What the guest does.
    pub load: Load,
    /// How it waits.
    pub series: Series,
    /// That of the first, by more vCPUs of one VM.
    pub a: Knee,
    /// That of the second.
    pub b: Knee,
}

/// Two studies.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Cells that both measured.
    pub rows: Vec<Row>,
    /// Where the work of a series falls.
    pub knees: Vec<Knees>,
    /// Cells that only the first measured.
    pub only_a: Vec<String>,
    /// Cells that only the second measured.
    pub only_b: Vec<String>,
    /// Why a difference may be another one than it seems.
    pub notes: Vec<String>,
}

/// `b` against `a`. Cells are the same if load, waiters, number of VMs and
/// overcommit ratio are.
pub fn compare(a: &Dataset, b: &Dataset) -> Comparison {
    let measured = |cell: &&Cell| !cell.repetitions.is_empty();
    let same = |x: &Cell, y: &Cell| {
        (x.key.load, x.key.series, x.key.vms) == (y.key.load, y.key.series, y.key.vms)
            && a.ratio(&x.key) == b.ratio(&y.key)
    };
    let mut both = Vec::new();
    let mut only_a = Vec::new();
    for first in a.cells.iter().filter(measured) {
        let Some(second) = b
            .cells
            .iter()
            .filter(measured)
            .find(|cell| same(first, cell))
        else {
            only_a.push(first.key.to_string());
            continue;
        };
        both.push((first, (first.rates(), second.rates())));
    }
    let pairs: Vec<_> = both.iter().map(|(_, rates)| rates.clone()).collect();
    let verdicts = verdicts(&pairs, a.settings.seed);
    let interval = |rates: &[f64]| median_interval(rates, a.settings.seed);
    let rows = both
        .into_iter()
        .zip(verdicts)
        .filter_map(|((cell, rates), verdict)| {
            Some(Row {
                load: cell.key.load,
                series: cell.key.series,
                vms: cell.key.vms,
                ratio: a.ratio(&cell.key),
                a: interval(&rates.0)?,
                b: interval(&rates.1)?,
                verdict,
            })
        });
    let rows = rows.collect();
    let only_b = b.cells.iter().filter(measured);
    let only_b = only_b.filter(|second| !a.cells.iter().filter(measured).any(|x| same(x, second)));
    let only_b = only_b.map(|cell| cell.key.to_string()).collect();
    Comparison {
        rows,
        knees: knees(a, b),
        only_a,
        only_b,
        notes: notes(a, b),
    }
}

fn knees(a: &Dataset, b: &Dataset) -> Vec<Knees> {
    let mut all = Vec::new();
    for load in Load::ALL {
        for series in series(a, load) {
            let of = |data| knee_of(data, load, series, Sweep::Vcpus);
            let (a, b) = (of(a), of(b));
            if a != Knee::Unknown && b != Knee::Unknown {
                all.push(Knees { load, series, a, b });
            }
        }
    }
    all
}

fn notes(a: &Dataset, b: &Dataset) -> Vec<String> {
    let facts = |data: &Dataset| {
        let (host, settings) = (&data.host, &data.settings);
        [
            ("backend", host.backend.clone()),
            ("CPU", host.cpu_model.clone()),
            ("pCPUs", host.cpus.to_string()),
            ("kernel", host.kernel.clone()),
            ("program", data.tool.clone()),
            ("seconds a repetition", settings.seconds.to_string()),
            (
                "spinning before a halt, in us",
                settings.spin_us.to_string(),
            ),
            ("behind a kick", settings.yielding.clone()),
        ]
    };
    let pairs = facts(a).into_iter().zip(facts(b));
    let differ = pairs.filter(|((_, x), (_, y))| x != y);
    let mut notes: Vec<String> = differ
        .map(|((what, x), (_, y))| format!("differs: {what}: {x} in A, {y} in B"))
        .collect();
    for (name, data) in [("A", a), ("B", b)] {
        if let Some(spread) = data.host.noise.spread().filter(|s| s.get() > NOISY) {
            notes.push(format!(
                "noise: in {name} one in ten runs of a fixed loop took {} longer than the median",
                percent(spread.get())
            ));
        }
    }
    notes
}

impl Comparison {
    /// For a terminal.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        for note in &self.notes {
            let _ = writeln!(out, "{note}");
        }
        let mut last = None;
        for row in &self.rows {
            if last != Some((row.load, row.series)) {
                let _ = writeln!(out, "\n{}; {}", row.series, row.load.name());
                let _ = writeln!(
                    out,
                    "{:>8} {:>4}  {:>14}  {:>14}  B against A",
                    "ratio", "VMs", "A, locks/s", "B, locks/s"
                );
            }
            last = Some((row.load, row.series));
            let _ = writeln!(
                out,
                "{:>7}x {:>4}  {:>14}  {:>14}  {}",
                row.ratio,
                row.vms,
                number(row.a.middle.get()),
                number(row.b.middle.get()),
                row.verdict
            );
        }
        if self.rows.is_empty() {
            out.push_str("The two have no cell in common.\n");
        }
        if !self.knees.is_empty() {
            let _ = writeln!(
                out,
                "\nThe knee, up to which 90 % of the work at 1x is left:"
            );
        }
        for Knees { load, series, a, b } in &self.knees {
            let says = if a.agrees(*b) { "agree" } else { "differ" };
            let _ = writeln!(
                out,
                "  {series}; {}: {a} in A; {b} in B: {says}",
                load.name()
            );
        }
        for (name, only) in [("A", &self.only_a), ("B", &self.only_b)] {
            if !only.is_empty() {
                let _ = writeln!(out, "\nonly in {name}:");
            }
            for cell in only {
                let _ = writeln!(out, "  {cell}");
            }
        }
        let count = |is: fn(&Verdict) -> bool| {
            let rows = self.rows.iter().filter(|row| is(&row.verdict));
            rows.count()
        };
        let _ = writeln!(
            out,
            "\nof {} cells: B is faster in {}, slower in {}, no difference seen in {}, too few \
             repetitions in {}",
            self.rows.len(),
            count(|v| matches!(v, Verdict::Faster(_))),
            count(|v| matches!(v, Verdict::Slower(_))),
            count(|v| matches!(v, Verdict::NoneSeen(_))),
            count(|v| matches!(v, Verdict::TooFew)),
        );
        out
    }

    /// For a program.
    pub fn records(&self) -> Vec<Record> {
        self.rows.iter().map(Record::from).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn a_study_does_not_differ_from_itself() {
        let mut data = sample::dataset();
        data.cells.retain(|cell| cell.key.load == Load::Short);
        let same = compare(&data, &data);
        assert!(same.notes.iter().all(|note| note.starts_with("noise: ")));
        assert!(same.only_a.is_empty() && same.only_b.is_empty());
        let none = |row: &Row| matches!(row.verdict, Verdict::NoneSeen(_));
        assert!(same.rows.iter().all(none));
        let measured = data.cells.iter().filter(|c| !c.repetitions.is_empty());
        assert_eq!(same.rows.len(), measured.count());
        assert!(same.text().contains("faster in 0, slower in 0"));
        assert_eq!(same.knees.len(), 7);
        assert!(same.knees.iter().all(|knees| knees.a == knees.b));
        assert!(same.text().contains("between 1x and 1.5x in B: agree"));
    }

    #[test]
    fn a_slower_version_and_another_host_are_seen() {
        let mut a = sample::dataset();
        a.cells.retain(|cell| cell.key.load == Load::Short);
        let mut b = a.clone();
        b.settings.yielding = "nothing".to_string();
        for cell in &mut b.cells {
            for repetition in &mut cell.repetitions {
                for own in &mut repetition.acquisitions {
                    *own = *own * 4 / 5;
                }
            }
        }
        b.cells.remove(0);
        let text = compare(&a, &b).text();
        assert!(text.contains("differs: behind a kick: hold in A, nothing in B"));
        assert!(text.contains("slower by"), "{text}");
        assert!(text.contains("only in A:"), "{text}");
        // Twice the CPUs: 4 vCPUs there are 2 here.
        b.host.cpus = 4;
        let other = compare(&a, &b);
        assert!(other.rows.iter().all(|row| row.ratio.get() <= 4.0));
        assert!(!other.rows.is_empty());
    }
}
