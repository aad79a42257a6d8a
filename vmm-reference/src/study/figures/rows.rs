//! vCPUs and pCPUs around the worst wait: a row each, time to the right.

use maud::{Markup, html};

use super::palette;
use super::plot::{Axis, Place, WIDTH, px, svg};
use super::units::{nanoseconds, percent};
use super::{Figure, Table, wait};
use crate::study::dataset::Timeline;
use crate::study::dataset::timeline::{Doing, Hold, Kick, Span, Track};

const LEFT: f64 = 70.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 10.0;
const ROW: f64 = 20.0;

/// Number `number` of the report's timelines.
pub fn timeline(timeline: &Timeline, number: usize) -> Figure {
    let mut table = Table::new(&[
        "vCPU",
        "running",
        "ready, without a pCPU",
        "held",
        "halted",
        "has the lock",
        "given it, not yet taken",
        "kicks sent",
        "kicks received",
    ]);
    let share = |ns: u64| percent(ns as f64 / timeline.length.max(1) as f64);
    let lock = |track: usize, time: fn(&Hold) -> u64| {
        let holds = timeline.holds.iter().filter(|hold| hold.track == track);
        share(holds.map(time).sum())
    };
    for (index, track) in timeline.tracks.iter().enumerate() {
        let mut row = vec![format!("{}.{}", track.vm, track.vcpu)];
        row.extend(Doing::ALL.map(|doing| share(timeline.time(index, doing))));
        row.extend(if timeline.holds.is_empty() {
            ["–".to_string(), "–".to_string()]
        } else {
            [
                lock(index, |hold| hold.to.saturating_sub(hold.from)),
                lock(index, |hold| hold.from.saturating_sub(hold.due)),
            ]
        });
        let kicks = |end: fn(&Kick) -> usize| {
            let kicks = timeline.kicks.iter().filter(|kick| end(kick) == index);
            kicks.count().to_string()
        };
        row.extend([kicks(|kick| kick.from), kicks(|kick| kick.to)]);
        table.rows.push(row);
    }
    let wait = timeline.wait;
    let length = wait.to.saturating_sub(wait.from).max(0);
    let mut legend = vec![("wait", "the worst wait")];
    legend.extend(Doing::ALL.map(|doing| (palette::doing(doing), doing.name())));
    if !timeline.holds.is_empty() {
        legend.push(("has", "has the lock, or is next"));
    }
    Figure {
        id: format!("timeline-{number}"),
        title: format!("Around the worst wait: {}", timeline.key),
        caption: format!(
            "The worst wait, of vCPU {}, lasted {}.{} A row for each vCPU (VM.vCPU); then a row \
             for each pCPU with the vCPU that it ran, and one for the lock with the vCPU that has \
             it, pale from when it was given to it until it is taken. An arrow is a kick.",
            wait::name(timeline, wait.track),
            nanoseconds(length as f64),
            wait::story(timeline)
        ),
        picture: draw(timeline),
        lines: Vec::new(),
        legend: palette::parts(&legend),
        table,
    }
}

