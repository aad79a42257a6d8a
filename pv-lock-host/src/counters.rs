//! What has happened so far, per vCPU.

use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use crate::apic_id::ApicId;
use crate::histogram::{Histogram, LiveHistogram, add_owned};
use crate::outcome::{KickOutcome, WakeReason};

/// One vCPU's counters. They are read one by one while the VM runs, so two of
/// them may be a halt apart; each by itself is exact.
///
/// ```
/// use pv_lock_host::{ApicId, HaltScheduler, WakeReason};
///
/// let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
/// let kicker = scheduler.kicker();
/// kicker.kick_by_host(ApicId(0));
/// kicker.kick_by_host(ApicId(0)); // one with the first
/// assert_eq!(parkers[0].halt(), WakeReason::Kicked);
/// let vcpu = scheduler.vcpu_counters(ApicId(0)).unwrap();
/// assert_eq!((vcpu.halts, vcpu.halts_kicked, vcpu.sleeps), (1, 1, 0));
/// assert_eq!((vcpu.kicks(), vcpu.kicks_already_latched), (2, 1));
/// # Ok::<(), pv_lock_host::BuildError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct VcpuCounters {
    /// The vCPU that was counted.
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
    /// Holds by the convoy rule, however they ended.
    pub holds: u64,
    /// Holds that ended because it was this vCPU's turn.
    pub holds_turn: u64,
    /// Holds that ended because a pCPU would have idled.
    pub holds_idle: u64,
    /// Holds that an event, a pause or a stop ended.
    pub holds_event: u64,
    /// How long this vCPU was held, in ns. It could have run in that time: a VMM
    /// that tells its guest of stolen time adds it to the thread's run delay.
    pub held_ns: u64,
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
    /// How long the holds took; all of them.
    pub hold_time: Histogram,
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
            holds: 0,
            holds_turn: 0,
            holds_idle: 0,
            holds_event: 0,
            held_ns: 0,
            kicks_woke: 0,
            kicks_latched: 0,
            kicks_already_latched: 0,
            halt_time: Histogram::default(),
            kick_to_run: Histogram::default(),
            hold_time: Histogram::default(),
        }
    }

    /// All kicks of this vCPU, whatever they did.
    pub fn kicks(&self) -> u64 {
        (self.kicks_woke)
            .saturating_add(self.kicks_latched)
            .saturating_add(self.kicks_already_latched)
    }

    fn add(&mut self, other: &Self) {
        // Saturating: these may have been read from a file.
        let add = |sum: &mut u64, n: u64| *sum = sum.saturating_add(n);
        add(&mut self.halts, other.halts);
        add(&mut self.halts_kicked, other.halts_kicked);
        add(&mut self.halts_event, other.halts_event);
        add(&mut self.halts_timed_out, other.halts_timed_out);
        add(&mut self.sleeps, other.sleeps);
        add(&mut self.spurious_wakes, other.spurious_wakes);
        add(&mut self.polls_won, other.polls_won);
        add(&mut self.polls_lost, other.polls_lost);
        add(&mut self.holds, other.holds);
        add(&mut self.holds_turn, other.holds_turn);
        add(&mut self.holds_idle, other.holds_idle);
        add(&mut self.holds_event, other.holds_event);
        add(&mut self.held_ns, other.held_ns);
        add(&mut self.kicks_woke, other.kicks_woke);
        add(&mut self.kicks_latched, other.kicks_latched);
        add(&mut self.kicks_already_latched, other.kicks_already_latched);
        self.halt_time.merge(&other.halt_time);
        self.kick_to_run.merge(&other.kick_to_run);
        self.hold_time.merge(&other.hold_time);
    }
}

