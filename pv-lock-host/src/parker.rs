//! The half that a vCPU's own thread holds: what it is called for. How it sleeps
//! is in `sleeping`, how it is held in `holding`.

mod holding;
mod sleeping;

use alloc::sync::Arc;

use crate::apic_id::ApicId;
use crate::convoy::Link;
use crate::outcome::{Interruption, KickOutcome, Resumed, WakeReason};
use crate::platform::{DefaultPlatform, Platform};
use crate::polling::Window;
use crate::shared::Shared;
use crate::slot::Slot;
use crate::state::{Action, Event, State};

/// Puts one vCPU's thread to sleep while its guest is halted.
///
/// Methods that may sleep take `&mut self`: a vCPU has one halt at a time.
/// Dropping it detaches the vCPU
/// ([`HaltScheduler::attach`](crate::HaltScheduler::attach) gives it to another
/// thread); kicks go on being latched.
///
/// ```
/// use pv_lock_host::{ApicId, HaltScheduler, WakeReason};
///
/// let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0), ApicId(1)])?;
/// let (mut b, mut a) = (parkers.remove(1), parkers.remove(0));
/// let thread = std::thread::spawn(move || b.halt()); // b's guest: HLT
/// a.kick_by_guest(ApicId(1)); // a's guest: KVM_HC_KICK_CPU
/// assert_eq!(thread.join().unwrap(), WakeReason::Kicked);
/// # Ok::<(), pv_lock_host::BuildError>(())
/// ```
#[derive(Debug)]
pub struct VcpuParker<P: Platform = DefaultPlatform> {
    shared: Arc<Shared<P>>,
    index: usize,
    window: Window,
    link: Link,
    /// The next [`VcpuParker::enter`] is to hold this vCPU back.
    steps_back: bool,
    /// The last vCPU that its guest kicked, if they halt elsewhere.
    kicked: Option<usize>,
}

impl<P: Platform> VcpuParker<P> {
    pub(crate) fn new(shared: Arc<Shared<P>>, index: usize, window: Window) -> Self {
        Self {
            shared,
            index,
            window,
            link: Link::default(),
            steps_back: false,
            kicked: None,
        }
    }

    #[inline]
    fn slot(&self) -> &Slot<P> {
        self.shared.slot(self.index)
    }

