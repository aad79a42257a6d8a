//! A vCPU's thread: run the guest, serve what it left for, and sleep in the
//! halt/kick scheduler while the guest is halted.
//!
//! ```text
//!              HLT                  pause
//!   Running ---------> Halted   any ------> Paused
//!      ^                 |                     |
//!      +-- kick, event --+      back <-- resume --+
//!
//!   stop, exit port, triple fault, error: any -> Finished
//! ```

use std::fmt;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hypercall_abi::{Enforcement, KVM_HC_KICK_CPU, RawHypercall, dispatch};
use pv_lock_host::{Interruption, Resumed, VcpuParker, WakeReason};
use rustix::thread::Pid;
use serde::{Deserialize, Serialize};

use crate::backend::registers::Registers;
use crate::backend::{BackendError, Exit, ExitRequest, SavedVcpu, VcpuBackend};
use crate::devices::{Bus, BusEvent};
use crate::hypercall::Calls;
use crate::interrupts::{Readiness, SavedApic, VcpuApic, WhileHalted};
use crate::signals::TimerTarget;
use crate::trace::{Recorder, What};

/// How a vCPU ended.
#[derive(Debug)]
pub enum Ended {
    /// The guest wrote this value to the exit port.
    ExitPort(u8),
    /// The VMM stopped it.
    Stopped,
    /// The guest reset the machine.
    Reset,
    /// The guest turned the machine off.
    PowerOff,
    /// Triple fault, with the registers where there are any.
    TripleFault(Option<Box<Registers>>),
    /// It can't go on.
    Failed(BackendError, Option<Box<Registers>>),
}

impl fmt::Display for Ended {
    /// What happened, in a few words; registers are not among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExitPort(value) => write!(f, "the guest wrote {value} to the exit port"),
            Self::Stopped => f.write_str("stopped"),
            Self::Reset => f.write_str("the guest reset the machine"),
            Self::PowerOff => f.write_str("the guest turned the machine off"),
            Self::TripleFault(Some(registers)) if registers.are_reset() => {
                f.write_str("triple fault; KVM has reset its registers, as on AMD")
            }
            Self::TripleFault(_) => f.write_str("triple fault"),
            Self::Failed(e, _) => e.fmt(f),
        }
    }
}

impl Ended {
    /// It is a failure: of the guest or of the VMM.
    pub fn failed(&self) -> bool {
        matches!(self, Self::TripleFault(_) | Self::Failed(..))
    }

    /// What the vCPU was doing when it failed, if that can be known.
    pub fn registers(&self) -> Option<&Registers> {
        match self {
            Self::TripleFault(registers) => registers.as_deref().filter(|r| !r.are_reset()),
            Self::Failed(_, registers) => registers.as_deref(),
            _ => None,
        }
    }
}

/// Hears, on a vCPU's thread, of its sleep through a pause.
pub trait PauseListener {
    /// It is about to sleep. Its slot says so in a moment.
    fn falls_asleep(&self) {}
    /// It has woken.
    fn wakes(&self) {}
}

/// Does not listen.
impl PauseListener for () {}

/// What of a vCPU is state of the guest: its processor and its local APIC, if that
/// is this process's.
///
/// The vCPU's thread holds it, but for the time of a pause: then it can be
/// [saved](SaveProcessor::save).
#[derive(Debug)]
pub struct Processor<B> {
    backend: B,
    apic: Option<VcpuApic>,
}

/// A [`Processor`] that its vCPU's thread holds while it runs.
type SharedProcessor<B> = Arc<Mutex<Processor<B>>>;

/// The state of a [`Processor`].
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedProcessor {
    /// What KVM has of it.
    pub kvm: SavedVcpu,
    /// Its local APIC, if that is this process's.
    pub apic: Option<SavedApic>,
}

/// Saves and restores the state of a vCPU that is paused or not started.
pub trait SaveProcessor: fmt::Debug + Send + Sync {
    /// Its state. `msrs`: those that KVM says are worth saving.
    ///
    /// # Errors
    /// KVM refuses something, or the backend has no state that can be saved.
    fn save(&self, msrs: &[u32]) -> Result<SavedProcessor, BackendError>;

