//! vCPUs that take no lock, beside those that do: how long a wake-up takes, and
//! how the pCPUs are shared.

use super::bars::draw;
use super::curves::{Point, Sweep, by_ratio, cells, curves, interval, names, ratio_axis, ratios};
use super::plot::{Axis, Plot};
use super::units::{nanoseconds, number, percent};
use super::{Figure, Table, palette, series, telling_vcpus};
use crate::study::dataset::{Cell, CellKey, Dataset, Load, Repetition, Role, Series};
use crate::study::finite::Finite;
use crate::study::statistics::{median, median_interval};

fn quantile(q: f64) -> impl Fn(&Repetition) -> Option<Finite> {
    move |repetition| Finite::new(repetition.wake_quantile(q)? as f64)
}

/// The time from a kick by the host to the first instruction behind the HLT,
/// against the ratio.
pub fn wakes(data: &Dataset, load: Load) -> Option<Figure> {
    let mut lines: Vec<(Series, Vec<Point>)> = Vec::new();
    for series in series(data, load) {
        let points = cells(data, load, series, Sweep::Vcpus)
            .into_iter()
            .filter_map(|(ratio, cell)| {
                let work = median_interval(&cell.each(quantile(0.99)), data.settings.seed)?;
                Some(Point { ratio, work })
            });
        let points: Vec<Point> = points.collect();
        if !points.is_empty() {
            lines.push((series, points));
        }
    }
    let ratios = ratios(&lines);
    let mut table = by_ratio(&ratios, "");
    table.head.pop();
    for (series, points) in &lines {
        let cells = cells(data, load, *series, Sweep::Vcpus);
        let mut row = vec![series.to_string()];
        for ratio in &ratios {
            let point = points.iter().find(|point| point.ratio == *ratio);
            let [p99, band] = interval(point.map(|point| point.work), nanoseconds);
            let cell = cells
                .iter()
                .find(|(at, _)| at == ratio)
                .map(|&(_, cell)| cell);
            let p50 = cell.and_then(|cell| median(&cell.each(quantile(0.5))));
            let rate = cell.and_then(|cell| median(&cell.each(Repetition::wakes_per_s)));
            row.push(p50.zip(rate).map_or_else(
                || "–".to_string(),
                |(p50, rate)| {
                    let (p50, rate) = (nanoseconds(p50), number(rate));
                    format!("p50 {p50}\np99 {p99}\n({band})\n{rate}/s")
                },
            ));
        }
        table.rows.push(row);
    }
    let all = || lines.iter().flat_map(|(_, points)| points);
    // A wake-up of no time has no logarithm.
    let least = all()
        .map(|p| p.work.low.get().max(100.0))
        .min_by(f64::total_cmp)?;
    let most = all().map(|p| p.work.high.get()).fold(least * 2.0, f64::max);
    let plot = Plot {
        x: ratio_axis(&lines),
        y: Axis::powers("kick to run, p99", 10.0, (least, most), nanoseconds),
    };
    let of_load = data.cells.iter().filter(|cell| cell.key.load == load);
    let beside = of_load.flat_map(|cell| &cell.repetitions);
    let beside: Vec<_> = beside.filter_map(|r| r.beside.as_ref()).collect();
    let errors: Vec<u64> = beside.iter().filter_map(|b| b.wake_error_ns).collect();
    let error = nanoseconds(errors.iter().copied().max().unwrap_or(0) as f64);
    let without = match beside.len() - errors.len() {
        0 => String::new(),
        few => format!(
            " {few} of {} repetitions have no such time: a sleeping vCPU's clock could not be \
             read well enough.",
            beside.len()
        ),
    };
    Some(Figure {
        id: format!("wakes-{}", load.id()),
        title: format!("How long a wake-up takes: {}", load.name()),
        caption: format!(
            "A quarter of the vCPUs sleep in a halt until the host kicks them, every 2 ms each, and \
             compute for 100 µs then; half of the vCPUs take the lock. The time is that from the \
             kick to the first instruction behind the HLT; the two clocks are known to {error}. In \
             the table: median, 99th percentile with the 95 % interval over the repetitions, \
             wake-ups a second of each sleeping vCPU (500 if none was late).{without}"
        ),
        picture: plot.draw(
            "Time from a kick to the first instruction against the overcommit ratio",
            &curves(&plot, &lines, &[]),
        ),
        lines: names(&lines),
        legend: palette::legend(&names(&lines)),
        table,
    })
}

/// What each kind of vCPU had of the pCPUs at the telling ratio.
pub fn shares(data: &Dataset, load: Load) -> Option<Figure> {
    let vcpus = telling_vcpus(data, load)?;
    let cells = series(data, load).into_iter().filter_map(|series| {
        data.cell(&CellKey {
            load,
            series,
            vms: 1,
            vcpus,
        })
    });
    let beside = |cell: &&Cell| cell.repetitions.iter().any(|r| r.beside.is_some());
    let cells: Vec<&Cell> = cells.filter(beside).collect();
    let ratio = data.ratio(&cells.first()?.key);
    let mut head = vec!["Waiters".to_string()];
    head.extend(Role::ALL.map(|role| format!("pCPU of one that {}", role.name())));
    let mut table = Table {
        head,
        ..Table::default()
    };
    let mut bars = Vec::new();
    for cell in cells {
        let mut row = vec![cell.key.series.to_string()];
        let mut parts = Vec::new();
        for role in Role::ALL {
            let one = median(&cell.each(|r| r.pcpu_share(role)));
            row.push(one.map_or_else(|| "–".to_string(), percent));
            let all = median(&cell.each(|r| r.pcpus(role))).unwrap_or(0.0);
            parts.push((palette::role(role), all));
        }
        table.rows.push(row);
        bars.push((cell.key.series.to_string(), vec![parts]));
    }
    let legend = Role::ALL.map(|role| (palette::role(role), role.name()));
    Some(Figure {
        id: format!("shares-{}", load.id()),
        title: format!("Who has the pCPUs at {ratio}x: {}", load.name()),
        caption: format!(
            "One VM of {vcpus} vCPUs. A bar is the pCPUs that all vCPUs of a kind had together; \
             the table has the part of a pCPU that one of them had. What a waiter spins away, a \
             vCPU that computes does not get."
        ),
        picture: draw(
            "pCPUs by kind of vCPU",
            &Axis::from_zero("pCPUs", f64::from(data.host.cpus), number),
            &bars,
        ),
        lines: Vec::new(),
        legend: palette::parts(&legend),
        table,
    })
}
