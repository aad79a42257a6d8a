//! The same colour, marker and name for a series in every figure. The colours
//! are Okabe and Ito's, which colour-blind people tell apart; markers and dashes
//! tell the lines apart in grey too.

use maud::{Markup, html};

use super::plot::{Place, px};
use crate::study::dataset::timeline::Doing;
use crate::study::dataset::{Halts, Role, Series, Transport, Waiter};

/// The class that colours `series`: `s0` to `s7`.
pub fn class(series: Series) -> &'static str {
    match (series.waiter, series.halts, series.transport) {
        (Waiter::Ticket, ..) => "s0",
        (Waiter::TestAndSet, ..) => "s1",
        (Waiter::LinuxQueue, Halts::Kernel, _) => "s0",
        (Waiter::LinuxQueue, ..) => "s2",
        (Waiter::LinuxNative, Halts::Kernel, _) => "s1",
        (Waiter::LinuxNative, ..) => "s4",
        (Waiter::LinuxPv, Halts::Kernel, _) => "s5",
        (Waiter::LinuxPv, ..) => "s3",
        (Waiter::Preemptable, ..) => "s2",
        (Waiter::PvTicket, Halts::Kernel, Transport::Kvm) => "s4",
        (Waiter::PvTicket, Halts::Kernel, _) => "s5",
        (Waiter::PvTicket, _, Transport::Xen) => "s7",
        (Waiter::PvTicket, ..) => "s3",
        (Waiter::PvQueue, Halts::Kernel, _) => "s7",
        (Waiter::PvQueue, ..) => "s6",
    }
}

/// The class that colours what a vCPU does.
pub const fn doing(doing: Doing) -> &'static str {
    match doing {
        Doing::Running => "d-running",
        Doing::Waiting => "d-waiting",
        Doing::Held => "d-held",
        Doing::Halted => "d-halted",
    }
}

/// The class that colours a kind of vCPU.
pub const fn role(role: Role) -> &'static str {
    match role {
        Role::Locks => "r-locks",
        Role::Computes => "r-computes",
        Role::Sleeps => "r-sleeps",
    }
}

/// A mark of `series` at a place, with words for a pointer that rests on it.
pub fn marker(series: Series, (x, y): Place, says: &str) -> Markup {
    let shape = match class(series) {
        "s0" => "M-4-4H4V4H-4Z",
        "s1" => "M0-5L5 4H-5Z",
        "s2" => "M0 5L5-4H-5Z",
        "s4" => "M0-5L5 0L0 5L-5 0Z",
        "s5" => "M-5-1.5H-1.5V-5H1.5V-1.5H5V1.5H1.5V5H-1.5V1.5H-5Z",
        "s6" => "M-2.5-5H2.5L5 0L2.5 5H-2.5L-5 0Z",
        "s7" => "M-4-2H4V2H-4Z",
        // A circle.
        _ => "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0Z",
    };
    html! {
        path class=(format!("mark {}", class(series))) d=(shape)
            transform=(format!("translate({} {})", px(x), px(y))) {
            title { (says) }
        }
    }
}

/// The list of what the lines are.
pub fn legend(all: &[Series]) -> Markup {
    html! {
        ul class="legend" {
            @for &series in all {
                li {
                    svg viewBox="0 0 34 14" aria-hidden="true" {
                        path class=(format!("line {}", class(series))) d="M1 7H33" {}
                        (marker(series, (17.0, 7.0), ""))
                    }
                    (series)
                }
            }
        }
    }
}

/// The list of what the parts of a bar or a row are.
pub fn parts(all: &[(&str, &str)]) -> Markup {
    html! {
        ul class="legend" {
            @for (class, name) in all {
                // What is a line below a row is one here.
                @let (y, height) = if *class == "has" { ("10", "2.4") } else { ("1", "12") };
                li {
                    svg viewBox="0 0 34 14" aria-hidden="true" {
                        rect class=(class) x="8" y=(y) width="18" height=(height) {}
                    }
                    (name)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::sample;

    #[test]
    fn no_two_series_look_alike() {
        let mut classes: Vec<_> = sample::SERIES.iter().map(|&s| class(s)).collect();
        classes.sort_unstable();
        classes.dedup();
        assert_eq!(classes.len(), sample::SERIES.len());
    }
}
