//! How often the lock is waited for how long.

use maud::{Markup, html};

use super::plot::{Axis, Plot, path};
use super::units::nanoseconds;
use super::{Figure, Table, palette, series, telling_vcpus};
use crate::study::dataset::{CellKey, Dataset, Load, Series, Waits};

/// The share of waits that were longer, against the wait, both logarithmic.
pub fn waits(data: &Dataset, load: Load) -> Option<Figure> {
    let vcpus = telling_vcpus(data, load)?;
    let mut table = Table::new(&["Waiters", "waits", "p50", "p99", "p99.9", "longest"]);
    let mut lines: Vec<(Series, Waits)> = Vec::new();
    for series in series(data, load) {
        let key = CellKey {
            load,
            series,
            vms: 1,
            vcpus,
        };
        let Some(waits) = data.cell(&key).map(|cell| cell.waits()) else {
            continue;
        };
        if waits.total() == 0 {
            continue;
        }
        let mut row = vec![series.to_string(), waits.total().to_string()];
        row.extend([0.5, 0.99, 0.999, 1.0].map(|q| {
            let wait = waits.quantile(q).map(|ns| nanoseconds(ns as f64));
            wait.unwrap_or_else(|| "–".to_string())
        }));
        table.rows.push(row);
        lines.push((series, waits));
    }
    if lines.is_empty() {
        return None;
    }
    let ends = || lines.iter().flat_map(|(_, waits)| waits.counts());
    // A wait of 0 ticks has no logarithm.
    let least = ends().map(|&(ns, _)| ns.max(10)).min()?;
    let most = ends().map(|&(ns, _)| ns).max()?.max(least + 1);
    let shares = lines.iter().flat_map(|(_, waits)| waits.tail());
    let rarest = shares.map(|(_, share)| share.get()).fold(0.1, f64::min);
    let plot = Plot {
        x: Axis::powers(
            "wait for the lock",
            10.0,
            (least as f64, most as f64),
            nanoseconds,
        ),
        y: Axis::powers(
            "share of waits that were longer",
            10.0,
            (rarest, 1.0),
            power,
        ),
    };
    let ratio = data.ratio(&CellKey {
        load,
        series: lines.first()?.0,
        vms: 1,
        vcpus,
    });
    let names: Vec<Series> = lines.iter().map(|&(series, _)| series).collect();
    Some(Figure {
        id: format!("waits-{}", load.id()),
        title: format!("Waits for the lock at {ratio}x: {}", load.name()),
        caption: format!(
            "One VM of {vcpus} vCPUs. A point (x, y): a share y of all waits lasted longer than x. \
             Lower and further left is better; the longest wait is where a line ends."
        ),
        picture: plot.draw("Tail of the waits for the lock", &tails(&plot, &lines)),
        legend: palette::legend(&names),
        lines: names,
        table,
    })
}

/// A power of ten: `10⁻³`.
fn power(share: f64) -> String {
    let exponent = format!("{:.0}", share.log10());
    if exponent == "0" || exponent == "-0" {
        return "1".to_string();
    }
    let raised = exponent.chars().map(|c| match c {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        // The others stand in one row.
        _ => c
            .to_digit(10)
            .and_then(|digit| char::from_u32(0x2070 + digit))
            .unwrap_or(c),
    });
    raised.fold("10".to_string(), |mut text, c| {
        text.push(c);
        text
    })
}

fn tails(plot: &Plot, lines: &[(Series, Waits)]) -> Markup {
    html! {
        @for (series, waits) in lines {
            @let places: Vec<_> = waits
                .tail()
                .iter()
                .map(|&(ns, share)| plot.at(ns as f64, share.get()))
                .collect();
            path class=(format!("line {}", palette::class(*series))) d=(path(places.iter().copied())) {}
            // Enough to tell the lines apart.
            @let stride = places.len().div_ceil(5).max(1);
            @for &place in places.iter().rev().step_by(stride) {
                (palette::marker(*series, place, &series.to_string()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::power;

    #[test]
    fn powers_of_ten() {
        assert_eq!(power(1.0), "1");
        assert_eq!(power(0.001), "10⁻³");
        assert_eq!(power(1e-10), "10⁻¹⁰");
        assert_eq!(power(1e-7), "10⁻⁷");
    }
}