    /// Puts a saved state in. It must not run meanwhile.
    ///
    /// # Errors
    /// KVM refuses something, or a value is none that a vCPU can have.
    fn restore(&self, saved: &SavedProcessor) -> Result<(), BackendError>;
}

impl<B: VcpuBackend + fmt::Debug> SaveProcessor for Mutex<Processor<B>> {
    fn save(&self, msrs: &[u32]) -> Result<SavedProcessor, BackendError> {
        // A thread that panicked left a vCPU of which nothing is known.
        let mut this = self.lock().map_err(|_| BackendError::Panicked)?;
        Ok(SavedProcessor {
            kvm: this.backend.save(msrs)?,
            apic: this.apic.as_mut().map(VcpuApic::save),
        })
    }

    fn restore(&self, saved: &SavedProcessor) -> Result<(), BackendError> {
        let mut this = self.lock().map_err(|_| BackendError::Panicked)?;
        this.backend.restore(&saved.kvm)?;
        match (&mut this.apic, &saved.apic) {
            (Some(apic), Some(saved)) => apic.restore(saved),
            (None, None) => Ok(()),
            _ => Err(BackendError::OtherApic),
        }
    }
}

/// One vCPU with all that its thread needs.
#[derive(Debug)]
pub struct Vcpu<B> {
    processor: SharedProcessor<B>,
    exit_request: Arc<ExitRequest>,
    parker: VcpuParker,
    calls: Calls,
    /// The features that the guest was offered: a call whose feature it does not
    /// have is answered -KVM_ENOSYS, unless this is off.
    enforcement: Enforcement,
    bus: Arc<Bus>,
    recorder: Recorder,
    gauge: Arc<Gauge>,
}

/// What others may know of a vCPU while it runs.
#[derive(Debug, Default)]
pub struct Gauge {
    thread: AtomicI32,
    exits: AtomicU64,
}

impl Gauge {
    /// Owner, on its thread.
    fn begin(&self) {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        // Relaxed: the number is all that there is to see.
        self.thread.store(thread, Ordering::Relaxed);
    }

    /// Owner: it left the guest once more.
    fn count_exit(&self) {
        // Relaxed, and no read-modify-write: one thread writes, and the number
        // orders nothing.
        let before = self.exits.load(Ordering::Relaxed);
        self.exits.store(before + 1, Ordering::Relaxed);
    }

    /// Its thread, once it runs.
    pub fn thread(&self) -> Option<Pid> {
        Pid::from_raw(self.thread.load(Ordering::Relaxed))
    }

    /// Number of times that it left the guest to this process.
    pub fn exits(&self) -> u64 {
        self.exits.load(Ordering::Relaxed)
    }
}

enum State {
    Running,
    Halted,
    Paused,
    Finished(Ended),
}

impl<B: VcpuBackend> Vcpu<B> {
    /// A vCPU that is ready to run.
    pub fn new(
        backend: B,
        parker: VcpuParker,
        calls: Calls,
        enforcement: Enforcement,
        bus: Arc<Bus>,
    ) -> Self {
        Self {
            exit_request: backend.exit_request(),
            processor: Arc::new(Mutex::new(Processor {
                backend,
                apic: None,
            })),
            parker,
            calls,
            enforcement,
            bus,
            recorder: Recorder::OFF,
            gauge: Arc::default(),
        }
    }

    /// With this local APIC: then it waits for a SIPI, unless it is the bootstrap
    /// processor, and its halts end by interrupts too.
    #[must_use]
    pub fn with_apic(self, apic: Option<VcpuApic>) -> Self {
        lock(&self.processor).apic = apic;
        self
    }

    /// What of it is state of the guest, for a snapshot.
    pub fn processor(&self) -> Arc<dyn SaveProcessor>
    where
        B: fmt::Debug,
    {
        let shared: SharedProcessor<B> = Arc::clone(&self.processor);
        shared
    }

    /// What it does is recorded.
    pub fn record(&mut self, recorder: Recorder) {
        self.recorder = recorder;
    }

