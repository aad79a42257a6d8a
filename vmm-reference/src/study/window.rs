//! The part of a trace around the worst wait for a lock.
//!
//! The guest tells when its longest wait ended, by its own clock. Each vCPU
//! also notes the time at which its program began, which is when its thread
//! first went into the guest, or a little later: the least difference between
//! the two is that of the clocks.

use std::sync::Arc;

use super::dataset::timeline::{Doing, Kick, Span, Track, Wait};
use super::dataset::{CellKey, Timeline};
use crate::memory::{GuestMemory, read_word};
use crate::payload::image::result_page;
use crate::payload::waiters::layout::result_more;
use crate::trace::spans::{State, kicks, states};
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
    let ns = |ticks: u64| ticks as f64 / clock_hz * 1e9;
    // (how long, when it ended, whose), by the trace's clock.
    let mut worst: Option<(f64, f64, usize)> = None;
    for (index, vcpu) in trace.vcpus.iter().enumerate() {
        let memory = memories.get(vcpu.vm as usize)?;
        let word = |vcpu: &VcpuTrace, offset| {
            read_word(memory, result_page(vcpu.vcpu) + offset).map_or(0.0, ns)
        };
        let siblings = trace.vcpus.iter().filter(|other| other.vm == vcpu.vm);
        let ahead = siblings
            .map(|other| word(other, result_more::ENTRY) - other.began as f64)
            .fold(f64::INFINITY, f64::min);
        let (wait, end) = (
            word(vcpu, result_more::LONGEST),
            word(vcpu, result_more::LONGEST_END) - ahead,
        );
        if worst.is_none_or(|(longest, ..)| wait > longest) {
            worst = Some((wait, end, index));
        }
    }
    let (wait, end, track) = worst.filter(|&(wait, end, _)| wait > 0.0 && end >= wait)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "both are positive times of a run of seconds; `as` saturates"
    )]
    let (wait, end) = (wait as u64, end as u64);
    let mut length = (wait + wait / 4).clamp(SHORTEST, LONGEST);
    let all = kicks(&trace.vcpus);
    loop {
        // A tenth of it lies behind the wait's end.
        let to = end + length / 10;
        let from = to.saturating_sub(length);
        let timeline = cut(key, trace, &all, (from, to), (track, wait, end));
        let spans = timeline.tracks.iter().map(|track| track.spans.len());
        if spans.sum::<usize>() + timeline.kicks.len() <= CROWDED || length <= SHORTEST / 16 {
            return Some(timeline);
        }
        // Its end is what tells.
        length = length * 2 / 3;
    }
}

fn cut(
    key: &CellKey,
    trace: &Trace,
    all: &[crate::trace::spans::Kick],
    (from, to): (u64, u64),
    (track, wait, end): (usize, u64, u64),
) -> Timeline {
    let after = |at: u64| {
        let at = i64::try_from(at).unwrap_or(i64::MAX);
        at - i64::try_from(from).unwrap_or(i64::MAX)
    };
    let inside = |at: u64| (from..to).contains(&at);
    Timeline {
        key: *key,
        length: to - from,
        wait: Wait {
            track,
            from: after(end.saturating_sub(wait)),
            to: after(end),
        },
        tracks: trace.vcpus.iter().map(|vcpu| row(vcpu, from, to)).collect(),
        kicks: all
            .iter()
            .filter(|kick| inside(kick.at))
            .map(|kick| Kick {
                at: kick.at - from,
                from: kick.from,
                to: kick.to,
            })
            .collect(),
    }
}

fn row(vcpu: &VcpuTrace, from: u64, to: u64) -> Track {
    let spans = states(vcpu).into_iter().filter_map(|span| {
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
