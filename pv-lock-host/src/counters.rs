//! What has happened so far, per vCPU.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::apic_id::ApicId;
use crate::histogram::{Histogram, LiveHistogram, add_owned};
use crate::outcome::{KickOutcome, WakeReason};

/// One vCPU's counters. They are read one by one while the VM runs, so two of
/// them may be a halt apart; each by itself is exact.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct VcpuCounters {
    /// Whose.
    pub apic_id: ApicId,
    /// Halts, however they ended; one that a pause interrupted counts again
    /// when it is taken up.
    pub halts: u64,
    /// Halts for which a kick was latched when they began, or came.
    pub halts_kicked: u64,
    /// Halts that an event ended.
    pub halts_event: u64,
    /// Halts that their deadline ended.
    pub halts_timed_out: u64,
    /// Halts during which the thread slept.
    pub sleeps: u64,
    /// Returns from the futex with no reason to go on.
    pub spurious_wakes: u64,
    /// Polls that ended the halt without a sleep.
    pub polls_won: u64,
    /// Polls that were followed by a sleep.
    pub polls_lost: u64,
    /// Kicks that woke this vCPU.
    pub kicks_woke: u64,
    /// Kicks that were latched for later.
    pub kicks_latched: u64,
    /// Kicks that were one with an earlier one.
    pub kicks_already_latched: u64,
    /// How long the halts took that did not return at once; of every eighth.
    pub halt_time: Histogram,
    /// From the kick (or notification) that woke a sleeping vCPU to its thread
    /// leaving the halt; of every eighth sleep.
    pub kick_to_run: Histogram,
}

impl VcpuCounters {
    pub(crate) fn new(apic_id: ApicId) -> Self {
        Self {
            apic_id,
            halts: 0,
            halts_kicked: 0,
            halts_event: 0,
            halts_timed_out: 0,
            sleeps: 0,
            spurious_wakes: 0,
            polls_won: 0,
            polls_lost: 0,
            kicks_woke: 0,
            kicks_latched: 0,
            kicks_already_latched: 0,
            halt_time: Histogram::default(),
            kick_to_run: Histogram::default(),
        }
    }

    /// Kicks, whatever they did.
    pub fn kicks(&self) -> u64 {
        self.kicks_woke + self.kicks_latched + self.kicks_already_latched
    }

    fn add(&mut self, other: &Self) {
        self.halts += other.halts;
        self.halts_kicked += other.halts_kicked;
        self.halts_event += other.halts_event;
        self.halts_timed_out += other.halts_timed_out;
        self.sleeps += other.sleeps;
        self.spurious_wakes += other.spurious_wakes;
        self.polls_won += other.polls_won;
        self.polls_lost += other.polls_lost;
        self.kicks_woke += other.kicks_woke;
        self.kicks_latched += other.kicks_latched;
        self.kicks_already_latched += other.kicks_already_latched;
        self.halt_time.merge(&other.halt_time);
        self.kick_to_run.merge(&other.kick_to_run);
    }
}

/// A VM's counters.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Counters {
    /// In the order of the ids that the scheduler was built with.
    pub vcpus: Vec<VcpuCounters>,
    /// Kicks and notifications for ids that no vCPU has.
    pub no_such_vcpu: u64,
}

impl Counters {
    /// The sum over all vCPUs, under the first one's id.
    pub fn total(&self) -> VcpuCounters {
        let mut vcpus = self.vcpus.iter();
        let mut sum = *vcpus.next().unwrap_or(&VcpuCounters::new(ApicId(0)));
        for vcpu in vcpus {
            sum.add(vcpu);
        }
        sum
    }
}

/// One sleep in this many is timed: a sleep and its wake-up take three looks at
/// the clock, a few percent of a hand-over. The first one is.
const TIMED: u64 = 8;

/// Nobody has woken the sleeper, and whoever does is to say when.
const ASKED: u64 = 0;
/// Nobody wants to know.
const NOT_ASKED: u64 = u64::MAX;

/// What kickers count in the slot they have just written to.
#[derive(Debug)]
pub(crate) struct KickCounters {
    woke: AtomicU64,
    latched: AtomicU64,
    already: AtomicU64,
    /// When the sleeper was woken, in ns since the scheduler was made; or one of
    /// the two below.
    woken_at: AtomicU64,
}

impl KickCounters {
    pub(crate) const fn new() -> Self {
        Self {
            woke: AtomicU64::new(0),
            latched: AtomicU64::new(0),
            already: AtomicU64::new(0),
            woken_at: AtomicU64::new(NOT_ASKED),
        }
    }

