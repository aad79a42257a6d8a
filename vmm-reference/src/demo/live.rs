//! The demo on a terminal: each row as soon as it is measured, and below the
//! rows what runs now and how long all of it will still take.

use std::io::Write as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::cell::{Cell, DemoRow};
use super::table;

/// Hears how far the measurements are.
pub trait DemoWatcher {
    /// `cell` is measured from now on.
    fn begins(&mut self, cell: &Cell, label: &str);
    /// These rows have been measured, those behind the first `before` just now.
    fn measured(&mut self, rows: &[DemoRow], before: usize);
}

/// Does not watch.
impl DemoWatcher for () {
    fn begins(&mut self, _cell: &Cell, _label: &str) {}
    fn measured(&mut self, _rows: &[DemoRow], _before: usize) {}
}

/// The rows and a bar, on a terminal.
#[derive(Debug)]
pub struct Live {
    bar: ProgressBar,
}

/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(250);

impl Live {
    /// For so many cells of `time` each. The table's head is printed at once.
    pub fn new(cells: usize, time: Duration) -> Self {
        let count = u32::try_from(cells).unwrap_or(u32::MAX);
        let end = Instant::now() + time.saturating_mul(count);
        let left = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
            let left = end.saturating_duration_since(Instant::now());
            // A progress bar that can't be written is no error.
            let _ = write!(out, "{}", seconds(left));
        };
        // The template is a constant; should it be refused, the bar has another
        // look.
        let style = ProgressStyle::with_template("{bar:24} {pos}/{len}  {msg}  {left} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .with_key("left", left);
        let bar = ProgressBar::with_draw_target(
            Some(cells.try_into().unwrap_or(u64::MAX)),
            ProgressDrawTarget::stderr(),
        );
        bar.set_style(style);
        let live = Self { bar };
        live.print(table::HEAD);
        live
    }

    /// Prints above the bar.
    fn print(&self, text: &str) {
        self.bar.suspend(|| {
            let mut out = std::io::stdout().lock();
            // A terminal that is gone is no reason to end a measurement.
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        });
    }
}

impl DemoWatcher for Live {
    fn begins(&mut self, cell: &Cell, label: &str) {
        let vcpus = cell.spec.vcpus;
        self.bar.set_message(format!("{label}, {vcpus} vCPUs"));
        self.bar.enable_steady_tick(TICK);
    }

    fn measured(&mut self, rows: &[DemoRow], before: usize) {
        self.bar.inc(1);
        for n in before..rows.len() {
            self.print(&table::last_row(rows.get(..=n).unwrap_or_default()));
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Whole seconds, or minutes and seconds.
fn seconds(time: Duration) -> String {
    match time.as_secs() + u64::from(time.subsec_nanos() > 0) {
        s if s < 60 => format!("{s} s"),
        s => format!("{} min {:02} s", s / 60, s % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_left_is_rounded_up() {
        assert_eq!(seconds(Duration::ZERO), "0 s");
        assert_eq!(seconds(Duration::from_millis(100)), "1 s");
        assert_eq!(seconds(Duration::from_secs(59)), "59 s");
        assert_eq!(seconds(Duration::from_secs(61)), "1 min 01 s");
    }
}
