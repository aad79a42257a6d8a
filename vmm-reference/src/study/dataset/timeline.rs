//! The vCPUs around the worst wait for a lock.

use serde::{Deserialize, Serialize};

use super::CellKey;

/// What a vCPU does for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Doing {
    /// On a pCPU.
    Running,
    /// Ready to run, and no pCPU runs it.
    Waiting,
    /// Asleep in a halt.
    Halted,
    /// Held back by the scheduler.
    Held,
}

impl Doing {
    /// All, in the order of every legend.
    pub const ALL: [Self; 4] = [Self::Running, Self::Waiting, Self::Held, Self::Halted];

    /// For a legend.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "ready, without a pCPU",
            Self::Halted => "halted",
            Self::Held => "held by the scheduler",
        }
    }
}

/// A part of a vCPU's time. Times are in nanoseconds after the window's begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// When it begins, on the trace's clock.
    pub from: u64,
    /// End.
    pub to: u64,
    /// What it did.
    pub doing: Doing,
    /// The pCPU that ran it, where that is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pcpu: Option<u32>,
}

/// A vCPU's time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Track {
    /// Its VM.
    pub vm: u32,
    /// Its index there.
    pub vcpu: u32,
    /// What it did, in order, without overlap.
    pub spans: Vec<Span>,
}

/// A kick, from one track to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kick {
    /// Nanoseconds after the window's begin.
    pub at: u64,
    /// Index of the kicker's track.
    pub from: usize,
    /// Index of the kicked vCPU's track.
    pub to: usize,
}

/// Who had the lock for a while, and since when it was that vCPU's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Index of the track.
    pub track: usize,
    /// When the lock was given to it: the unlock before. As all times here in
    /// nanoseconds after the window's begin, and cut at the window's ends.
    pub due: u64,
    /// When it took the lock.
    pub from: u64,
    /// When it gave it away.
    pub to: u64,
}

/// The wait that the window is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wait {
    /// Index of the waiter's track.
    pub track: usize,
    /// Nanoseconds after the window's begin; negative: it began before.
    pub from: i64,
    /// Nanoseconds after the window's begin.
    pub to: i64,
}

/// A window of a cell's time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// The cell.
    pub key: CellKey,
    /// Nanoseconds.
    pub length: u64,
    /// The worst wait.
    pub wait: Wait,
    /// A line a vCPU.
    pub tracks: Vec<Track>,
    /// Kicks in the window.
    pub kicks: Vec<Kick>,
    /// Who had the lock, in order; none if that was not noted, or is not known any
    /// more.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub holds: Vec<Hold>,
}

impl Timeline {
    /// The pCPUs that ran something, ascending.
    pub fn pcpus(&self) -> Vec<u32> {
        let spans = self.tracks.iter().flat_map(|track| &track.spans);
        let mut cpus: Vec<u32> = spans.filter_map(|span| span.pcpu).collect();
        cpus.sort_unstable();
        cpus.dedup();
        cpus
    }

    /// Nanoseconds between two times that a track did `doing`.
    pub fn within(&self, track: usize, doing: Doing, from: u64, to: u64) -> u64 {
        let spans = self.tracks.get(track).map_or(&[][..], |t| &t.spans);
        let spans = spans.iter().filter(|span| span.doing == doing);
        let parts = spans.map(|s| s.to.min(to).saturating_sub(s.from.max(from)));
        parts.sum()
    }

    /// Nanoseconds that a track did `doing`.
    pub fn time(&self, track: usize, doing: Doing) -> u64 {
        self.within(track, doing, 0, u64::MAX)
    }

    /// The part of the worst wait that is in the window.
    pub fn wait_seen(&self) -> (u64, u64) {
        let inside = |at: i64| u64::try_from(at).unwrap_or(0).min(self.length);
        (inside(self.wait.from), inside(self.wait.to))
    }

    /// The kick that ended the last halt of the worst wait, with that halt's span;
    /// none if it did not end by one.
    pub fn ending_kick(&self) -> Option<(Kick, Span)> {
        let (from, to) = self.wait_seen();
        let track = self.tracks.get(self.wait.track)?;
        let of_wait =
            |span: &&Span| span.doing == Doing::Halted && span.from < to && span.to > from;
        let halt = *track.spans.iter().rev().find(of_wait)?;
        let of_halt =
            |kick: &&Kick| kick.to == self.wait.track && (halt.from..=halt.to).contains(&kick.at);
        let kick = self.kicks.iter().rev().find(of_halt)?;
        Some((*kick, halt))
    }
}
