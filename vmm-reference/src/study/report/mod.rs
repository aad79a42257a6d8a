//! The report: one HTML file that opens without a network and without a script.
//!
//! - [`summary`]: three sentences;
//! - [`warnings`]: what a reader has to know first;
//! - [`published`]: others' results beside ours.

pub mod published;
pub mod summary;
pub mod warnings;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::dataset::Dataset;
use super::figures::plot::{HEIGHT, WIDTH, svg};
use super::figures::{self, Figure, Table, palette};
use super::finite::Finite;

const STYLE: &str = include_str!("style.css");

/// The page of `data`.
pub fn html(data: &Dataset) -> String {
    let figures = figures::all(data);
    let warnings = warnings::all(data);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                // No icon: a browser would ask the network for one.
                link rel="icon" href="data:,";
                title { "Overcommit study: " (data.host.cpu_model) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "How much overcommit does this host bear?" }
                section class="summary" {
                    @for sentence in summary::sentences(data) { p { (sentence) } }
                }
                @for warning in &warnings { p class="warning" role="note" { (warning) } }
                nav aria-label="Figures" {
                    ul {
                        @for figure in &figures {
                            li { a href=(format!("#{}", figure.id)) { (figure.title) } }
                        }
                        li { a href="#published" { "Beside published results" } }
                        li { a href="#host" { "Host and method" } }
                    }
                }
                h2 { "Figures" }
                @if figures.is_empty() { p { "Nothing was measured." } }
                @for figure in &figures { (figure.html()) }
                h2 id="published" { "Beside published results" }
                (published::html(data))
                h2 id="host" { "Host and method" }
                (host(data))
            }
        }
    };
    page.into_string()
}

/// A figure of lines as a picture by itself, with its legend below, for a
/// document that takes only pictures.
pub fn picture(figure: &Figure) -> String {
    const ROW: f64 = 18.0;
    let height = HEIGHT + 8.0 + ROW * figure.lines.len() as f64;
    // An inner picture is as large as the outer one unless it says otherwise.
    let size = format!("<svg width=\"{WIDTH}\" height=\"{HEIGHT}\" ");
    let inner = figure.picture.0.replacen("<svg ", &size, 1);
    let rows = (0u32..).map(|n| HEIGHT + ROW * (f64::from(n) + 0.6));
    svg(
        &figure.title,
        height,
        &html! {
            style { (PreEscaped(STYLE)) }
            rect width=(WIDTH) height=(height) style="fill: var(--paper)" {}
            (PreEscaped(inner))
            @for (&series, y) in figure.lines.iter().zip(rows) {
                path class=(format!("line {}", palette::class(series))) d=(format!("M74 {y}H106")) {}
                (palette::marker(series, (90.0, y), ""))
                text x="114" y=(y + 4.0) { (series) }
            }
        },
    )
    .into_string()
}

fn host(data: &Dataset) -> Markup {
    let (host, settings) = (&data.host, &data.settings);
    let mut table = Table::new(&["What", "Value"]);
    let mut row = |what: &str, value: String| {
        table.rows.push(vec![what.to_string(), value]);
    };
    row("began", data.began.clone());
    if data.took > Finite::ZERO {
        row("took", format!("{:.0} s", data.took.get()));
    }
    row("program", data.tool.clone());
    row("backend", host.backend.clone());
    row("CPU", host.cpu_model.clone());
    row("pCPUs", host.cpus.to_string());
    row("kernel", host.kernel.clone());
    if settings.spin_us > 0 {
        row("seconds a repetition", settings.seconds.to_string());
        row("spinning before a halt", format!("{} µs", settings.spin_us));
    }
    row("behind a kick", settings.yielding.clone());
    row("seed", settings.seed.to_string());
    let spread = host.noise.spread();
    row(
        "calibration loop: one in ten slower by",
        spread.map_or_else(
            || "not measured".to_string(),
            |spread| figures::units::percent(spread.get()),
        ),
    );
    html! {
        (table.html())
        p {
            @if settings.spin_us > 0 {
                "Cells ran in random order, in rounds; the first run of each warmed up and was not \
                 counted. "
            } @else {
                "The guests ran in turns, and each workload once in a guest. "
            }
            "Values are medians of the repetitions with a 95 % interval by bootstrap; a \
             difference is called one if a permutation test finds it less often than once in 20 \
             by chance and the interval of the ratio does not hold 1; a ratio is shown to be before or behind \
             the knee by the same rule, against 90 % of the work at 1x. With fewer than six \
             repetitions the range stands in the place of the interval."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::sample;

    #[test]
    fn the_page_needs_nothing_else() {
        let page = html(&sample::dataset());
        assert!(page.starts_with("<!DOCTYPE html>"));
        // Namespaces are names, not places.
        let page = page.replace("http://www.w3.org/2000/svg", "");
        for other in ["http:", "https:", "<script", "@import", "url(http", "src="] {
            assert!(!page.contains(other), "{other}");
        }
        assert!(!page.contains("NaN"));
    }

    #[test]
    fn what_a_file_says_is_text() {
        let mut data = sample::dataset();
        data.host.cpu_model = "<script>alert(1)</script>".to_string();
        data.cells[0].failure = Some("<b>\"&".to_string());
        let page = html(&data);
        assert!(!page.contains("<script>") && !page.contains("<b>"));
        assert!(page.contains("&lt;script&gt;"));
    }

    #[test]
    fn the_same_data_gives_the_same_page() {
        let data = sample::dataset();
        assert_eq!(html(&data), html(&data));
    }
}
