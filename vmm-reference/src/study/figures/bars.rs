//! Bars: what an acquisition costs, and where the vCPUs' time goes.

use maud::{Markup, html};

use super::plot::{Axis, WIDTH, px, svg};
use super::units::{number, percent};
use super::{Figure, Table, palette, series, telling_vcpus};
use crate::study::dataset::timeline::Doing;
use crate::study::dataset::{Cell, CellKey, Dataset, Load, Repetition};
use crate::study::finite::Finite;
use crate::study::statistics::median;

/// A bar's parts: class and length.
type Parts = Vec<(&'static str, f64)>;

/// A bar's class, its name, and what it counts.
type Kind = (&'static str, &'static str, fn(&Repetition) -> u64);

/// The cells of one VM at the telling ratio.
fn telling(data: &Dataset, load: Load) -> Option<(Finite, Vec<&Cell>)> {
    let vcpus = telling_vcpus(data, load)?;
    let cells: Vec<&Cell> = series(data, load)
        .into_iter()
        .filter_map(|series| {
            data.cell(&CellKey {
                load,
                series,
                vms: 1,
                vcpus,
            })
        })
        .filter(|cell| !cell.repetitions.is_empty())
        .collect();
    let ratio = data.ratio(&cells.first()?.key);
    Some((ratio, cells))
}

/// Exits, halts and kicks of an acquisition.
pub fn per_acquisition(data: &Dataset, load: Load) -> Option<Figure> {
    // Linux sends some of its IPIs by hypercall, too.
    let (kicks, operation) = match load.is_linux() {
        true => ("hypercalls", "operation"),
        false => ("kicks", "acquisition"),
    };
    let kinds: [Kind; 3] = [
        ("b-exits", "exits to this process", |r| r.exits),
        ("b-halts", "halts", |r| r.halts),
        ("b-kicks", kicks, |r| r.kicks),
    ];
    let (ratio, cells) = telling(data, load)?;
    let mut table = Table::new(&["Waiters", "exits", "halts", kicks, "pCPU µs"]);
    // Emulated time is none.
    if data.host.emulated {
        table.head.pop();
    }
    let mut bars = Vec::new();
    for cell in cells {
        let mut row = vec![cell.key.series.to_string()];
        let mut group = Vec::new();
        for (class, _, count) in kinds {
            let each = median(&cell.each(|r| r.per_acquisition(count(r))));
            row.push(each.map_or_else(|| "–".to_string(), number));
            group.push(vec![(class, each.unwrap_or(0.0))]);
        }
        if !data.host.emulated {
            let cpu = cell.each(|r| Finite::ratio(r.running.get() * 1e6, r.total() as f64));
            row.push(median(&cpu).map_or_else(|| "–".to_string(), number));
        }
        table.rows.push(row);
        bars.push((cell.key.series.to_string(), group));
    }
    let most = bars.iter().flat_map(|(_, group)| group).flatten();
    let most = most.map(|&(_, length)| length).fold(0.0, f64::max);
    let axis = Axis::from_zero(&format!("per {operation}"), most, number);
    Some(Figure {
        id: format!("per-acquisition-{}", load.id()),
        title: format!("What an {operation} costs at {ratio}x: {}", load.name()),
        caption: format!(
            "Medians of the repetitions. Halts and {kicks} are the guest's; an exit to this process \
             is what it costs on the host's side. Where KVM halts and kicks, they are no exits to \
             this process. What is counted: {}.",
            load.unit()
        ),
        picture: draw(
            &format!("Exits, halts and {kicks} for each {operation}"),
            &axis,
            &bars,
        ),
        lines: Vec::new(),
        legend: palette::parts(&kinds.map(|(class, name, _)| (class, name))),
        table,
    })
}

/// Where the vCPUs' time goes.
pub fn time(data: &Dataset, load: Load) -> Option<Figure> {
    let (ratio, cells) = telling(data, load)?;
    let mut table = Table::new(&[
        "Waiters",
        "running",
        "ready, without a pCPU",
        "held",
        "halted",
    ]);
    let mut bars = Vec::new();
    for cell in cells {
        let mut parts: Parts = Vec::new();
        let mut row = vec![cell.key.series.to_string()];
        for doing in Doing::ALL {
            let share = median(&cell.each(|r| share(r, cell, doing)));
            row.push(share.map_or_else(|| "–".to_string(), percent));
            parts.push((palette::doing(doing), share.unwrap_or(0.0)));
        }
        table.rows.push(row);
        bars.push((cell.key.series.to_string(), vec![parts]));
    }
    let sums = bars.iter().flat_map(|(_, group)| group);
    let most = sums.map(|parts| parts.iter().map(|&(_, share)| share).sum::<f64>());
    let axis = Axis::from_zero(
        "share of the vCPUs' time",
        most.fold(1.0, f64::max),
        percent,
    );
    let legend = Doing::ALL.map(|doing| (palette::doing(doing), doing.name()));
    Some(Figure {
        id: format!("time-{}", load.id()),
        title: format!("Where the vCPUs' time goes at {ratio}x: {}", load.name()),
        caption: "Running includes spinning. Ready without a pCPU is what a guest sees as steal \
                  time; held by the scheduler is what it does not see (operators of other hypervisors \
                  know it as co-stop)."
            .to_string(),
        picture: draw("Parts of the vCPUs' time", &axis, &bars),
        lines: Vec::new(),
        legend: palette::parts(&legend),
        table,
    })
}

fn share(repetition: &Repetition, cell: &Cell, doing: Doing) -> Option<Finite> {
    let time = match doing {
        Doing::Running => repetition.running,
        Doing::Waiting => repetition.run_delay,
        Doing::Held => repetition.held,
        Doing::Halted => repetition.halted,
    };
    let vcpus = f64::from(cell.key.vms) * f64::from(cell.key.vcpus);
    Finite::ratio(time.get(), repetition.seconds.get() * vcpus)
}

/// Groups of bars, one below the other, each group under its name.
pub(super) fn draw(about: &str, axis: &Axis, groups: &[(String, Vec<Parts>)]) -> Markup {
    const LEFT: f64 = 12.0;
    const RIGHT: f64 = 20.0;
    const TOP: f64 = 6.0;
    const NAME: f64 = 17.0;
    let bars: usize = groups.iter().map(|(_, bars)| bars.len()).sum();
    // One bar a group is a thick one.
    let thick = if bars == groups.len() { 18.0 } else { 9.0 };
    let gap = 7.0;
    let bottom = TOP + groups.len() as f64 * (NAME + gap) + bars as f64 * thick;
    let length = |value: f64| axis.place(value) * (WIDTH - LEFT - RIGHT);
    let mut y = TOP;
    svg(
        about,
        bottom + 42.0,
        &html! {
            @for (value, name) in &axis.ticks {
                @let x = LEFT + length(*value);
                path class="grid" d=(format!("M{x:.1} {TOP}V{bottom:.1}")) {}
                text class="mid" x=(px(x)) y=(px(bottom + 16.0)) { (name) }
            }
            text class="mid label" x=(px(WIDTH / 2.0)) y=(px(bottom + 35.0)) { (axis.label) }
            @for (name, bars) in groups {
                text x=(LEFT) y=(px(y + NAME - 4.0)) { (name) }
                @let () = y += NAME;
                @for parts in bars {
                    @let mut x = LEFT;
                    @for &(class, value) in parts {
                        rect class=(class) x=(px(x)) y=(px(y + 0.5)) width=(px(length(value)))
                            height=(thick - 1.0) { title { (number(value)) } }
                        @let () = x += length(value);
                    }
                    @let () = y += thick;
                }
                @let () = y += gap;
            }
            path class="axis" d=(format!("M{LEFT} {TOP}V{bottom:.1}H{}", WIDTH - RIGHT)) {}
        },
    )
}
