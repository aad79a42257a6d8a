//! The part of a trace around the worst wait for a lock.
//!
//! The guest tells when its longest wait ended and who had the lock when, by its own
//! clock. Each vCPU
//! also notes the time at which its program began, which is when its thread
//! first went into the guest, or a little later: the least difference between
//! the two is that of the clocks. Kicks tell it better, where there are any: each comes
//! out of the guest just behind a section that it has noted.

use std::sync::Arc;

use super::dataset::timeline::{Doing, Hold, Kick, Span, Track, Wait};
use super::dataset::{CellKey, Timeline, Waiter};
use crate::memory::{GuestMemory, read_word};
use crate::payload::image::result_page;
use crate::payload::waiters::layout::{self, result_more};
use crate::trace::spans::{self, State, kicks, states};
use crate::trace::{Trace, VcpuTrace};

/// A window at most, and at least, in nanoseconds.
const LONGEST: u64 = 40_000_000;
const SHORTEST: u64 = 500_000;
/// Spans and kicks of a picture at most.
const CROWDED: usize = 700;

/// What `trace` shows around the worst wait that the guests noted.
pub fn around_worst_wait(
    key: &CellKey,
    trace: &Trace,
    memories: &[Arc<GuestMemory>],
    clock_hz: f64,
) -> Option<Timeline> {
    let all = kicks(&trace.vcpus);
    let clocks = (0..).zip(memories);
    let clocks = clocks.map(|(vm, memory)| Clock::of(trace, &all, vm, memory, clock_hz));
    let clocks: Vec<Clock<'_>> = clocks.collect::<Option<_>>()?;
    // (how long, when it ended, whose), by the trace's clock.
    let mut worst: Option<(f64, f64, usize)> = None;
    for (index, vcpu) in trace.vcpus.iter().enumerate() {
        let clock = clocks.get(vcpu.vm as usize)?;
        let wait = clock.ns(clock.word(vcpu, result_more::LONGEST));
        let end = clock.at(clock.word(vcpu, result_more::LONGEST_END));
        if worst.is_none_or(|(longest, ..)| wait > longest) {
            worst = Some((wait, end, index));
        }
    }
    let (wait, end, track) = worst.filter(|&(wait, end, _)| wait > 0.0 && end >= wait)?;
    let vm = trace.vcpus.get(track)?.vm;
    let noted = noted(key, trace, vm, clocks.get(vm as usize)?);
    let worst = Worst {
        track,
        wait: whole(wait),
        end: whole(end),
    };
    let mut length = (worst.wait + worst.wait / 4).clamp(SHORTEST, LONGEST);
    loop {
        // A tenth of it lies behind the wait's end.
        let to = worst.end + length / 10;
        let from = to.saturating_sub(length);
        let timeline = cut(key, trace, (&all, &noted), (from, to), worst);
        let spans = timeline.tracks.iter().map(|track| track.spans.len());
        let parts = spans.sum::<usize>() + timeline.kicks.len() + timeline.holds.len();
        if parts <= CROWDED || length <= SHORTEST / 16 {
            return Some(timeline);
        }
        // Its end is what tells.
        length = length * 2 / 3;
    }
}

/// The worst wait, in nanoseconds of the trace's clock.
#[derive(Clone, Copy, Debug)]
struct Worst {
    track: usize,
    wait: u64,
    end: u64,
}

/// The clock of a VM's guest, and what it noted.
struct Clock<'a> {
    memory: &'a GuestMemory,
    hz: f64,
    /// Nanoseconds by which it is ahead of the trace's.
    ahead: f64,
    holds: Vec<layout::Hold>,
}

impl<'a> Clock<'a> {
    fn of(
        trace: &Trace,
        all: &[spans::Kick],
        vm: u32,
        memory: &'a GuestMemory,
        hz: f64,
    ) -> Option<Self> {
        let mut clock = Self {
            memory,
            hz,
            ahead: 0.0,
            holds: layout::holds(memory).unwrap_or_default(),
        };
        let vcpus = trace.vcpus.iter().filter(|vcpu| vcpu.vm == vm);
        let late =
            vcpus.map(|vcpu| clock.at(clock.word(vcpu, result_more::ENTRY)) - vcpu.began as f64);
        clock.ahead = late.fold(f64::INFINITY, f64::min);
        // The first way into a guest is a long one. A kick comes out of it behind the
        // section that its vCPU has noted.
        let ends = |vcpu: &VcpuTrace| {
            let own = clock
                .holds
                .iter()
                .filter(|hold| hold.apic_id == u64::from(vcpu.vcpu));
            own.map(|hold| clock.at(hold.to)).collect::<Vec<f64>>()
        };
        let ends: Vec<Vec<f64>> = trace.vcpus.iter().map(ends).collect();
        let of_vm = |kick: &&spans::Kick| trace.vcpus.get(kick.from).is_some_and(|v| v.vm == vm);
        let out = all.iter().filter(of_vm).filter_map(|kick| {
            let (at, ends) = (kick.at as f64, ends.get(kick.from)?);
            let before = ends.partition_point(|&end| end <= at).checked_sub(1)?;
            Some(at - ends.get(before)?)
        });
        let out = out.fold(f64::INFINITY, f64::min);
        if out.is_finite() {
            clock.ahead -= out;
        }
        clock.ahead.is_finite().then_some(clock)
    }