    /// The APIC ID of this parker's vCPU.
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler};
    /// let (_scheduler, parkers) = HaltScheduler::new(&[ApicId(4)])?;
    /// assert_eq!(parkers[0].apic_id(), ApicId(4));
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    pub fn apic_id(&self) -> ApicId {
        self.slot().apic_id()
    }

    /// To be called right before each run of the guest: if this vCPU takes part
    /// in a lock convoy ([`Yielding::Hold`](crate::Yielding::Hold)) it may be
    /// held back here for a while, which an interrupt, a pause or a stop ends at
    /// once. One relaxed load and a branch otherwise.
    ///
    /// # Errors
    /// The guest must not run now: the VM is paused or stopped, or this vCPU is
    /// to come out.
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler, Interruption};
    /// let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// scheduler.kicker().pause_all();
    /// assert_eq!(parkers[0].enter(), Err(Interruption::Paused));
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    #[inline]
    pub fn enter(&mut self) -> Result<(), Interruption> {
        self.enter_unless(|| false)
    }

    /// [`VcpuParker::enter`] for a vCPU that halts elsewhere
    /// ([`SchedulerBuilder::halts_elsewhere`](crate::SchedulerBuilder::halts_elsewhere)),
    /// and whose interrupts this crate does not see therefore. `interrupted` says
    /// whether one waits for it. It is asked when the vCPU is to be held, which it is
    /// not if one waits, and every 4 ms (about a time slice of the host) while it is
    /// held: one that came meanwhile ends the hold.
    ///
    /// # Errors
    /// As [`VcpuParker::enter`].
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use pv_lock_host::{ApicId, HaltScheduler};
    /// let builder = HaltScheduler::builder().halts_elsewhere(Arc::new(|| 0));
    /// let (_scheduler, mut parkers) = builder.build(&[ApicId(0)])?;
    /// // With KVM: whether a bit of the IRR is set, by KVM_GET_LAPIC.
    /// assert_eq!(parkers[0].enter_unless(|| false), Ok(()));
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    #[inline]
    pub fn enter_unless(&mut self, interrupted: impl FnMut() -> bool) -> Result<(), Interruption> {
        if self.enters_plainly() {
            return Ok(());
        }
        self.enter_slowly(|| None, interrupted)
    }

    /// [`VcpuParker::enter`] for a vCPU whose interrupts come from this process, a
    /// local APIC's timer among them: if it is to be held, `due` is asked when the
    /// next interrupt is due, in ns on the clock of [`Platform::now`]. A hold ends
    /// by then, and there is none if that has passed: answer 0 if one waits.
    ///
    /// What is announced by [`Kicker::notify`](crate::Kicker::notify) after `due`
    /// looked ends the hold too, so that nothing is missed.
    ///
    /// # Errors
    /// As [`VcpuParker::enter`].
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler, Linux, Platform};
    /// let (_scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// // The guest's timer expires in a millisecond.
    /// let timer = Linux::now() + 1_000_000;
    /// assert_eq!(parkers[0].enter_until_ns(|| Some(timer)), Ok(()));
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    #[inline]
    pub fn enter_until_ns(&mut self, due: impl FnMut() -> Option<u64>) -> Result<(), Interruption> {
        if self.enters_plainly() {
            return Ok(());
        }
        self.enter_slowly(due, || false)
    }

    #[inline]
    fn enters_plainly(&self) -> bool {
        let plain = !self
            .slot()
            .peek()
            // HELD: by a hold that a panic of the caller's own closure has ended.
            .has(State::REFUSED | State::AWAY | State::HALTED | State::HELD);
        plain && !self.steps_back
    }

    #[cold]
    fn enter_slowly(
        &mut self,
        mut due: impl FnMut() -> Option<u64>,
        mut interrupted: impl FnMut() -> bool,
    ) -> Result<(), Interruption> {
        loop {
            let (before, after, action) = self.slot().apply(Event::Enter);
            self.shared.load.account(before, after);
            if let Action::Refuse(why) = action {
                return Err(why);
            }
            if before.has(State::AWAY) && self.shared.convoy.is_some() {
                self.slot().note_place();
            }
            let steps_back = core::mem::take(&mut self.steps_back);
            if !steps_back || !self.hold(&mut due, &mut interrupted) {
                return Ok(());
            }
        }
    }

    /// HLT: sleeps until a reason to go on, or returns at once if there is one.
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler, WakeReason};
    /// let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// scheduler.kicker().kick_by_host(ApicId(0));
    /// assert_eq!(parkers[0].halt(), WakeReason::Kicked);
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    #[inline]
    pub fn halt(&mut self) -> WakeReason {
        self.halt_for(None)
    }

    /// [`VcpuParker::halt`], but not beyond `deadline`, in ns on the clock of
    /// [`Platform::now`].
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler, Linux, Platform, WakeReason};
    /// let (_scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// let timer = Linux::now() + 50_000;
    /// assert_eq!(parkers[0].halt_until_ns(timer), WakeReason::TimedOut);
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    #[inline]
    pub fn halt_until_ns(&mut self, deadline: u64) -> WakeReason {
        self.halt_for(Some(deadline))
    }

    #[inline]
    fn halt_for(&mut self, deadline: Option<u64>) -> WakeReason {
        let shared = &*self.shared;
        let slot = shared.slot(self.index);
        self.steps_back = false;
        let mut poll_ns = match self.window.begin() {
            ns if ns > 0 && !shared.load.crowded() => ns,
            _ => 0,
        };
        // [6] The pCPU would idle: this thread uses it to look for its kick.
        if let Some(convoy) = &shared.convoy
            && shared.load.would_idle()
        {
            poll_ns = poll_ns.max(convoy.poll_ns());
        }
        let first = if poll_ns > 0 {
            Event::Poll
        } else {
            Event::Park
        };
        let (before, state, action) = slot.apply(first);
        shared.load.account(before, state);
        let reason = match action {
            Action::Leave(reason) => reason,
            _ => self.wait(state, deadline, poll_ns),
        };
        if self.shared.counting {
            self.slot().own_counters().count(reason);
        }
        reason
    }

    /// Whether the guest must not run now; what [`VcpuParker::enter`] would
    /// return, without consuming it. One relaxed load.
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler, Interruption};
    /// let (scheduler, parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// assert_eq!(parkers[0].pending(), None);
    /// scheduler.kicker().stop_all();
    /// assert_eq!(parkers[0].pending(), Some(Interruption::Stopped));
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    #[inline]
    pub fn pending(&self) -> Option<Interruption> {
        let state = self.slot().peek();
        if state.has(State::STOP) {
            Some(Interruption::Stopped)
        } else if state.has(State::PAUSE) {
            Some(Interruption::Paused)
        } else if state.has(State::INTERRUPT) {
            Some(Interruption::Interrupted)
        } else {
            None
        }
    }

    /// Sleeps while the VM is paused. From its first look on, and until it
    /// returns, the vCPU is at rest
    /// ([`HaltScheduler::is_quiescent`](crate::HaltScheduler::is_quiescent)).
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler, Resumed};
    /// let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// let kicker = scheduler.kicker();
    /// kicker.pause_all();
    /// let mut vcpu = parkers.remove(0);
    /// let thread = std::thread::spawn(move || vcpu.wait_resumed());
    /// kicker.resume_all();
    /// assert_eq!(thread.join().unwrap(), Resumed::Running);
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    pub fn wait_resumed(&mut self) -> Resumed {
        let shared = &*self.shared;
        let slot = shared.slot(self.index);
        self.steps_back = false;
        loop {
            let (before, state, action) = slot.apply(Event::AwaitResume);
            shared.load.account(before, state);
            if let Action::Resume(resumed) = action {
                return resumed;
            }
            slot.sleep(state, None);
        }
    }

    /// For a VMM with nothing of its own to do in a pause: sleeps through it if
    /// that is the `reason`, and halts again if the vCPU was halted. Says
    /// whether to go on; if not, the VM was stopped.
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler, WakeReason};
    /// let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// assert!(parkers[0].go_on(WakeReason::Event));
    /// scheduler.kicker().stop_all();
    /// assert!(!parkers[0].go_on(WakeReason::Paused));
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    #[must_use = "false: the VM was stopped"]
    pub fn go_on(&mut self, reason: impl Into<WakeReason>) -> bool {
        let mut reason = reason.into();
        loop {
            match reason {
                WakeReason::Stopped => return false,
                WakeReason::Paused => match self.wait_resumed() {
                    Resumed::Running => return true,
                    Resumed::Halted => reason = self.halt(),
                    Resumed::Stopped => return false,
                },
                WakeReason::Interrupted if self.is_halted() => reason = self.halt(),
                WakeReason::Interrupted
                | WakeReason::Kicked
                | WakeReason::Event
                | WakeReason::TimedOut => return true,
            }
        }
    }

    /// Whether the vCPU is halted: after a restore, a pause or an interruption,
    /// halt again instead of running it.
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler, WakeReason};
    /// let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// scheduler.kicker().interrupt(ApicId(0));
    /// assert_eq!(parkers[0].halt(), WakeReason::Interrupted);
    /// assert!(parkers[0].is_halted());
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    pub fn is_halted(&self) -> bool {
        self.slot().peek().has(State::HALTED)
    }

    /// Clears a latched event; to be called before the interrupt controller is
    /// read for something to inject, so that an announcement after the reading
    /// is not lost and one before it does not end a halt for nothing.
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler};
    /// let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// scheduler.kicker().notify(ApicId(0));
    /// assert!(parkers[0].take_event());
    /// assert!(!parkers[0].take_event());
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    #[inline]
    pub fn take_event(&mut self) -> bool {
        let slot = self.slot();
        slot.peek().has(State::EVENT) && slot.apply(Event::Acknowledge).0.has(State::EVENT)
    }

    /// `KVM_HC_KICK_CPU` by this vCPU's guest: ends the halt of the vCPU with
    /// this APIC ID, or its next one, and does for it what the policy says
    /// ([`Yielding`](crate::Yielding)). The guest is to be answered 0, whatever
    /// this returns. From other threads: [`Kicker::kick_by_host`].
    ///
    /// [`Kicker::kick_by_host`]: crate::Kicker::kick_by_host
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler, KickOutcome};
    /// let (_scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0), ApicId(1)])?;
    /// assert_eq!(parkers[0].kick_by_guest(ApicId(1)), KickOutcome::Latched);
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    #[inline]
    pub fn kick_by_guest(&mut self, id: ApicId) -> KickOutcome {
        let shared = &*self.shared;
        let Some(index) = shared.table.get(id) else {
            return shared.no_such_vcpu();
        };
        let slot = shared.slot(index);
        let signalled = slot.kick();
        let outcome = signalled.outcome;
        if outcome == KickOutcome::Woke {
            // Before the wake, after which the target forgets it.
            let since = slot.since();
            shared.follow(slot, signalled);
            if let Some(convoy) = &shared.convoy
                && self.link.watches_kicks()
            {
                let since = (since != 0).then_some(since);
                self.steps_back = self.link.kicks(convoy, since, P::now());
            }
            if shared.sched_yield && shared.load.crowded() {
                P::yield_now();
            }
        } else {
            shared.follow(slot, signalled);
        }
        shared.count_kick(slot, outcome);
        outcome
    }

    /// `KVM_HC_KICK_CPU` by this vCPU's guest, in a VM whose vCPUs halt
    /// elsewhere
    /// ([`SchedulerBuilder::halts_elsewhere`](crate::SchedulerBuilder::halts_elsewhere)):
    /// `deliver` kicks the vCPU there and says whether it reached one. What
    /// follows is as for [`VcpuParker::kick_by_guest`]. Returns what `deliver`
    /// returned.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use pv_lock_host::{ApicId, HaltScheduler};
    /// let builder = HaltScheduler::builder().halts_elsewhere(Arc::new(|| 0));
    /// let (_scheduler, mut parkers) = builder.build(&[ApicId(0), ApicId(1)])?;
    /// // With KVM: `|| kvm_kick.kick(ApicId(1)).unwrap_or(false)`.
    /// assert!(parkers[0].kick_elsewhere(ApicId(1), || true));
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    pub fn kick_elsewhere(&mut self, id: ApicId, deliver: impl FnOnce() -> bool) -> bool {
        let shared = &*self.shared;
        let reached = deliver();
        let Some(index) = shared.table.get(id) else {
            shared.no_such_vcpu();
            return reached;
        };
        if let Some(convoy) = shared.convoy.as_ref().filter(|_| reached) {
            let now = P::now();
            if let Some(at) = self.slot().kicks.take_kicked_at() {
                self.link.woke(true, at);
            }
            // As in `kick_by_guest`, a second kick takes nothing back.
            self.steps_back |= self.link.kicks(convoy, None, now);
            shared.slot(index).kicks.note_kicked_at(now);
            self.kicked = Some(index);
            self.slot().note_place();
        }
        if shared.sched_yield && reached && shared.load.crowded() {
            P::yield_now();
        }
        reached
    }

    /// The thread is about to block, or work for long, in something that is
    /// neither its guest nor this crate (device emulation): until the next
    /// [`VcpuParker::enter`] or halt this vCPU does not count as wanting a pCPU,
    /// and a pause need not wait for it.
    ///
    /// ```
    /// # use pv_lock_host::{ApicId, HaltScheduler};
    /// let (scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// parkers[0].enter().unwrap();
    /// parkers[0].leave();
    /// scheduler.kicker().pause_all();
    /// assert!(scheduler.is_quiescent());
    /// assert!(parkers[0].enter().is_err()); // paused: wait_resumed
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    pub fn leave(&mut self) {
        self.steps_back = false;
        self.go_away(Event::Leave);
    }

    fn go_away(&self, event: Event) {
        let shared = &*self.shared;
        let (before, after, _) = self.slot().apply(event);
        shared.load.account(before, after);
        if let Some(convoy) = &shared.convoy
            && shared.load.idles(shared.load.counts())
        {
            shared.release_one(convoy);
        }
    }
}

impl<P: Platform> Drop for VcpuParker<P> {
    fn drop(&mut self) {
        self.go_away(Event::Detach);
    }
}

#[cfg(feature = "std")]
impl VcpuParker {
    /// [`VcpuParker::halt`], but not beyond `deadline` (a guest timer).
    ///
    /// ```
    /// # use std::time::{Duration, Instant};
    /// # use pv_lock_host::{ApicId, HaltScheduler, WakeReason};
    /// let (_scheduler, mut parkers) = HaltScheduler::new(&[ApicId(0)])?;
    /// let timer = Instant::now() + Duration::from_micros(50);
    /// assert_eq!(parkers[0].halt_until(timer), WakeReason::TimedOut);
    /// # Ok::<(), pv_lock_host::BuildError>(())
    /// ```
    #[inline]
    pub fn halt_until(&mut self, deadline: std::time::Instant) -> WakeReason {
        self.halt_for(Some(crate::linux::deadline(deadline)))
    }
}
