//! Axes, lines and bands as SVG. Colours are classes: the report's style sheet
//! says what they are, in light and in dark.
//!
//! A figure is drawn on 480 by 330 units and shown 340 to 700 pixels wide, so
//! that its letters stay readable on a telephone.

use maud::{Markup, html};

/// Width of a figure.
pub const WIDTH: f64 = 480.0;
/// Height of a figure, unless it has rows.
pub const HEIGHT: f64 = 330.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 48.0;

/// How values become places.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scale {
    /// Equal steps.
    Linear,
    /// Equal factors: values above 0.
    Log,
}

/// One axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What, in which unit.
    pub label: String,
    /// How.
    pub scale: Scale,
    /// First value.
    pub from: f64,
    /// Last value.
    pub to: f64,
    /// Values with a mark, and what stands there.
    pub ticks: Vec<(f64, String)>,
}

impl Axis {
    /// From 0 to a round number that is not below `most`, in 4 to 8 steps.
    pub fn from_zero(label: &str, most: f64, name: impl Fn(f64) -> String) -> Self {
        let step = round_step(most / 5.0);
        let steps = (most / step).ceil().max(1.0);
        let ticks = (0..=12u32)
            .map(f64::from)
            .take_while(|&n| n <= steps)
            .map(|n| (n * step, name(n * step)));
        Self {
            label: label.to_string(),
            scale: Scale::Linear,
            from: 0.0,
            to: steps * step,
            ticks: ticks.collect(),
        }
    }

    /// Powers of `base` around `least` to `most`.
    pub fn powers(
        label: &str,
        base: f64,
        (least, most): (f64, f64),
        name: impl Fn(f64) -> String,
    ) -> Self {
        // What is a power stays one, whatever the logarithm rounds to.
        let first = (least.ln() / base.ln() + 1e-9).floor();
        let last = (most.ln() / base.ln() - 1e-9).ceil().max(first + 1.0);
        // At most a dozen marks, or they run into each other.
        let stride = ((last - first) / 8.0).ceil().max(1.0);
        let ticks = (0..40u32)
            .map(|n| first + f64::from(n) * stride)
            .take_while(|&power| power <= last + 1e-9)
            .map(|power| base.powf(power))
            .map(|value| (value, name(value)));
        Self {
            label: label.to_string(),
            scale: Scale::Log,
            from: base.powf(first),
            to: base.powf(last),
            ticks: ticks.collect(),
        }
    }

    /// Where `value` is, 0 to 1; outside values at the edge.
    pub fn place(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.from) / (self.to - self.from),
            Scale::Log => (value / self.from).ln() / (self.to / self.from).ln(),
        };
        // A log of 0 is at the edge, too.
        if share.is_nan() {
            0.0
        } else {
            share.clamp(0.0, 1.0)
        }
    }
}

/// 1, 2 or 5 times a power of ten, not below `least`.
fn round_step(least: f64) -> f64 {
    if !(least.is_finite() && least > 0.0) {
        return 1.0;
    }
    let power = 10f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * power);
    let mut steps = steps.filter(|&step| step >= least * (1.0 - 1e-9));
    steps.next().unwrap_or(10.0 * power)
}

/// A place in a figure, in its units.
pub type Place = (f64, f64);

/// Two axes and what lies between.
#[derive(Clone, Debug)]
pub struct Plot {
    /// The horizontal axis.
    pub x: Axis,
    /// Up.
    pub y: Axis,
}

/// Room for the labels of the vertical axis.
const LEFT: f64 = 70.0;

impl Plot {
    /// Where these values are.
    pub fn at(&self, x: f64, y: f64) -> Place {
        let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
        (
            LEFT + self.x.place(x) * width,
            TOP + (1.0 - self.y.place(y)) * height,
        )
    }

    /// The axes with `inside` between them. `about` is for those who can't see
    /// it.
    pub fn draw(&self, about: &str, inside: &Markup) -> Markup {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        svg(
            about,
            HEIGHT,
            &html! {
                @for (value, name) in &self.y.ticks {
                    @let (_, y) = self.at(self.x.from, *value);
                    path class="grid" d=(format!("M{LEFT} {y:.1}H{right}")) {}
                    text class="end" x=(LEFT - 6.0) y=(px(y + 4.0)) { (name) }
                }
                @for (value, name) in &self.x.ticks {
                    @let (x, _) = self.at(*value, self.y.from);
                    path class="grid" d=(format!("M{x:.1} {TOP}V{bottom}")) {}
                    text class="mid" x=(px(x)) y=(bottom + 18.0) { (name) }
                }
                path class="axis" d=(format!("M{LEFT} {TOP}V{bottom}H{right}")) {}
                text class="mid label" x=(px(f64::midpoint(LEFT, right))) y=(HEIGHT - 8.0) {
                    (self.x.label)
                }
                @let middle = f64::midpoint(TOP, bottom);
                text class="mid label" transform=(format!("translate(12 {middle}) rotate(-90)")) {
                    (self.y.label)
                }
                (inside)
            },
        )
    }
}

/// A picture of this height; scales with its page.
pub fn svg(about: &str, height: f64, inside: &Markup) -> Markup {
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-label=(about)
            xmlns="http://www.w3.org/2000/svg" {
            (inside)
        }
    }
}

/// A coordinate, in tenths.
pub fn px(value: f64) -> String {
    format!("{value:.1}")
}

/// A path through `points`.
pub fn path(points: impl IntoIterator<Item = Place>) -> String {
    let mut out = String::new();
    for (x, y) in points {
        let command = if out.is_empty() { 'M' } else { 'L' };
        out.push_str(&format!("{command}{x:.1} {y:.1}"));
    }
    out
}

/// The area between two lines over the same places.
pub fn band(low: &[Place], high: &[Place]) -> String {
    let around = low.iter().chain(high.iter().rev()).copied();
    let mut out = path(around);
    out.push('Z');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, name)| name.as_str()).collect()
    }

    #[test]
    fn axes_end_at_round_numbers() {
        let axis = Axis::from_zero("", 1.07, |v| format!("{v:.1}"));
        assert_eq!(names(&axis), ["0.0", "0.5", "1.0", "1.5"]);
        assert_eq!(axis.to, 1.5);
        let axis = Axis::from_zero("", 0.0, |v| v.to_string());
        assert_eq!(axis.to, 1.0, "nothing measured is still an axis");
        let axis = Axis::powers("", 2.0, (0.5, 8.0), |v| v.to_string());
        assert_eq!(names(&axis), ["0.5", "1", "2", "4", "8"]);
        let axis = Axis::powers("", 10.0, (3e2, 2e7), |v| format!("{v:e}"));
        assert_eq!(
            names(&axis),
            ["1e2", "1e3", "1e4", "1e5", "1e6", "1e7", "1e8"]
        );
    }

    #[test]
    fn places_by_hand() {
        let axis = Axis::powers("", 10.0, (1.0, 100.0), |v| v.to_string());
        assert!((axis.place(10.0) - 0.5).abs() < 1e-12);
        assert_eq!(axis.place(0.0), 0.0, "a log of nothing is at the edge");
        assert_eq!(axis.place(1e9), 1.0);
        let axis = Axis::from_zero("", 10.0, |v| v.to_string());
        assert_eq!(axis.place(2.5), 0.25);
        assert_eq!(path([(1.0, 2.0), (3.0, 4.25)]), "M1.0 2.0L3.0 4.2");
        assert!(path([]).is_empty());
    }
}
