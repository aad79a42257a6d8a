//! Three sentences: what halting and kicking gains here, where the knee is,
//! what it costs.

use crate::study::dataset::{Cell, CellKey, Dataset, Halts, Load, Repetition, Series, Waiter};
use crate::study::figures::curves::{Sweep, knee_of};
use crate::study::figures::units::{nanoseconds, percent};
use crate::study::figures::{series, telling_vcpus};
use crate::study::finite::Finite;
use crate::study::statistics::{Knee, Verdict, median, verdict};

/// The series that spins, as a kernel without PV locks does.
pub fn spinning(data: &Dataset) -> Option<Series> {
    spinning_in(data, Load::Short)
}

fn spinning_in(data: &Dataset, load: Load) -> Option<Series> {
    let mut all = series(data, load).into_iter();
    all.find(|series| series.waiter == Waiter::Ticket)
}

/// The series that halts and is kicked: in this process where there is one.
pub fn halting(data: &Dataset) -> Option<Series> {
    halting_in(data, Load::Short)
}

fn halting_in(data: &Dataset, load: Load) -> Option<Series> {
    let all = series(data, load);
    let tickets = || all.iter().filter(|s| s.waiter == Waiter::PvTicket);
    let here = tickets().find(|s| s.halts == Halts::Userspace);
    let other = all.iter().find(|series| series.is_pv());
    here.or_else(|| tickets().next()).or(other).copied()
}

/// The cell of a series with one VM of `vcpus` vCPUs, if it measured something.
fn cell(data: &Dataset, load: Load, series: Series, vcpus: u32) -> Option<&Cell> {
    let key = CellKey {
        load,
        series,
        vms: 1,
        vcpus,
    };
    data.cell(&key).filter(|cell| !cell.repetitions.is_empty())
}

/// The three; of a study of Linux one for each workload.
pub fn sentences(data: &Dataset) -> Vec<String> {
    let linux = linux(data);
    if linux.is_empty() {
        three(data).into()
    } else {
        linux
    }
}

/// What PV locks gain for each workload of a Linux guest, against what Linux does
/// without them, by who halts it.
fn linux(data: &Dataset) -> Vec<String> {
    Load::LINUX
        .into_iter()
        .filter_map(|load| {
            let vcpus = telling_vcpus(data, load)?;
            let all = series(data, load);
            let any = all.first()?;
            let ratio = data.ratio(&cell(data, load, *any, vcpus)?.key);
            let against = |waiter| against(data, load, vcpus, waiter);
            let words: Vec<String> = [
                ("a queue that spins (nopvspin)", Waiter::LinuxQueue),
                ("test-and-set (no PV_UNHALT)", Waiter::LinuxNative),
            ]
            .into_iter()
            .filter_map(|(name, waiter)| Some(format!("against {name} {}", against(waiter)?)))
            .collect();
            let words = match words.is_empty() {
                true => "not measured".to_string(),
                false => words.join("; "),
            };
            Some(format!("{} at {ratio}x, PV locks: {words}.", load.id()))
        })
        .collect()
}

/// PV locks against another way to wait.
fn against(data: &Dataset, load: Load, vcpus: u32, other: Waiter) -> Option<String> {
    let all = series(data, load);
    let words: Vec<String> = [
        (Halts::Userspace, "halts in this process"),
        (Halts::Kernel, "halts in KVM"),
    ]
    .into_iter()
    .filter_map(|(halts, name)| {
        let of = |waiter| {
            let like = |series: &&Series| (series.waiter, series.halts) == (waiter, halts);
            cell(data, load, *all.iter().find(like)?, vcpus)
        };
        let says = verdict(
            &of(other)?.rates(),
            &of(Waiter::LinuxPv)?.rates(),
            data.settings.seed,
        );
        Some(format!("{says} with {name}"))
    })
    .collect();
    (!words.is_empty()).then(|| words.join(", "))
}

fn three(data: &Dataset) -> [String; 3] {
    let (spin, halt) = (spinning(data), halting(data));
    [
        spin.zip(halt)
            .and_then(|(spin, halt)| gain(data, spin, halt))
            .unwrap_or_else(|| {
                "What halting and kicking gains was not measured: one of the two is missing."
                    .to_string()
            }),
        knees(data, spin, halt),
        spin.zip(halt)
            .and_then(|(spin, halt)| cost(data, spin, halt))
            .unwrap_or_else(|| "What it costs where nobody waits was not measured".to_string())
            + &wakes(data).unwrap_or_default()
            + ".",
    ]
}

fn gain(data: &Dataset, spin: Series, halt: Series) -> Option<String> {
    let vcpus = telling_vcpus(data, Load::Short)?;
    let spins = cell(data, Load::Short, spin, vcpus)?;
    let halts = cell(data, Load::Short, halt, vcpus)?;
    let says = verdict(&spins.rates(), &halts.rates(), data.settings.seed);
    let ratio = data.ratio(&halts.key);
    Some(match says {
        Verdict::NoneSeen(_) => format!(
            "At {ratio}x overcommit no difference was seen between waiters that halt and are \
             kicked ({halt}) and waiters that spin."
        ),
        Verdict::TooFew => format!(
            "At {ratio}x overcommit there are too few repetitions to tell waiters that halt \
             ({halt}) from waiters that spin."
        ),
        Verdict::Faster(_) | Verdict::Slower(_) => format!(
            "At {ratio}x overcommit waiters that halt and are kicked ({halt}) take the lock \
             {says} {} waiters that spin.",
            match says {
                Verdict::Faster(by) if by.low.get() >= 2.0 => "as",
                _ => "than",
            }
        ),
    })
}