    /// What others may know of it while it runs.
    pub fn gauge(&self) -> &Arc<Gauge> {
        &self.gauge
    }

    /// By which other threads make it leave the guest.
    pub fn exit_request(&self) -> &Arc<ExitRequest> {
        &self.exit_request
    }

    /// The APIC ID that a kick for this vCPU names.
    pub fn apic_id(&self) -> u32 {
        self.parker.apic_id().0
    }

    /// The backend alone, for whoever runs it by hand; None while somebody else
    /// keeps its [`processor`](Self::processor).
    pub fn into_backend(self) -> Option<B> {
        let alone = Arc::into_inner(self.processor)?;
        let processor = alone.into_inner();
        Some(processor.unwrap_or_else(PoisonError::into_inner).backend)
    }

    /// Runs the guest to its end.
    pub fn run(mut self, pauses: &dyn PauseListener) -> Ended {
        let _timers = TimerTarget::on_this_thread(&self.exit_request);
        let mut state = State::Running;
        self.gauge.begin();
        let shared = Arc::clone(&self.processor);
        let mut processor = lock(&shared);
        loop {
            state = match state {
                State::Running => self.running(&mut processor),
                State::Halted => self.halted(&mut processor),
                State::Paused => {
                    // Free before its slot says that it is at rest: whoever finds
                    // the VM quiet finds the processor free, or waits no longer
                    // than another who looks at it.
                    drop(processor);
                    pauses.falls_asleep();
                    let next = self.paused();
                    pauses.wakes();
                    processor = lock(&shared);
                    next
                }
                State::Finished(ended) => {
                    self.recorder.record(What::Ended);
                    // Others may drop it, on a thread that may not.
                    if let Some(apic) = &mut processor.apic {
                        apic.end();
                    }
                    return ended;
                }
            }
        }
    }

    /// Running ---- HLT ----> Halted
    fn running(&mut self, processor: &mut Processor<B>) -> State {
        self.recorder.record(What::Running);
        loop {
            // In this order: a request that this does not see keeps the guest
            // from being entered, and for one that it sees, the slot says why.
            self.exit_request.take();
            match self.enter(processor) {
                Ok(()) => {}
                Err(Interruption::Stopped) => return State::Finished(Ended::Stopped),
                Err(Interruption::Paused) => return processor.rests(State::Paused),
                // Nobody interrupts one vCPU of a VM here: it goes on.
                Err(Interruption::Interrupted) => continue,
            }
            // Before the local APIC is read: what is announced after that is told
            // anew, and makes this vCPU leave the guest.
            if processor.apic.is_some() {
                self.parker.take_event();
            }
            match processor.deliver() {
                Ok(Readiness::Run) => {}
                Ok(Readiness::Wait) => return State::Halted,
                Ok(Readiness::Reset) => return State::Finished(Ended::Reset),
                Err(e) => return State::Finished(Ended::Failed(e, processor.registers())),
            }
            let ran = match &mut processor.apic {
                Some(apic) => processor.backend.run(&self.bus, apic),
                None => processor.backend.run(&self.bus, &mut ()),
            };
            self.gauge.count_exit();
            match ran {
                Ok(Exit::Hypercall(call)) => {
                    self.record_kick(&call);
                    let mut handler = self.calls.by(&mut self.parker);
                    let rax = dispatch(&call, self.enforcement, &mut handler);
                    processor.backend.set_result(rax);
                }
                Ok(Exit::Halt) => return State::Halted,
                Ok(Exit::Interrupted) => {}
                Ok(Exit::Bus(event)) => {
                    return State::Finished(match event {
                        BusEvent::Exit(value) => Ended::ExitPort(value),
                        BusEvent::Reset => Ended::Reset,
                        BusEvent::PowerOff => Ended::PowerOff,
                    });
                }
                Ok(Exit::Shutdown) => {
                    return State::Finished(Ended::TripleFault(processor.registers()));
                }
                Err(e) => return State::Finished(Ended::Failed(e, processor.registers())),
            }
        }
    }