    fn word(&self, vcpu: &VcpuTrace, offset: u64) -> u64 {
        read_word(self.memory, result_page(vcpu.vcpu) + offset).unwrap_or(0)
    }

    fn ns(&self, ticks: u64) -> f64 {
        ticks as f64 / self.hz * 1e9
    }

    /// A time of the guest, on the trace's clock.
    fn at(&self, ticks: u64) -> f64 {
        self.ns(ticks) - self.ahead
    }
}

/// A time on the trace's clock, in whole nanoseconds.
fn whole(ns: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a time of a run of seconds; `as` saturates"
    )]
    let whole = ns as u64;
    whole
}

/// Who had the lock when, by the trace's clock, if the guests of VM `vm` noted it.
fn noted(key: &CellKey, trace: &Trace, vm: u32, clock: &Clock<'_>) -> Vec<Hold> {
    // By APIC ID, which is the index.
    let track = |id: u64| {
        let of = |vcpu: &VcpuTrace| (vcpu.vm, u64::from(vcpu.vcpu)) == (vm, id);
        trace.vcpus.iter().position(of)
    };
    // The other locks are taken by whoever comes first.
    let in_turn = matches!(
        key.series.waiter,
        Waiter::Ticket | Waiter::PvTicket | Waiter::PvQueue
    );
    let mut free = None;
    let holds = clock.holds.iter().filter_map(|hold| {
        let at = |ticks| whole(clock.at(ticks));
        let from = at(hold.from);
        // Given by the one before, or free when it was wanted.
        let due = match free.replace(at(hold.to)) {
            Some(free) if in_turn => free.max(at(hold.from.saturating_sub(hold.waited))),
            _ => from,
        };
        Some(Hold {
            track: track(hold.apic_id)?,
            due: due.min(from),
            from,
            to: at(hold.to).max(from),
        })
    });
    holds.collect()
}

fn cut(
    key: &CellKey,
    trace: &Trace,
    (all, noted): (&[spans::Kick], &[Hold]),
    (from, to): (u64, u64),
    worst: Worst,
) -> Timeline {
    let after = |at: u64| {
        let at = i64::try_from(at).unwrap_or(i64::MAX);
        at - i64::try_from(from).unwrap_or(i64::MAX)
    };
    let inside = |at: u64| (from..to).contains(&at);
    let cut = |at: u64| at.clamp(from, to) - from;
    Timeline {
        key: *key,
        length: to - from,
        wait: Wait {
            track: worst.track,
            from: after(worst.end.saturating_sub(worst.wait)),
            to: after(worst.end),
        },
        tracks: (0..)
            .zip(&trace.vcpus)
            .map(|(index, vcpu)| row(vcpu, &kicks_of(all, index), from, to))
            .collect(),
        kicks: all
            .iter()
            .filter(|kick| inside(kick.at))
            .map(|kick| Kick {
                at: kick.at - from,
                from: kick.from,
                to: kick.to,
            })
            .collect(),
        holds: noted
            .iter()
            .filter(|hold| hold.due < to && hold.to > from)
            .map(|hold| Hold {
                track: hold.track,
                due: cut(hold.due),
                from: cut(hold.from),
                to: cut(hold.to),
            })
            .collect(),
    }
}

/// When a track was kicked.
fn kicks_of(all: &[spans::Kick], track: usize) -> Vec<u64> {
    let kicks = all.iter().filter(|kick| kick.to == track);
    kicks.map(|kick| kick.at).collect()
}

