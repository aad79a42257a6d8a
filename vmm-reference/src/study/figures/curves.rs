//! Lines against the overcommit ratio.

use maud::{Markup, html};

use super::plot::{Axis, Plot, band, path};
use super::units::{number, percent};
use super::{Figure, Table, palette, series};
use crate::study::dataset::{Cell, Dataset, Load, Repetition, Series};
use crate::study::finite::Finite;
use crate::study::statistics::knee::HELD;
use crate::study::statistics::{
    Holds, Interval, Knee, holds, knee, median, median_interval, ratio_interval,
};

/// What grows along the axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sweep {
    /// vCPUs of one VM.
    Vcpus,
    /// VMs, each with as many vCPUs as there are pCPUs.
    Vms,
}

impl Sweep {
    const fn id(self) -> &'static str {
        match self {
            Self::Vcpus => "vcpus",
            Self::Vms => "vms",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Vcpus => "vCPUs",
            Self::Vms => "VMs",
        }
    }

    fn has(self, data: &Dataset, cell: &Cell) -> bool {
        match self {
            Self::Vcpus => cell.key.vms == 1,
            Self::Vms => cell.key.vcpus == data.host.cpus,
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Vcpus => "one VM with more and more vCPUs",
            Self::Vms => "more and more VMs, each with a vCPU per pCPU",
        }
    }
}

/// A point of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// vCPUs a pCPU.
    pub ratio: Finite,
    /// What is drawn, with its interval.
    pub work: Interval,
}

/// The measured cells of a series, by ratio.
pub(super) fn cells(
    data: &Dataset,
    load: Load,
    series: Series,
    sweep: Sweep,
) -> Vec<(Finite, &Cell)> {
    let cells = data.cells.iter().filter(|cell| {
        let measured = !cell.repetitions.is_empty();
        cell.key.load == load && cell.key.series == series && measured && sweep.has(data, cell)
    });
    let mut cells: Vec<_> = cells.map(|cell| (data.ratio(&cell.key), cell)).collect();
    cells.sort_by_key(|&(ratio, _)| ratio);
    cells
}

/// What a value for each cell of a series, and its cell at 1x, comes to.
fn against_1x<T>(
    data: &Dataset,
    (load, series, sweep): (Load, Series, Sweep),
    value: impl Fn(Finite, &[f64], &[f64]) -> Option<T>,
) -> Vec<T> {
    let cells = cells(data, load, series, sweep);
    let Some(base) = cells.iter().find(|(ratio, _)| ratio.get() == 1.0) else {
        return Vec::new();
    };
    let base = base.1.rates();
    let all = cells.iter();
    all.filter_map(|&(ratio, cell)| value(ratio, &cell.rates(), &base))
        .collect()
}

/// The work of a series relative to its own at 1x, by ratio.
fn relative_work(data: &Dataset, load: Load, series: Series, sweep: Sweep) -> Vec<Point> {
    against_1x(data, (load, series, sweep), |ratio, rates, base| {
        let work = ratio_interval(rates, base, data.settings.seed)?;
        Some(Point { ratio, work })
    })
}

/// The knee of a series.
pub fn knee_of(data: &Dataset, load: Load, series: Series, sweep: Sweep) -> Knee {
    let points: Vec<(Finite, Holds)> =
        against_1x(data, (load, series, sweep), |ratio, rates, base| {
            Some((ratio, holds(rates, base, data.settings.seed)))
        });
    knee(&points)
}

