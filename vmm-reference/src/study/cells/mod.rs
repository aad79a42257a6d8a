//! The study's cells on this host's VMs: how one runs; `check`: whether what it
//! left can be believed.

mod check;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use vm_memory::{Bytes as _, GuestAddress};

pub use check::CellError;
use check::LEAVE_LIMIT;

use super::dataset::{CellKey, Halts, Load, Repetition, Timeline, Transport, Waiter};
use super::driver::{Measure, Run};
use super::plan::Way;
use super::reading::{CellVm, Reading};
use super::waker::Waker;
use super::window;
use crate::demo::Backend;
use crate::halt_mode::HaltMode;
use crate::memory::{self, GuestMemory, MemoryError};
use crate::payload::image::{PARAM_PAGE, result_page};
use crate::payload::layout::{issue, param, result};
use crate::payload::waiters::clock::HostClock;
use crate::payload::waiters::image::WaiterImage;
use crate::payload::waiters::layout::{Locks, WaiterProgram, mode, result_more, role};
use crate::policy::Policy;
use crate::signals::ending::{self, Interrupted};
use crate::stats::meter::Meter;
use crate::trace::{Collector, Switches, VmTrace};
use crate::transport::{self, HaltKick};
use crate::vm::{Vm, VmSpec, Waited};

/// Rounds of a short critical section, and of what lies between two.
const SHORT: (u64, u64) = (50, 100);
/// The same of long ones.
const LONG: (u64, u64) = (1000, 2000);
/// A burst of a vCPU that sleeps, in thresholds: 100 us if that is 10.
const BURST: u64 = 10;
/// The part of its time that a cell's beginning has, of whose waits no timeline is made.
const BEGINNING: u32 = 8;
/// Events of a vCPU that a timeline is made from: 4.8 MB.
const TIMELINE_EVENTS: usize = 200_000;

/// This host's cells.
#[derive(Debug)]
pub struct Cells {
    backend: Backend,
    why_hosted: Option<String>,
    policy: Policy,
    /// Spin rounds before a halt, and for each place of a preemptable ticket.
    threshold: u64,
    /// Records every cell, if somebody wants a trace.
    trace: Option<Collector>,
}

/// What a run of a cell left.
struct Ran {
    /// What it measured; none if a signal ended it.
    repetition: Option<Repetition>,
    /// What the guests of its VMs wrote.
    memories: Vec<Arc<GuestMemory>>,
    clock_hz: f64,
}

/// The ways to halt and kick that `found` stands for.
pub fn ways(found: &[HaltKick]) -> Vec<Way> {
    let way = |halt_kick: &HaltKick| {
        let halts = match halt_kick.halt {
            HaltMode::Userspace => Halts::Userspace,
            HaltMode::Kernel => Halts::Kernel,
        };
        let transport = match halt_kick.transport {
            transport::Transport::Port => Transport::Port,
            transport::Transport::Xen => Transport::Xen,
            transport::Transport::Kvm => Transport::Kvm,
            transport::Transport::Hosted => Transport::Hosted,
        };
        (halts, transport)
    };
    found.iter().map(way).collect()
}