/// What a vCPU did in the window. From a kick on, who was halted is ready.
fn row(vcpu: &VcpuTrace, kicks: &[u64], from: u64, to: u64) -> Track {
    let spans = states(vcpu).into_iter().flat_map(|span| {
        let inside = |at: &&u64| (span.from..span.to).contains(*at);
        let kick = match span.state {
            State::Halted => kicks.iter().find(inside).copied(),
            _ => None,
        };
        let first = spans::Span {
            to: kick.unwrap_or(span.to),
            ..span
        };
        let second = kick.map(|from| spans::Span {
            from,
            state: State::Waiting,
            ..span
        });
        [Some(first), second].into_iter().flatten()
    });
    let spans = spans.filter_map(|span| {
        let (begin, end) = (span.from.max(from), span.to.min(to));
        let (doing, pcpu) = match span.state {
            State::Running(pcpu) => (Doing::Running, pcpu),
            State::Waiting => (Doing::Waiting, None),
            State::Held => (Doing::Held, None),
            State::Halted | State::Paused => (Doing::Halted, None),
        };
        (begin < end).then(|| Span {
            from: begin - from,
            to: end - from,
            doing,
            pcpu,
        })
    });
    Track {
        vm: vcpu.vm,
        vcpu: vcpu.vcpu,
        spans: spans.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::write_word;
    use crate::payload::image::{LOCK_PAGE, PARAM_PAGE, build_with};
    use crate::payload::layout::{issue, lock};
    use crate::payload::waiters::layout::{Locks, NOTES, WaiterProgram, hold, mode, param_more};
    use crate::study::sample;
    use crate::trace::{Event, What};

    fn vcpu(vcpu: u32, began: u64, events: &[(u64, What)]) -> VcpuTrace {
        let events = events.iter().map(|&(at, what)| Event { at, what });
        VcpuTrace {
            vm: 0,
            vcpu,
            events: events.collect(),
            dropped: 0,
            began,
            switches: Vec::new(),
        }
    }

    /// A guest whose clock is 1,000 ns ahead: vCPU 0 has the lock, then vCPU 1, which
    /// has waited 700 µs for it, halted until vCPU 0 kicks it.
    fn guest() -> (Trace, GuestMemory) {
        let memory = build_with(2, &[], NOTES).unwrap();
        let program = WaiterProgram {
            mode: mode::PV_TICKET,
            issue: issue::DOORBELL,
            threshold: 1,
            patience: 1,
            hold: 1,
            think: 1,
            burst: 1,
            locks: Locks::One,
            computing: 0,
            sleeping: 0,
            notes_holds: true,
        };
        program.install(&memory, &[0, 1]).unwrap();
        let notes = read_word(&memory, PARAM_PAGE + param_more::HOLDS).unwrap();
        let holds = [
            (0, 601_000, 801_000, 0),
            (1, 901_000, 951_000, 700_000),
            (0, 1_101_000, 1_201_000, 50_000),
        ];
        for (number, (id, from, to, waited)) in (1..).zip(holds) {
            let note = notes + number * hold::SIZE;
            for (offset, value) in [
                (hold::APIC_ID, id),
                (hold::FROM, from),
                (hold::TO, to),
                (hold::WAITED, waited),
            ] {
                write_word(&memory, note + offset, value).unwrap();
            }
        }
        for (at, value) in [
            (LOCK_PAGE + lock::COUNTER, 3),
            // The first way in took another 5 µs.
            (result_page(0) + result_more::ENTRY, 6_100),
            (result_page(1) + result_more::ENTRY, 6_200),
            (result_page(1) + result_more::LONGEST, 700_000),
            (result_page(1) + result_more::LONGEST_END, 901_000),
        ] {
            write_word(&memory, at, value).unwrap();
        }
        let trace = Trace {
            names: vec!["a".to_string()],
            vcpus: vec![
                vcpu(
                    0,
                    100,
                    &[
                        (100, What::Running),
                        (800_000, What::Kicks(1)),
                        (2_000_000, What::Ended),
                    ],
                ),
                vcpu(
                    1,
                    150,
                    &[
                        (150, What::Running),
                        (300_000, What::Halted),
                        (890_000, What::Running),
                        (2_000_000, What::Ended),
                    ],
                ),
            ],
        };
        (trace, memory)
    }

    #[test]
    fn a_wait_its_holders_and_its_kick() {
        let key = sample::dataset().timelines[1].key;
        let (trace, memory) = guest();
        let timeline = around_worst_wait(&key, &trace, &[Arc::new(memory)], 1e9).unwrap();
        // 700 µs and a quarter, a tenth of that behind its end at 900,000.
        assert_eq!(timeline.length, 875_000);
        let wait = (timeline.wait.track, timeline.wait.from, timeline.wait.to);
        assert_eq!(wait, (1, 87_500, 787_500));
        let holds: Vec<_> = timeline
            .holds
            .iter()
            .map(|h| (h.track, h.due, h.from, h.to))
            .collect();
        assert_eq!(
            holds,
            [
                (0, 487_500, 487_500, 687_500),
                (1, 687_500, 787_500, 837_500)
            ]
        );
        let spans = &timeline.tracks[1].spans;
        let spans: Vec<_> = spans.iter().map(|s| (s.from, s.to, s.doing)).collect();
        assert_eq!(
            spans,
            [
                (0, 187_500, Doing::Running),
                (187_500, 687_500, Doing::Halted),
                (687_500, 777_500, Doing::Waiting),
                (777_500, 875_000, Doing::Running),
            ]
        );
        let (kick, _) = timeline.ending_kick().unwrap();
        assert_eq!((kick.at, kick.from, kick.to), (687_500, 0, 1));
    }

    #[test]
    fn no_memory_and_no_wait_are_no_timeline() {
        let key = sample::dataset().timelines[1].key;
        let (trace, memory) = guest();
        assert!(around_worst_wait(&key, &trace, &[], 1e9).is_none());
        write_word(&memory, result_page(1) + result_more::LONGEST, 0).unwrap();
        assert!(around_worst_wait(&key, &trace, &[Arc::new(memory)], 1e9).is_none());
    }
}