/// Work done against the ratio, with its bands and knees.
pub fn work(data: &Dataset, load: Load, sweep: Sweep) -> Option<Figure> {
    let lines: Vec<(Series, Vec<Point>)> = series(data, load)
        .into_iter()
        .map(|series| (series, relative_work(data, load, series, sweep)))
        .filter(|(_, points)| points.len() > 1)
        .collect();
    if lines.is_empty() {
        return None;
    }
    let ratios = ratios(&lines);
    let of = |(series, _): &(Series, _)| knee_of(data, load, *series, sweep);
    let knees: Vec<Knee> = lines.iter().map(of).collect();
    let mut table = by_ratio(&ratios, "knee");
    for ((series, points), knee) in lines.iter().zip(&knees) {
        let cells = cells(data, load, *series, sweep);
        let mut row = vec![series.to_string()];
        for ratio in &ratios {
            let cell = cells.iter().find(|(at, _)| at == ratio);
            let rate = cell.and_then(|(_, cell)| median(&cell.rates()));
            let point = points.iter().find(|point| point.ratio == *ratio);
            let [share, band] = interval(point.map(|p| p.work), percent);
            row.push(rate.map_or_else(
                || "–".to_string(),
                // Emulated time is none.
                |rate| match data.host.emulated {
                    true => format!("{share}\n{band}"),
                    false => format!("{share}\n{band}\n{}/s", number(rate)),
                },
            ));
        }
        // A line for each part of the sentence: a column as wide as all of it is cut off.
        row.push(knee.to_string().replace("; ", ";\n").replace(", ", ",\n"));
        table.rows.push(row);
    }
    let plot = Plot {
        x: ratio_axis(&lines),
        y: Axis::from_zero(
            &format!("{} per second, relative to 1x", load.unit()),
            most(&lines).min(3.0),
            percent,
        ),
    };
    Some(Figure {
        id: format!("work-{}-{}", load.id(), sweep.id()),
        title: format!(
            "Work done against overcommit by {}: {}",
            sweep.name(),
            load.name()
        ),
        caption: format!(
            "{}. Each line is relative to its own rate at 1x; the band is the 95 % interval. \
             The knee is where less than {} of the work at 1x is left: a ring marks the last \
             ratio that is shown to be before it, and the table says between which ratios it is. \
             In the table: relative work, its interval{}.",
            capital(sweep.words()),
            percent(HELD),
            if data.host.emulated {
                String::new()
            } else {
                format!(", {} per second", load.unit())
            },
        ),
        picture: plot.draw(
            "Relative work against the overcommit ratio",
            &curves(&plot, &lines, &knees),
        ),
        lines: names(&lines),
        legend: palette::legend(&names(&lines)),
        table,
    })
}

/// Fairness against the ratio.
pub fn fairness(data: &Dataset, load: Load, sweep: Sweep) -> Option<Figure> {
    let seed = data.settings.seed;
    let mut lines = Vec::new();
    for series in series(data, load) {
        let cells = cells(data, load, series, sweep).into_iter();
        let points = cells.filter_map(|(ratio, cell)| {
            let work = median_interval(&cell.each(Repetition::least_share), seed)?;
            Some(Point { ratio, work })
        });
        let points: Vec<Point> = points.collect();
        if !points.is_empty() {
            lines.push((series, points));
        }
    }
    if lines.is_empty() {
        return None;
    }
    let ratios = ratios(&lines);
    let mut table = by_ratio(&ratios, "");
    table.head.pop();
    for (series, points) in &lines {
        let cells = cells(data, load, *series, sweep);
        let mut row = vec![series.to_string()];
        for ratio in &ratios {
            let point = points.iter().find(|point| point.ratio == *ratio);
            let [share, band] = interval(point.map(|p| p.work), percent);
            let cell = cells.iter().find(|(at, _)| at == ratio);
            let jain = cell.and_then(|(_, cell)| median(&cell.each(Repetition::jain)));
            row.push(jain.map_or_else(
                || "–".to_string(),
                |jain| format!("{share}\n{band}\nJain {}", number(jain)),
            ));
        }
        table.rows.push(row);
    }
    let plot = Plot {
        x: ratio_axis(&lines),
        y: Axis::from_zero("least share of a vCPU, relative to the mean", 1.0, percent),
    };
    Some(Figure {
        id: format!("fairness-{}-{}", load.id(), sweep.id()),
        title: format!("Fairness: {}", load.name()),
        caption: format!(
            "Acquisitions of the vCPU that had the fewest, as a share of the mean: 100 % is fair, \
             0 is a vCPU that never had the lock. A rate without its share says little: who lets \
             two vCPUs run for ever looks best. {}. In the table: least share, its interval, \
             Jain's index.",
            capital(sweep.words())
        ),
        picture: plot.draw(
            "Least share against the overcommit ratio",
            &curves(&plot, &lines, &[]),
        ),
        lines: names(&lines),
        legend: palette::legend(&names(&lines)),
        table,
    })
}