    /// Asks the scheduler, which may hold this vCPU back until an interrupt is due
    /// for it.
    fn enter(&mut self, processor: &mut Processor<B>) -> Result<(), Interruption> {
        let Processor { backend, apic } = processor;
        let parker = &mut self.parker;
        let entered = self.recorder.held(|| match apic {
            Some(apic) => parker.enter_until_ns(|| apic.due(backend.interruptible()?)),
            None => parker.enter_unless(|| backend.has_interrupt()),
        });
        if let Some(apic) = apic {
            apic.let_go();
        }
        entered
    }

    /// Halted ---- kick, event ----> Running
    fn halted(&mut self, processor: &mut Processor<B>) -> State {
        self.recorder.record(What::Halted);
        loop {
            let until = match self.look(processor) {
                Ok(WhileHalted::Sleep(until)) => until,
                Ok(WhileHalted::Wake) => return State::Running,
                Ok(WhileHalted::Reset) => return State::Finished(Ended::Reset),
                Err(e) => return State::Finished(Ended::Failed(e, processor.registers())),
            };
            let reason = match until {
                Some(until) => self.parker.halt_until(until),
                None => self.parker.halt(),
            };
            match reason {
                WakeReason::Stopped => return State::Finished(Ended::Stopped),
                WakeReason::Paused => return State::Paused,
                // A kick starts nobody who waits for a SIPI.
                WakeReason::Kicked if processor.waits_for_sipi() => {}
                WakeReason::Kicked => return State::Running,
                WakeReason::Event | WakeReason::TimedOut if processor.apic.is_some() => {}
                WakeReason::Event | WakeReason::TimedOut => return State::Running,
                // Interrupted, or for a reason that is not known here: it is halted
                // still.
                _ => {}
            }
        }
    }

    /// Whether its local APIC has something that ends a halt.
    fn look(&mut self, processor: &mut Processor<B>) -> Result<WhileHalted, BackendError> {
        match (&mut processor.apic, processor.backend.interruptible()) {
            (Some(apic), Some(vcpu)) => {
                // First: what is announced after the look ends the sleep.
                self.parker.take_event();
                apic.while_halted(vcpu)
            }
            _ => Ok(WhileHalted::Sleep(None)),
        }
    }

    /// Paused ---- resume ----> Running
    fn paused(&mut self) -> State {
        self.recorder.record(What::Paused);
        match self.parker.wait_resumed() {
            Resumed::Stopped => State::Finished(Ended::Stopped),
            Resumed::Running => State::Running,
            Resumed::Halted => State::Halted,
        }
    }

    fn record_kick(&mut self, call: &RawHypercall) {
        if call.nr == KVM_HC_KICK_CPU
            && let [_, id, ..] = call.args
            && let Ok(id) = u32::try_from(id)
        {
            self.recorder.record(What::Kicks(id));
        }
    }
}

impl<B: VcpuBackend> Processor<B> {
    /// Delivers what its local APIC has for it.
    fn deliver(&mut self) -> Result<Readiness, BackendError> {
        match (&mut self.apic, self.backend.interruptible()) {
            (Some(apic), Some(vcpu)) => apic.before_run(vcpu),
            _ => Ok(Readiness::Run),
        }
    }

    /// It left the guest, and its thread is about to sleep in that state.
    fn rests(&mut self, state: State) -> State {
        let (Some(apic), Some(vcpu)) = (&mut self.apic, self.backend.interruptible()) else {
            return state;
        };
        match apic.before_sleep(vcpu) {
            Ok(()) => state,
            Err(e) => State::Finished(Ended::Failed(e, self.registers())),
        }
    }

    fn waits_for_sipi(&self) -> bool {
        self.apic.as_ref().is_some_and(VcpuApic::waits_for_sipi)
    }

    fn registers(&self) -> Option<Box<Registers>> {
        self.backend.registers().map(Box::new)
    }
}

// Nobody but the vCPU's thread runs it, and if that panics it does not come back.
fn lock<B>(shared: &Mutex<Processor<B>>) -> MutexGuard<'_, Processor<B>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