/// A VM's counters.
///
/// ```
/// use pv_lock_host::{ApicId, HaltScheduler};
///
/// let (scheduler, _parkers) = HaltScheduler::new(&[ApicId(0), ApicId(1)])?;
/// scheduler.kicker().kick_by_host(ApicId(1));
/// scheduler.kicker().kick_by_host(ApicId(9)); // nobody has this id
/// let counters = scheduler.counters();
/// assert_eq!(counters.vcpus[1].kicks(), 1);
/// assert_eq!((counters.total().kicks(), counters.no_such_vcpu), (1, 1));
/// # Ok::<(), pv_lock_host::BuildError>(())
/// ```
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

/// Why a hold ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HoldEnd {
    /// It was this vCPU's turn.
    Turn,
    /// A pCPU would have idled.
    Idle,
    /// An event, a pause, a stop or an interruption.
    Event,
}

/// What kickers count, in a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct KickCounters {
    woke: AtomicU64,
    latched: AtomicU64,
    already: AtomicU64,
    /// When the sleeper was woken, in ns of the platform's clock; or one of the
    /// two above.
    woken_at: AtomicU64,
    /// When this vCPU was last kicked out of a halt elsewhere, if it has kicked
    /// nobody since; zero: it has.
    kicked_at: AtomicU64,
}

impl KickCounters {
    pub(crate) const fn new() -> Self {
        Self {
            woke: AtomicU64::new(0),
            latched: AtomicU64::new(0),
            already: AtomicU64::new(0),
            woken_at: AtomicU64::new(NOT_ASKED),
            kicked_at: AtomicU64::new(0),
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

    /// Kicker: has kicked this vCPU, which halts elsewhere.
    pub(crate) fn note_kicked_at(&self, now: u64) {
        // Relaxed, here and below: a time, which publishes nothing.
        self.kicked_at.store(now, Relaxed);
    }

    /// Owner: when it was kicked since it last asked.
    pub(crate) fn take_kicked_at(&self) -> Option<u64> {
        Some(self.kicked_at.swap(0, Relaxed)).filter(|&at| at != 0)
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

/// What the owner counts, halts and holds, in memory that its own thread
/// allocates.
#[derive(Debug)]
pub(crate) struct OwnCounters {
    halts: AtomicU64,
    kicked: AtomicU64,
    event: AtomicU64,
    timed_out: AtomicU64,
    sleeps: AtomicU64,
    spurious: AtomicU64,
    polls_won: AtomicU64,
    polls_lost: AtomicU64,
    holds: AtomicU64,
    holds_turn: AtomicU64,
    holds_idle: AtomicU64,
    holds_event: AtomicU64,
    held_ns: AtomicU64,
    hold_time: LiveHistogram,
    pub(crate) halt_time: LiveHistogram,
    pub(crate) kick_to_run: LiveHistogram,
}

impl OwnCounters {
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
            holds: AtomicU64::new(0),
            holds_turn: AtomicU64::new(0),
            holds_idle: AtomicU64::new(0),
            holds_event: AtomicU64::new(0),
            held_ns: AtomicU64::new(0),
            hold_time: LiveHistogram::new(),
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
            WakeReason::Paused | WakeReason::Interrupted | WakeReason::Stopped => {}
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

    pub(crate) fn count_hold(&self, end: HoldEnd, ns: u64) {
        add_owned(&self.holds, 1);
        add_owned(&self.held_ns, ns);
        self.hold_time.record(ns);
        let cell = match end {
            HoldEnd::Turn => &self.holds_turn,
            HoldEnd::Idle => &self.holds_idle,
            HoldEnd::Event => &self.holds_event,
        };
        add_owned(cell, 1);
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
        to.holds = self.holds.load(Relaxed);
        to.holds_turn = self.holds_turn.load(Relaxed);
        to.holds_idle = self.holds_idle.load(Relaxed);
        to.holds_event = self.holds_event.load(Relaxed);
        to.held_ns = self.held_ns.load(Relaxed);
        to.hold_time = self.hold_time.snapshot();
        to.halt_time = self.halt_time.snapshot();
        to.kick_to_run = self.kick_to_run.snapshot();
    }
}