pub(super) fn names(lines: &[(Series, Vec<Point>)]) -> Vec<Series> {
    lines.iter().map(|&(series, _)| series).collect()
}

/// The ratios that any line has.
pub(super) fn ratios(lines: &[(Series, Vec<Point>)]) -> Vec<Finite> {
    let points = lines.iter().flat_map(|(_, points)| points);
    let mut all: Vec<Finite> = points.map(|point| point.ratio).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// A column a ratio, and a last one.
pub(super) fn by_ratio(ratios: &[Finite], last: &str) -> Table {
    let mut table = Table::new(&["Waiters"]);
    let columns = ratios.iter().map(|ratio| format!("{ratio}x"));
    table.head.extend(columns.chain([last.to_string()]));
    table
}

fn most(lines: &[(Series, Vec<Point>)]) -> f64 {
    let points = lines.iter().flat_map(|(_, points)| points);
    points.map(|p| p.work.high.get()).fold(1.0, f64::max)
}

pub(super) fn ratio_axis(lines: &[(Series, Vec<Point>)]) -> Axis {
    let ratios = || {
        lines
            .iter()
            .flat_map(|(_, points)| points)
            .map(|p| p.ratio.get())
    };
    let least = ratios().fold(1.0, f64::min);
    let most = ratios().fold(2.0, f64::max);
    Axis::powers("overcommit: vCPUs per pCPU", 2.0, (least, most), |ratio| {
        format!("{ratio}x")
    })
}

pub(super) fn curves(plot: &Plot, lines: &[(Series, Vec<Point>)], knees: &[Knee]) -> Markup {
    let at = |point: &Point, value: Finite| plot.at(point.ratio.get(), value.get());
    html! {
        @for (series, points) in lines {
            @let low: Vec<_> = points.iter().map(|p| at(p, p.work.low)).collect();
            @let high: Vec<_> = points.iter().map(|p| at(p, p.work.high)).collect();
            path class=(format!("band {}", palette::class(*series))) d=(band(&low, &high)) {}
        }
        @for (series, points) in lines {
            @let middle = points.iter().map(|p| at(p, p.work.middle));
            path class=(format!("line {}", palette::class(*series))) d=(path(middle)) {}
            @for point in points {
                @let says = format!("{series}: {} at {}x", percent(point.work.middle.get()), point.ratio);
                (palette::marker(*series, at(point, point.work.middle), &says))
            }
        }
        @for ((series, points), knee) in lines.iter().zip(knees) {
            @if let Knee::Between { held, .. } = *knee {
                @for point in points.iter().filter(|point| point.ratio == held) {
                    @let (x, y) = at(point, point.work.middle);
                    circle class=(format!("knee {}", palette::class(*series)))
                        cx=(super::plot::px(x)) cy=(super::plot::px(y)) r="9" {
                        title { (format!("{series}: the knee is {knee}")) }
                    }
                }
            }
        }
    }
}

/// A median and its interval in words; a range is called one.
pub fn interval(interval: Option<Interval>, name: impl Fn(f64) -> String) -> [String; 2] {
    let Some(all) = interval else {
        return ["–".to_string(), "–".to_string()];
    };
    let (low, high) = (name(all.low.get()), name(all.high.get()));
    let spread = match (all.is_95(), all.count) {
        (true, _) => format!("{low} to {high}"),
        (false, 1) => "one repetition".to_string(),
        (false, count) => format!("{low} to {high}, range of {count}"),
    };
    [name(all.middle.get()), spread]
}

fn capital(words: &str) -> String {
    let mut letters = words.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string());
    first.unwrap_or_default() + letters.as_str()
}