impl Cells {
    /// On `backend`: finds out how fast its guests spin.
    ///
    /// # Errors
    /// A guest can't be run.
    pub fn new(
        backend: Backend,
        why_hosted: Option<String>,
        policy: Policy,
        spin: Duration,
        trace: Option<Collector>,
    ) -> Result<Self, CellError> {
        let mut cells = Self {
            backend,
            why_hosted,
            policy,
            threshold: 1,
            trace,
        };
        let rounds_per_s = cells.calibrate()?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "`as` saturates, and an absurdly long threshold is just that"
        )]
        let threshold = (spin.as_secs_f64() * rounds_per_s) as u64;
        cells.threshold = threshold.max(1);
        Ok(cells)
    }

    /// From now on with this policy.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Runs a cell once, with a trace of it if there is a collector.
    pub fn once(&self, key: &CellKey, time: Duration, trace: Option<&Collector>) -> Run {
        match self.run(key, &self.program(Some(key)), time, trace) {
            Ok(ran) => match ran.repetition {
                Some(repetition) => Run::Measured(Box::new(repetition)),
                None => Run::Interrupted,
            },
            // Whatever it was that could not be done then.
            Err(_) if ending::is_asked() => Run::Interrupted,
            Err(e) => Run::Failed(e.to_string()),
        }
    }

    fn calibrate(&self) -> Result<f64, CellError> {
        let mut threshold = 512;
        // To 2 ms: entering the guest does not count then.
        for _ in 0..20 {
            let program = WaiterProgram {
                mode: mode::CALIBRATE,
                threshold,
                ..self.program(None)
            };
            let image = WaiterImage::new(&program, 1)?;
            let spec = VmSpec::bare(1, self.halt_kick(None));
            let (mut running, parts) = Vm::build(&spec, self.backend.host(), &image)?.start()?;
            let waited = running.wait(Instant::now() + LEAVE_LIMIT)?;
            drop(running.stop()?);
            if waited == Waited::Interrupted {
                return Err(Interrupted.into());
            }
            let ticks = memory::read_word(&parts.memory, result_page(0) + result::CALIBRATION)?;
            let seconds = ticks as f64 / parts.clock_hz as f64;
            if seconds >= 0.002 {
                return Ok(threshold as f64 / seconds);
            }
            threshold *= 4;
        }
        Err(CellError::Calibration)
    }

    /// How the vCPUs of a cell halt and kick; those that spin by any.
    fn halt_kick(&self, key: Option<&CellKey>) -> HaltKick {
        let (halts, transport) = key.map_or((Halts::Never, Transport::None), |key| {
            (key.series.halts, key.series.transport)
        });
        HaltKick {
            halt: match halts {
                Halts::Kernel => HaltMode::Kernel,
                Halts::Never | Halts::Userspace => HaltMode::Userspace,
            },
            transport: match (self.backend.host(), transport) {
                (None, _) => transport::Transport::Hosted,
                (_, Transport::Xen) => transport::Transport::Xen,
                (_, Transport::Kvm) => transport::Transport::Kvm,
                (_, _) => transport::Transport::Port,
            },
        }
    }

    fn program(&self, key: Option<&CellKey>) -> WaiterProgram {
        let (load, vcpus) = key.map_or((Load::Short, 1), |key| (key.load, key.vcpus));
        let (hold, think) = match load {
            Load::Long => LONG,
            _ => SHORT,
        };
        let transport = self.halt_kick(key).transport;
        WaiterProgram {
            mode: match key.map(|key| key.series.waiter) {
                // Linux's are not this guest's: no plan has them.
                None
                | Some(
                    Waiter::Ticket | Waiter::LinuxNative | Waiter::LinuxQueue | Waiter::LinuxPv,
                ) => mode::TICKET,
                Some(Waiter::TestAndSet) => mode::TEST_AND_SET,
                Some(Waiter::Preemptable) => mode::PREEMPTABLE,
                Some(Waiter::PvTicket) => mode::PV_TICKET,
                Some(Waiter::PvQueue) => mode::PV_QUEUE,
            },
            issue: issue::by(transport, self.backend.instruction()),
            threshold: self.threshold,
            patience: self.threshold,
            hold,
            think,
            burst: self.threshold.saturating_mul(BURST),
            locks: match load {
                Load::Uncontended => Locks::Own,
                Load::Nested => Locks::Nested,
                Load::Independent => Locks::Independent,
                _ => Locks::One,
            },
            computing: match load {
                Load::Partial => vcpus / 2,
                Load::Mixed => vcpus / 4,
                _ => 0,
            },
            // One, if there are two vCPUs: the other takes a lock.
            sleeping: match load {
                Load::Mixed => (vcpus + 2) / 4,
                _ => 0,
            },
            notes_holds: false,
        }
    }

    fn run(
        &self,
        key: &CellKey,
        program: &WaiterProgram,
        time: Duration,
        trace: Option<&Collector>,
    ) -> Result<Ran, CellError> {
        let mut ready = Vec::new();
        for _ in 0..key.vms {
            ending::check()?;
            let trace = trace.map(|collector| collector.vm(key.to_string()));
            let spec = VmSpec {
                policy: self.policy,
                trace: trace.clone(),
                ..VmSpec::bare(key.vcpus, self.halt_kick(Some(key)))
            };
            let image = WaiterImage::new(program, key.vcpus)?;
            let clock = image.clock(self.backend.host().is_some());
            ready.push((Vm::build(&spec, self.backend.host(), &image)?, trace, clock));
        }
        let mut vms: Vec<(CellVm, HostClock)> = Vec::new();
        let mut watched: Vec<(VmTrace, Switches)> = Vec::new();
        for (vm, trace, clock) in ready {
            let (running, parts) = vm.start()?;
            let threads = parts.threads();
            if let Some(trace) = trace
                && let Ok(switches) = trace.watch(&threads)
            {
                watched.push((trace, switches));
            }
            let of = |wanted| {
                let roles = (0..key.vcpus).map(|index| program.role(index, key.vcpus));
                let threads = threads
                    .iter()
                    .zip(roles)
                    .filter(|&(_, role)| role == wanted);
                Meter::new(&threads.map(|(&thread, _)| thread).collect::<Vec<_>>())
            };
            vms.push((
                CellVm {
                    running,
                    meter: Meter::new(&threads),
                    computing: of(role::COMPUTES),
                    sleeping: of(role::SLEEPS),
                    parts,
                    waker: None,
                },
                clock,
            ));
        }
        // All of them run.
        let mut vms: Vec<CellVm> = vms
            .into_iter()
            .map(|(mut vm, clock)| {
                let sleepers =
                    (0..key.vcpus).filter(|&i| program.role(i, key.vcpus) == role::SLEEPS);
                vm.waker = Waker::begin(&vm.parts, sleepers.collect(), clock)?;
                Ok(vm)
            })
            .collect::<Result<_, CellError>>()?;
        if program.notes_holds
            && let Some(first) = vms.first_mut()
        {
            // Threads that come up one after the other make waits that are none of the
            // lock's.
            if first.running.wait(Instant::now() + time / BEGINNING)? == Waited::Interrupted {
                return Err(Interrupted.into());
            }
            forget_longest_waits(&vms)?;
        }
        // What was before is not counted.
        let before = Reading::of(&vms, program)?;
        let began = Instant::now();
        let mut interrupted = false;
        if let Some(first) = vms.first_mut() {
            interrupted = first.running.wait(began + time)? == Waited::Interrupted;
        }
        let after = Reading::of(&vms, program)?;
        let seconds = began.elapsed();
        for (trace, switches) in watched {
            trace.add(switches);
        }
        for vm in &mut vms {
            vm.waker = None;
        }
        self.leave(&mut vms)?;
        let clock_hz = vms.first().map_or(1, |vm| vm.parts.clock_hz).max(1) as f64;
        let mut memories = Vec::new();
        for (number, vm) in vms.into_iter().enumerate() {
            check::ends(number, &vm.running.stop()?)?;
            check::lock(&vm.parts.memory, program, key.vcpus)?;
            memories.push(vm.parts.memory);
        }
        let repetition = after.since(&before, seconds, clock_hz);
        Ok(Ran {
            repetition: (!interrupted).then_some(repetition),
            memories,
            clock_hz,
        })
    }

    /// Asks all to leave, and waits for them.
    fn leave(&self, vms: &mut [CellVm]) -> Result<(), CellError> {
        for vm in &mut *vms {
            let stop = GuestAddress(PARAM_PAGE + param::STOP);
            // Release, though nothing else is handed over: the flag is read in a
            // loop by the guest, and the kick behind it makes a woken vCPU see it.
            let memory = &vm.parts.memory;
            memory
                .store(1u64.to_le(), stop, Ordering::Release)
                .map_err(MemoryError::from)?;
            for &id in &vm.parts.apic_ids {
                vm.parts.kicks.kick(id);
            }
        }
        let limit = Instant::now() + ending::at_most(LEAVE_LIMIT);
        for vm in vms {
            if vm.running.wait(limit)? == Waited::Deadline {
                return Err(CellError::Hung);
            }
        }
        Ok(())
    }
}

