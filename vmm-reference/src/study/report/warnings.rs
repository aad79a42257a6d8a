//! What a reader has to know before the figures.

use crate::study::dataset::{Dataset, Disturbance, End, Halts};
use crate::study::figures::units::percent;
use crate::study::statistics::ENOUGH;

/// One in ten calibration loops slower than the median by more than this: a
/// noisy host.
pub const NOISY: f64 = 0.05;
/// More than this share of the CPUs' time for others is another load.
const OTHERS: f64 = 0.05;

/// One sentence each; none for a quiet and complete study.
pub fn all(data: &Dataset) -> Vec<String> {
    let mut out = Vec::new();
    let host = &data.host;
    match data.end {
        End::Narrow => {}
        End::Budget => {
            let few = data
                .cells
                .iter()
                .filter(|cell| cell.failure.is_none() && cell.repetitions.len() < ENOUGH);
            let few = few.count();
            if few > 0 {
                out.push(format!(
                    "The time was spent before every cell had {ENOUGH} repetitions: {few} have \
                     fewer, and a range in the place of an interval. A larger --budget, or \
                     more --turns, gives them more."
                ));
            }
        }
        End::Interrupted => out.push(
            "The study was ended by a signal: this is what had been measured until then."
                .to_string(),
        ),
    }
    if host.backend == "hosted" {
        out.push(format!(
            "There was no KVM{}: the guests ran as state machines on host threads. Locks, halts \
             and kicks are real, exits from a guest are not.",
            host.why_hosted
                .as_ref()
                .map_or_else(String::new, |why| format!(" ({why})"))
        ));
    } else if !data
        .cells
        .iter()
        .any(|cell| cell.key.series.halts == Halts::Kernel)
    {
        out.push("This host's KVM has no halts of its own to compare with.".to_string());
    }
    if host.emulated {
        out.push(
            "Time was emulated here: ratios and counts say something, times do not.".to_string(),
        );
    }
    if host.virtual_machine {
        out.push(
            "The host is a virtual machine itself: an exit costs more than on hardware, and its \
             own hypervisor may take CPU time from it."
                .to_string(),
        );
    }
    if let Some(spread) = host.noise.spread().filter(|spread| spread.get() > NOISY) {
        out.push(format!(
            "The host was not steady: of a fixed loop one run in ten took {} longer than the \
             median. Differences below that mean little.",
            percent(spread.get())
        ));
    }
    for (share, who) in [
        (host.noise.others, "other programs on this host"),
        (host.noise.stolen, "the hypervisor below this host"),
    ] {
        if let Some(share) = share.filter(|share| share.get() > OTHERS) {
            let share = percent(share.get());
            out.push(format!("{share} of the CPUs' time went to {who}."));
        }
    }
    for disturbance in &host.disturbances {
        out.push(match disturbance {
            Disturbance::Suspended { at, seconds } => format!(
                "The host slept for {seconds:.0} s, {at:.0} s after the begin; what ran then was \
                 dropped.",
                seconds = seconds.get(),
                at = at.get()
            ),
            Disturbance::Cpus { at, before, after } => format!(
                "The CPUs changed from {before} to {after}, {at:.0} s after the begin: ratios \
                 before and after differ.",
                at = at.get()
            ),
        });
    }
    for cell in &data.cells {
        if let Some(reason) = &cell.failure {
            out.push(format!("A cell failed: {}: {reason}.", cell.key));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::dataset::Noise;
    use crate::study::sample;

    #[test]
    fn each_has_its_cause() {
        let mut data = sample::dataset();
        let text = all(&data).join("\n");
        for says in [
            "virtual machine itself",
            "one run in ten took 9.1 % longer",
            "8.0 % of the CPUs' time went to other programs",
            "from 4 to 2",
            "did not leave the guest within 10 s",
        ] {
            assert!(text.contains(says), "{says}: {text}");
        }
        assert!(!text.contains("hypervisor below"), "0.1 % is none: {text}");
        data.host.noise = Noise::default();
        data.host.disturbances.clear();
        data.host.virtual_machine = false;
        data.cells.retain(|cell| cell.failure.is_none());
        assert_eq!(all(&data), [""; 0], "a quiet and complete study");
        data.host.backend = "hosted".to_string();
        data.end = End::Interrupted;
        assert_eq!(all(&data).len(), 2);
    }
}