    #[inline]
    pub(crate) fn count(&self, outcome: KickOutcome) {
        let cell = match outcome {
            KickOutcome::Woke => &self.woke,
            KickOutcome::Latched => &self.latched,
            KickOutcome::AlreadyLatched => &self.already,
            KickOutcome::NoSuchVcpu => return,
        };
        // Relaxed: a statistic. An RMW, for there are many kickers.
        cell.fetch_add(1, Relaxed);
    }

    /// Owner: whether the wake-up of the sleep that begins now is to be timed.
    /// All of `woken_at` is Relaxed: at worst a stale answer, and one sample
    /// less.
    pub(crate) fn time_next_wake(&self, asked: bool) {
        self.woken_at
            .store(if asked { ASKED } else { NOT_ASKED }, Relaxed);
    }

    /// Kicker: is about to wake the sleeper.
    pub(crate) fn stamp(&self, now: impl FnOnce() -> u64) {
        if self.woken_at.load(Relaxed) == ASKED {
            self.woken_at.store(now(), Relaxed);
        }
    }

    /// Owner: when it was woken, if someone said so after `began`.
    pub(crate) fn woken_at(&self, began: u64) -> Option<u64> {
        Some(self.woken_at.load(Relaxed)).filter(|&at| at > began && at != NOT_ASKED)
    }

    pub(crate) fn read_into(&self, to: &mut VcpuCounters) {
        to.kicks_woke = self.woke.load(Relaxed);
        to.kicks_latched = self.latched.load(Relaxed);
        to.kicks_already_latched = self.already.load(Relaxed);
    }
}

/// What the owner counts, in memory that its own thread allocates.
#[derive(Debug)]
pub(crate) struct HaltCounters {
    halts: AtomicU64,
    kicked: AtomicU64,
    event: AtomicU64,
    timed_out: AtomicU64,
    sleeps: AtomicU64,
    spurious: AtomicU64,
    polls_won: AtomicU64,
    polls_lost: AtomicU64,
    pub(crate) halt_time: LiveHistogram,
    pub(crate) kick_to_run: LiveHistogram,
}

impl HaltCounters {
    pub(crate) const fn new() -> Self {
        Self {
            halts: AtomicU64::new(0),
            kicked: AtomicU64::new(0),
            event: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
            sleeps: AtomicU64::new(0),
            spurious: AtomicU64::new(0),
            polls_won: AtomicU64::new(0),
            polls_lost: AtomicU64::new(0),
            halt_time: LiveHistogram::new(),
            kick_to_run: LiveHistogram::new(),
        }
    }

    #[inline]
    pub(crate) fn count(&self, reason: WakeReason) {
        add_owned(&self.halts, 1);
        match reason {
            WakeReason::Kicked => add_owned(&self.kicked, 1),
            WakeReason::Event => add_owned(&self.event, 1),
            WakeReason::TimedOut => add_owned(&self.timed_out, 1),
            WakeReason::Paused | WakeReason::Stopped => {}
        }
    }

    /// Whether the wait that begins now is one of those that are timed.
    pub(crate) fn times_this_one(&self) -> bool {
        let waits = self.sleeps.load(Relaxed) + self.polls_won.load(Relaxed);
        waits.is_multiple_of(TIMED)
    }

    pub(crate) fn count_sleep(&self) {
        add_owned(&self.sleeps, 1);
    }

    pub(crate) fn count_spurious(&self) {
        add_owned(&self.spurious, 1);
    }

    pub(crate) fn count_poll(&self, won: bool) {
        add_owned(
            if won {
                &self.polls_won
            } else {
                &self.polls_lost
            },
            1,
        );
    }

    pub(crate) fn read_into(&self, to: &mut VcpuCounters) {
        to.halts = self.halts.load(Relaxed);
        to.halts_kicked = self.kicked.load(Relaxed);
        to.halts_event = self.event.load(Relaxed);
        to.halts_timed_out = self.timed_out.load(Relaxed);
        to.sleeps = self.sleeps.load(Relaxed);
        to.spurious_wakes = self.spurious.load(Relaxed);
        to.polls_won = self.polls_won.load(Relaxed);
        to.polls_lost = self.polls_lost.load(Relaxed);
        to.halt_time = self.halt_time.snapshot();
        to.kick_to_run = self.kick_to_run.snapshot();
    }
}