fn knees(data: &Dataset, spin: Option<Series>, halt: Option<Series>) -> String {
    let at = |series| knee_of(data, Load::Short, series, Sweep::Vcpus);
    let words: Vec<String> = [("spins", spin), ("halts", halt)]
        .into_iter()
        .filter_map(|(does, series)| Some((does, at(series?))))
        .filter(|&(_, knee)| knee != Knee::Unknown)
        .map(|(does, knee)| format!("if it {does}, {knee}"))
        .collect();
    if words.is_empty() {
        return "Where the knee is was not measured.".to_string();
    }
    format!(
        "The knee, up to which a VM whose vCPUs share one lock keeps 90 % of its work, is: {}.",
        words.join("; ")
    )
}

fn cost(data: &Dataset, spin: Series, halt: Series) -> Option<String> {
    let at_1x = |series| cell(data, Load::Uncontended, series, data.host.cpus);
    let (spins, halts) = (at_1x(spin)?, at_1x(halt)?);
    let says = verdict(&spins.rates(), &halts.rates(), data.settings.seed);
    let free = match says {
        Verdict::NoneSeen(_) => "no cost was seen".to_string(),
        Verdict::TooFew => "there are too few repetitions to tell the cost".to_string(),
        _ => format!("such a lock is {says} than one that spins"),
    };
    let vcpus = telling_vcpus(data, Load::Short)?;
    let unfair = cell(data, Load::Short, halt, vcpus).and_then(|cell| {
        let share = median(&cell.each(Repetition::least_share))?;
        let ratio = data.ratio(&cell.key);
        Some(format!(
            ", and at {ratio}x the vCPU with the fewest acquisitions has {} of the mean",
            percent(share)
        ))
    });
    Some(format!(
        "Where nobody else wants the lock {free}{}",
        unfair.unwrap_or_default()
    ))
}

/// What vCPUs that sleep bear: how soon they run once they are kicked.
fn wakes(data: &Dataset) -> Option<String> {
    let (spin, halt) = (
        spinning_in(data, Load::Mixed)?,
        halting_in(data, Load::Mixed)?,
    );
    let vcpus = telling_vcpus(data, Load::Mixed)?;
    let of = |series| {
        let cell = cell(data, Load::Mixed, series, vcpus)?;
        let at =
            |q| median(&cell.each(|repetition| Finite::new(repetition.wake_quantile(q)? as f64)));
        Some((nanoseconds(at(0.5)?), nanoseconds(at(0.99)?)))
    };
    let ((spins, spins_p99), (halts, halts_p99)) = (of(spin)?, of(halt)?);
    let ratio = data.ratio(&cell(data, Load::Mixed, halt, vcpus)?.key);
    Some(format!(
        "; at {ratio}x a sleeping vCPU runs {halts} after its kick (p99 {halts_p99}) beside vCPUs \
         that halt, {spins} (p99 {spins_p99}) beside vCPUs that spin"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::sample;

    #[test]
    fn three_sentences_of_a_known_study() {
        let [gain, knee, cost] = three(&sample::dataset());
        assert!(
            gain.starts_with("At 4x overcommit waiters that halt")
                && gain.contains("times as fast as"),
            "{gain}"
        );
        assert!(
            knee.ends_with(
                "is: if it spins, between 1x and 1.5x; if it halts, above 8x, the highest measured."
            ),
            "{knee}"
        );
        assert!(
            cost.contains("no cost was seen") && cost.contains("has 100 % of the mean"),
            "{cost}"
        );
        // As sample::beside has them.
        assert!(
            cost.contains("at 4x a sleeping vCPU runs 40 µs after its kick (p99 3 ms) beside"),
            "{cost}"
        );
    }

    #[test]
    fn wake_ups_are_told_where_they_alone_were_measured() {
        let mut data = sample::dataset();
        data.cells.retain(|cell| cell.key.load == Load::Mixed);
        let [gain, _, cost] = three(&data);
        assert!(gain.contains("not measured"), "{gain}");
        assert!(
            cost.contains("not measured; at 4x a sleeping vCPU runs 40 µs"),
            "{cost}"
        );
    }

    #[test]
    fn what_was_not_measured_is_said() {
        let mut data = sample::dataset();
        data.cells.retain(|cell| !cell.key.series.is_pv());
        let [gain, knee, cost] = three(&data);
        assert!(gain.contains("not measured") && cost.contains("not measured"));
        assert!(knee.contains("if it spins") && !knee.contains("halts"));
        data.cells.clear();
        assert!(sentences(&data).iter().all(|s| s.contains("not measured")));
    }
}
