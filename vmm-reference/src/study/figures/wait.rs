//! What a timeline tells of its wait, in words: who had the lock meanwhile and was on
//! no pCPU, and the kick that ended the waiter's halt.

use super::units::{nanoseconds, number};
use crate::study::dataset::Halts;
use crate::study::dataset::timeline::{Doing, Hold, Timeline};

/// The sentences, each with a space before it.
pub fn story(timeline: &Timeline) -> String {
    let told = [owner(timeline), own(timeline), halt(timeline)];
    told.into_iter().flatten().collect()
}

/// A vCPU, as every row names it.
pub fn name(timeline: &Timeline, track: usize) -> String {
    let track = timeline.tracks.get(track);
    track.map_or_else(String::new, |track| format!("{}.{}", track.vm, track.vcpu))
}

/// How long the lock was with somebody without a pCPU, and how many ran meanwhile.
fn owner(timeline: &Timeline) -> Option<String> {
    let (from, to) = timeline.wait_seen();
    if timeline.holds.is_empty() {
        return Some(" Who had the lock meanwhile was not noted.".to_string());
    }
    // Within the critical section, and before it was entered.
    let (mut holder, mut next, mut others) = (0, 0, 0);
    for hold in &timeline.holds {
        holder += preempted(
            timeline,
            hold,
            hold.from.max(from),
            hold.to.min(to),
            &mut others,
        );
        next += preempted(
            timeline,
            hold,
            hold.due.max(from),
            hold.from.min(to),
            &mut others,
        );
    }
    let (lost, shown) = (holder + next, to.saturating_sub(from));
    if shown == 0 {
        return None;
    }
    let ns = |ns: u64| nanoseconds(ns as f64);
    if lost == 0 {
        return Some(format!(
            " In the {} of it that are shown, nobody who had the lock, or was next, was ready \
             without a pCPU.",
            ns(shown)
        ));
    }
    let does = match timeline.key.series.halts {
        Halts::Never => "spun for it",
        Halts::Userspace | Halts::Kernel => "ran",
    };
    Some(format!(
        " In the {} of it that are shown, the lock was for {} with a vCPU that was ready and had \
         no pCPU: {} of that the holder in its critical section, {} the next one, which the lock \
         had been given to. Meanwhile other vCPUs {does} on {} pCPUs.",
        ns(shown),
        ns(lost),
        ns(holder),
        ns(next),
        number(others as f64 / lost as f64)
    ))
}

/// Nanoseconds between the two that the lock's vCPU was without a pCPU; adds the time
/// that others ran then.
fn preempted(timeline: &Timeline, hold: &Hold, from: u64, to: u64, others: &mut u64) -> u64 {
    let spans = timeline
        .tracks
        .get(hold.track)
        .map_or(&[][..], |t| &t.spans);
    let waiting = spans.iter().filter(|span| span.doing == Doing::Waiting);
    let parts = waiting.map(|span| (span.from.max(from), span.to.min(to)));
    let mut all = 0;
    for (from, to) in parts.filter(|(from, to)| from < to) {
        all += to - from;
        let ran = (0..timeline.tracks.len())
            .filter(|&track| track != hold.track)
            .map(|track| timeline.within(track, Doing::Running, from, to));
        *others += ran.sum::<u64>();
    }
    all
}

/// How long the waiter itself had no pCPU: it may be preempted before it is in the queue.
fn own(timeline: &Timeline) -> Option<String> {
    let (from, to) = timeline.wait_seen();
    let off = timeline.within(timeline.wait.track, Doing::Waiting, from, to);
    (off > 0).then(|| {
        let off = nanoseconds(off as f64);
        format!(" The waiter itself was ready without a pCPU for {off} of it.")
    })
}

/// How long the waiter was halted, and what ended that.
fn halt(timeline: &Timeline) -> Option<String> {
    let (from, to) = timeline.wait_seen();
    let halted = timeline.within(timeline.wait.track, Doing::Halted, from, to);
    if halted == 0 {
        return None;
    }
    let waiter = name(timeline, timeline.wait.track);
    let halted = nanoseconds(halted as f64);
    let Some((kick, _)) = timeline.ending_kick() else {
        return Some(format!(" vCPU {waiter} was halted for {halted} of it."));
    };
    let spans = timeline.tracks.get(kick.to).map_or(&[][..], |t| &t.spans);
    let runs = spans
        .iter()
        .find(|s| s.doing == Doing::Running && s.to > kick.at);
    let ran = runs.map_or_else(String::new, |span| {
        let after = nanoseconds(span.from.saturating_sub(kick.at) as f64);
        format!(", {after} before it ran again")
    });
    Some(format!(
        " vCPU {waiter} was halted for {halted} of it; the thick arrow is the kick by vCPU {} that \
         ended its last halt{ran}.",
        name(timeline, kick.from)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::sample;

    /// By the sample's own spans.
    #[test]
    fn a_wait_is_told() {
        let timelines = sample::dataset().timelines;
        let [spins, halts] = [0, 1].map(|n| story(&timelines[n]));
        // vCPU 2 is next from 0 and runs from 4 ms on; it holds the lock until 13 ms and
        // is off from 8 to 12. vCPU 0 is next from 13.4 and runs from 16 on; it holds
        // until 26 and is off from 20 to 24. The other two of four run then.
        assert!(
            spins.contains(
                "for 15 ms with a vCPU that was ready and had no pCPU: 8 ms of that the holder"
            ),
            "{spins}"
        );
        assert!(spins.contains("6.6 ms the next one"), "{spins}");
        assert!(
            spins.contains("other vCPUs spun for it on 2.00 pCPUs"),
            "{spins}"
        );
        // vCPU 1 is off from 4, 12 and 20 ms on, for 4 ms each.
        assert!(
            spins.contains("The waiter itself was ready without a pCPU for 12 ms of it"),
            "{spins}"
        );
        assert!(!spins.contains("halted"), "{spins}");
        assert!(!halts.contains("itself"), "{halts}");
        assert!(
            halts.contains(
                "vCPU 0.3 was halted for 590 µs of it; the thick arrow is the kick by vCPU 0.2"
            ),
            "{halts}"
        );
        assert!(
            halts.contains("nobody who had the lock, or was next"),
            "{halts}"
        );
    }

    #[test]
    fn what_was_not_noted_is_said() {
        let mut timeline = sample::dataset().timelines.remove(0);
        timeline.holds.clear();
        assert!(story(&timeline).contains("was not noted"));
        timeline.tracks.clear();
        assert!(story(&timeline).contains("was not noted"), "and no panic");
    }
}