fn draw(timeline: &Timeline) -> Markup {
    let pcpus = timeline.pcpus();
    let vcpus = timeline.tracks.len() as f64;
    let second = TOP + vcpus * ROW + 12.0;
    let third = second + pcpus.len() as f64 * ROW + 6.0;
    let lock = if timeline.holds.is_empty() { 0.0 } else { 1.0 };
    let bottom = third + lock * ROW;
    let last = timeline.ending_kick().map(|(kick, _)| kick);
    let axis = Axis::from_zero("time", timeline.length as f64, nanoseconds);
    let across = |ns: f64| {
        let share = (ns / (timeline.length.max(1) as f64)).clamp(0.0, 1.0);
        LEFT + share * (WIDTH - LEFT - RIGHT)
    };
    let row = |index: usize| TOP + index as f64 * ROW;
    let wait = timeline.wait;
    svg(
        "What each vCPU did around the worst wait",
        bottom + 42.0,
        &html! {
            defs {
                marker id="kick" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="6"
                    markerHeight="6" markerUnits="userSpaceOnUse" orient="auto-start-reverse" {
                    path class="kick-head" d="M0 0L6 3L0 6Z" {}
                }
            }
            @for (value, name) in axis.ticks.iter().filter(|(ns, _)| *ns <= timeline.length as f64) {
                @let x = across(*value);
                path class="grid" d=(format!("M{x:.1} {TOP}V{bottom:.1}")) {}
                text class="mid" x=(px(x)) y=(px(bottom + 16.0)) { (name) }
            }
            text class="mid label" x=(px(f64::midpoint(LEFT, WIDTH))) y=(px(bottom + 35.0)) {
                "time in this window"
            }
            @for (index, track) in timeline.tracks.iter().enumerate() {
                text class="end" x=(LEFT - 6.0) y=(px(row(index) + 14.0)) {
                    (format!("vCPU {}.{}", track.vm, track.vcpu))
                }
                @for span in &track.spans { (part(span, row(index), &across)) }
            }
            @for (index, pcpu) in pcpus.iter().enumerate() {
                @let y = second + index as f64 * ROW;
                text class="end" x=(LEFT - 6.0) y=(px(y + 14.0)) { (format!("pCPU {pcpu}")) }
                @for (track, spans) in timeline.tracks.iter().map(|t| (t, &t.spans)) {
                    @for span in spans.iter().filter(|span| span.pcpu == Some(*pcpu)) {
                        (of_vcpu(track, (span.from, span.to), y, &across))
                    }
                }
            }
            @if lock > 0.0 {
                text class="end" x=(LEFT - 6.0) y=(px(third + 14.0)) { "lock" }
            }
            @for hold in &timeline.holds {
                @if let Some(track) = timeline.tracks.get(hold.track) {
                    g class="due" { (of_vcpu(track, (hold.due, hold.from), third, &across)) }
                    (of_vcpu(track, (hold.from, hold.to), third, &across))
                    @let (from, to) = (across(hold.due as f64), across(hold.to as f64));
                    rect class="has" x=(px(from)) y=(px(row(hold.track) + ROW - 2.4))
                        width=(px((to - from).max(0.6))) height="2.4" {}
                }
            }
            @for kick in &timeline.kicks {
                (arrow(across(kick.at as f64), row(kick.from), row(kick.to), last == Some(*kick)))
            }
            @if wait.track < timeline.tracks.len() {
                @let (from, to) = (across(wait.from as f64), across(wait.to as f64));
                rect class="wait" x=(px(from)) y=(px(row(wait.track) + 0.5)) width=(px(to - from))
                    height=(ROW - 1.0) { title { "the worst wait" } }
            }
        },
    )
}

/// Height tells what the colour tells.
fn part(span: &Span, y: f64, across: &impl Fn(f64) -> f64) -> Markup {
    let height = match span.doing {
        Doing::Running => 14.0,
        Doing::Waiting => 8.0,
        Doing::Held => 5.0,
        Doing::Halted => 2.0,
    };
    let (from, to) = (across(span.from as f64), across(span.to as f64));
    let says = format!(
        "{}, {}",
        span.doing.name(),
        nanoseconds(span.to.saturating_sub(span.from) as f64)
    );
    html! {
        rect class=(palette::doing(span.doing)) x=(px(from)) y=(px(y + (ROW - height) / 2.0))
            width=(px((to - from).max(0.3))) height=(px(height)) { title { (says) } }
    }
}

/// A part of the row of a pCPU or of the lock, in the colour of a vCPU.
fn of_vcpu(track: &Track, time: (u64, u64), y: f64, across: &impl Fn(f64) -> f64) -> Markup {
    let (vm, vcpu) = (track.vm, track.vcpu);
    let (from, to) = (across(time.0 as f64), across(time.1 as f64));
    html! {
        rect class=(format!("p{}", (vm * 3 + vcpu) % 8)) x=(px(from)) y=(px(y + 2.0))
            width=(px((to - from).max(0.3))) height=(px(ROW - 4.0)) {
            title { (format!("vCPU {vm}.{vcpu}")) }
        }
        @if to - from > 26.0 {
            text class="mid inside" x=(px(f64::midpoint(from, to))) y=(px(y + 14.0)) {
                (format!("{vm}.{vcpu}"))
            }
        }
    }
}

fn arrow(x: f64, from: f64, to: f64, is_last: bool) -> Markup {
    let (class, says) = match is_last {
        true => ("kick thick", "the kick that ended the waiter's halt"),
        false => ("kick", "a kick"),
    };
    let half = ROW / 2.0;
    // From the edge of one row to that of the other.
    let ends: (Place, Place) = if from < to {
        ((x, from + half), (x, to + 3.0))
    } else {
        ((x, from + half), (x, to + ROW - 3.0))
    };
    html! {
        path class=(class) marker-end="url(#kick)"
            d=(super::plot::path([ends.0, ends.1])) { title { (says) } }
    }
}