/// The longest wait of each vCPU is one that ends from now on.
fn forget_longest_waits(vms: &[CellVm]) -> Result<(), MemoryError> {
    for vm in vms {
        for index in (0..).take(vm.parts.apic_ids.len()) {
            let word = GuestAddress(result_page(index) + result_more::LONGEST);
            // Relaxed: the guest reads and writes it for itself, and orders nothing by
            // it. One that it writes meanwhile may be lost or stay.
            let memory = &vm.parts.memory;
            memory
                .store(0u64, word, Ordering::Relaxed)
                .map_err(MemoryError::from)?;
        }
    }
    Ok(())
}

impl Measure for Cells {
    fn measure(&mut self, key: &CellKey, time: Duration) -> Run {
        self.once(key, time, self.trace.as_ref())
    }

    fn timeline(&mut self, key: &CellKey, time: Duration) -> Option<Timeline> {
        let collector = Collector::new(TIMELINE_EVENTS);
        let program = WaiterProgram {
            notes_holds: true,
            ..self.program(Some(key))
        };
        let ran = self.run(key, &program, time, Some(&collector)).ok()?;
        ran.repetition?;
        let trace = collector.take();
        window::around_worst_wait(key, &trace, &ran.memories, ran.clock_hz)
    }

    fn backend(&self) -> (&'static str, Option<String>) {
        (self.backend.kind().name(), self.why_hosted.clone())
    }
}
