//! One case in one column: a VM of its own, for a bounded time.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cpuid_features::{KvmFeatures, Selection};
use hypercall_abi::{Enforcement, Mode};
use pv_lock_host::{ApicId, HaltScheduler, Kicker, VcpuParker, Yielding};
use vm_memory::{Bytes as _, GuestAddress};

use super::Verdict;
use super::case::{Case, Code, Ground, Plan, Step, UPPER, What};
use super::column::Host;
use super::entry;
use crate::backend::VcpuBackend;
use crate::backend::hosted::HostedVcpu;
use crate::cpuid;
use crate::devices::Bus;
use crate::hypercall::{Calls, Kicks};
use crate::memory::{self, GuestMemory, result_page};
use crate::payload::script::{
    self, BOARD, Op, VECTOR, code, machine::ScriptMachine, record, result, script_page,
};
use crate::stats::StatsFd;
use crate::threads::VcpuThreads;
use crate::vcpu::{Ended, Vcpu};
use crate::vm::{KvmVm, VmSetup};
use crate::vmm::{Vmm, Waited};
use crate::way::Halt;

/// How long a case may take. The longest one takes a few hundred milliseconds
/// on a host that emulates; what has not ended by then hangs.
const LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at the board.
const LOOK: Duration = Duration::from_micros(500);
/// In this time a vCPU that is about to halt has done so, and what must not
/// happen would have happened.
const WHILE: Duration = Duration::from_millis(20);
/// How long KVM may take to say that a vCPU sleeps.
const ASLEEP_LIMIT: Duration = Duration::from_secs(1);
/// Lengths of a pause and of what lies between two.
const PAUSE: Duration = Duration::from_millis(1);

/// Why there is no verdict, or a bad one.
#[derive(Debug)]
pub enum RunError {
    /// SIGINT or SIGTERM.
    Interrupted,
    /// The case failed before anything could be looked at.
    Failed(String),
}

fn failed(what: impl Display) -> RunError {
    RunError::Failed(what.to_string())
}

/// Runs `case`, on KVM if there is a host, else hosted.
pub fn run(host: Option<&Host>, way: crate::way::Way, case: &Case) -> Result<Verdict, RunError> {
    let hosted = way.door == crate::way::DoorKind::Hosted;
    let host = host.filter(|_| !hosted);
    let ground = Ground {
        way,
        host: host.map_or(KvmFeatures::empty(), |host| host.features),
    };
    let plan = match (case.plan)(&ground) {
        Ok(plan) => plan,
        Err(why) => return Ok(Verdict::NotPossible(why.to_string())),
    };
    Ok(match run_plan(host, &ground, &plan, LIMIT)? {
        Ok(()) => Verdict::Pass,
        Err(why) => Verdict::Fail(why),
    })
}

/// Runs a plan, and says how it was not as expected.
pub(super) fn run_plan(
    host: Option<&Host>,
    ground: &Ground,
    plan: &Plan,
    limit: Duration,
) -> Result<Result<(), String>, RunError> {
    let mut run = Run::start(host, ground, plan, limit)?;
    let outcome = run.drive(plan);
    // Whatever came of it, no thread stays behind.
    let memory = Arc::clone(&run.memory);
    let ends = run.vmm.stop().map_err(failed)?;
    outcome?;
    Ok(check(plan, &memory, &ends, limit))
}

/// A case's VM, running.
struct Run {
    vmm: Vmm,
    memory: Arc<GuestMemory>,
    kicks: Kicks,
    kicker: Kicker,
    stats: Vec<Option<StatsFd>>,
    deadline: Instant,
    // Its slots are read for as long as the threads run.
    _scheduler: HaltScheduler,
}

impl Run {
    fn start(
        host: Option<&Host>,
        ground: &Ground,
        plan: &Plan,
        limit: Duration,
    ) -> Result<Self, RunError> {
        let way = ground.way;
        let code = match plan.code {
            Code::Kernel64 | Code::User64 => code::script(),
            Code::Kernel32 => code::call32(),
        };
        let vcpus = u32::try_from(plan.vcpus.len()).map_err(failed)?;
        let memory = Arc::new(memory::build(vcpus, code).map_err(failed)?);
        entry::prepare(&memory, plan.code).map_err(failed)?;
        for (index, ops) in (0u32..).zip(&plan.vcpus) {
            script::install(&memory, index, ops, way.door.transport()).map_err(failed)?;
        }
        let mut support = cpuid::support(way, vcpus);
        support.exit_hypercall = plan.map_gpa_range;
        let want = Selection {
            off: plan.mask,
            ..Selection::default()
        };
        let offered = cpuid::offer(ground.host, &support, &want).map_err(failed)?;
        let enforcement = match plan.lenient {
            true => Enforcement::NotEnforced,
            false => Enforcement::Enforced(offered.features),
        };
        let ids: Vec<ApicId> = (0..vcpus).map(ApicId).collect();
        let mut builder = HaltScheduler::builder();
        if way.halt == Halt::Kernel {
            // KVM lets sleepers' places go to others by itself.
            builder = builder.yielding(Yielding::Nothing);
        }
        let (scheduler, parkers) = builder.build(&ids).map_err(failed)?;
        let kicker = scheduler.kicker();
        let threads = Threads {
            parkers,
            kicker: kicker.clone(),
            ids: &ids,
            enforcement,
            map_gpa_range: plan.map_gpa_range,
        };
        let mut stats = Vec::new();
        let (vmm, kicks) = if let Some(host) = host {
            let setup = VmSetup {
                enforce_cpuid: !plan.lenient,
                exit_map_gpa_range: plan.map_gpa_range && ground.kvm_serves(),
                ..VmSetup::new(way)
            };
            let vm = KvmVm::new(&host.kvm, Arc::clone(&memory), setup).map_err(failed)?;
            let mut backends = Vec::new();
            for (index, ops) in (0u32..).zip(&plan.vcpus) {
                let cpuid = cpuid::for_vcpu(&host.cpuid, &offered, index).map_err(failed)?;
                let vcpu = vm.vcpu(index, &cpuid).map_err(failed)?;
                entry::set(&vcpu, index, plan.code, ops, way.door.transport()).map_err(failed)?;
                stats.push(StatsFd::of_vcpu(vcpu.fd()).ok());
                backends.push(vcpu);
            }
            let kicks = match way.halt {
                Halt::Userspace => Kicks::Userspace(kicker.clone()),
                Halt::Kernel => Kicks::Kernel(vm.signals()),
            };
            (
                threads.start(backends, &kicks, VcpuThreads::by_signal())?,
                kicks,
            )
        } else {
            let (mode, cpl, upper) = match plan.code {
                Code::Kernel64 => (Mode::Bits64, 0, 0),
                Code::User64 => (Mode::Bits64, 3, 0),
                Code::Kernel32 => (Mode::Bits32, 0, UPPER),
            };
            let (backends, flags): (Vec<_>, Vec<_>) = (0..vcpus)
                .map(|index| {
                    let flag = Arc::new(AtomicBool::new(false));
                    let memory = Arc::clone(&memory);
                    let program = ScriptMachine::new(memory, index, mode, cpl, upper);
                    (HostedVcpu::new(program, Arc::clone(&flag)), flag)
                })
                .unzip();
            let kicks = Kicks::Userspace(kicker.clone());
            (
                threads.start(backends, &kicks, VcpuThreads::by_flag(flags))?,
                kicks,
            )
        };
        Ok(Self {
            deadline: vmm.started() + limit,
            vmm,
            memory,
            kicks,
            kicker,
            stats,
            _scheduler: scheduler,
        })
    }

    /// Does the plan's steps and waits for the guest's end.
    fn drive(&mut self, plan: &Plan) -> Result<(), RunError> {
        for &step in &plan.steps {
            match step {
                Step::Await(word, value) => {
                    while !self.reached(word, value)? && self.goes_on(LOOK)? {}
                }
                Step::Asleep(vcpu) => self.asleep(vcpu)?,
                Step::Linger => {
                    self.goes_on(WHILE)?;
                }
                Step::Set(word, value) => {
                    let at = GuestAddress(BOARD + script::word(word));
                    // Release: as the guest's own `xchg`.
                    self.memory
                        .store(value.to_le(), at, Ordering::Release)
                        .map_err(failed)?;
                }
                Step::Kick(vcpu) => {
                    self.kicks.kick(apic_id(vcpu));
                }
                Step::Interrupt(vcpu) => match &self.kicks {
                    Kicks::Kernel(signals) => {
                        signals.interrupt(apic_id(vcpu), VECTOR).map_err(failed)?;
                    }
                    Kicks::Userspace(_) => {
                        self.kicker.notify(apic_id(vcpu));
                    }
                },
                Step::PauseUntil(word, value) => {
                    let mut go_on = true;
                    while go_on && !self.reached(word, value)? {
                        self.vmm.handle().pause().map_err(|vcpu| {
                            failed(format!("vCPU {vcpu} is not paused after a second"))
                        })?;
                        go_on = self.goes_on(PAUSE)?;
                        self.vmm.handle().resume();
                        go_on &= self.goes_on(PAUSE)?;
                    }
                }
            }
        }
        match self.vmm.wait(self.deadline).map_err(failed)? {
            Waited::Interrupted => Err(RunError::Interrupted),
            Waited::AllEnded | Waited::Ended | Waited::Failed | Waited::Deadline => Ok(()),
        }
    }

    fn reached(&self, word: u64, value: u64) -> Result<bool, RunError> {
        let at = GuestAddress(BOARD + script::word(word));
        // Acquire: what the guest did before it set the word is seen after it.
        let now: u64 = self.memory.load(at, Ordering::Acquire).map_err(failed)?;
        Ok(u64::from_le(now) >= value)
    }

    /// Lets `time` pass. Whether there is any use in waiting on.
    fn goes_on(&mut self, time: Duration) -> Result<bool, RunError> {
        let until = Instant::now() + time;
        match self.vmm.wait(until.min(self.deadline)).map_err(failed)? {
            Waited::Deadline => Ok(Instant::now() < self.deadline),
            Waited::AllEnded | Waited::Ended | Waited::Failed => Ok(false),
            Waited::Interrupted => Err(RunError::Interrupted),
        }
    }

    /// Until KVM says that the vCPU blocks; where nobody says so, for a while.
    fn asleep(&mut self, vcpu: usize) -> Result<(), RunError> {
        let limit = Instant::now() + ASLEEP_LIMIT;
        let in_kvm = matches!(self.kicks, Kicks::Kernel(_));
        while in_kvm && Instant::now() < limit {
            match self.blocking(vcpu) {
                Some(true) => return Ok(()),
                Some(false) if self.goes_on(LOOK)? => {}
                _ => break,
            }
        }
        self.goes_on(WHILE)?;
        Ok(())
    }

    /// KVM's statistic of that name: 1 while the vCPU's thread sleeps in it.
    fn blocking(&self, vcpu: usize) -> Option<bool> {
        let stats = self.stats.get(vcpu)?.as_ref()?.read().ok()?;
        let stat = stats.into_iter().find(|stat| stat.name == "blocking")?;
        stat.values.first().map(|&value| value != 0)
    }
}

fn apic_id(vcpu: usize) -> ApicId {
    // A plan has at most `script::MAX_VCPUS` of them.
    ApicId(u32::try_from(vcpu).unwrap_or(u32::MAX))
}

/// What every vCPU's thread gets.
struct Threads<'a> {
    parkers: Vec<VcpuParker>,
    kicker: Kicker,
    ids: &'a [ApicId],
    enforcement: Enforcement,
    map_gpa_range: bool,
}

impl Threads<'_> {
    fn start<B: VcpuBackend>(
        self,
        backends: Vec<B>,
        kicks: &Kicks,
        reach: VcpuThreads,
    ) -> Result<Vmm, RunError> {
        let mut calls = Calls::new(kicks.clone(), self.ids);
        if self.map_gpa_range {
            calls = calls.with_map_gpa_range();
        }
        let bus = Arc::new(Bus::default());
        let vcpus = backends.into_iter().zip(self.parkers);
        let vcpus = vcpus.map(|(backend, parker)| {
            let (calls, bus) = (calls.clone(), Arc::clone(&bus));
            Vcpu::new(backend, parker, calls, self.enforcement, bus)
        });
        Vmm::start(vcpus.collect(), self.kicker, reach).map_err(failed)
    }
}

/// Whether all is as the plan expects.
fn check(plan: &Plan, memory: &GuestMemory, ends: &[Ended], limit: Duration) -> Result<(), String> {
    let read = |vcpu: usize, offset| {
        let page = result_page(apic_id(vcpu).0);
        memory::read_word(memory, page + offset).map_err(|e| e.to_string())
    };
    for (vcpu, (ended, ops)) in ends.iter().zip(&plan.vcpus).enumerate() {
        match ended {
            Ended::ExitPort(0) => {}
            Ended::Stopped => {
                let at = read(vcpu, result::AT)?;
                let op = stuck_at(vcpu, at, ops);
                return Err(format!(
                    "vCPU {vcpu} did not come to its end within {limit:?}{op}"
                ));
            }
            Ended::ExitPort(value) => return Err(format!("vCPU {vcpu} ended with {value}")),
            Ended::Reset | Ended::PowerOff => {
                return Err(format!("vCPU {vcpu} reset the machine or turned it off"));
            }
            Ended::TripleFault(_) => return Err(format!("vCPU {vcpu}: triple fault")),
            Ended::Failed(e, _) => return Err(format!("vCPU {vcpu}: {e}")),
        }
        let clobbered = read(vcpu, result::CLOBBERED)?;
        if clobbered != 0 {
            return Err(format!(
                "vCPU {vcpu}: {clobbered} calls changed a register other than RAX"
            ));
        }
    }
    for expect in &plan.expect {
        let (offset, what) = match expect.what {
            What::Slot(slot) => (script::slot(slot), format!("slot {slot}")),
            What::Interrupts => (result::INTERRUPTS, "interrupts".to_string()),
            What::Halts => (result::HALTS, "HLTs".to_string()),
        };
        let value = read(expect.vcpu, offset)?;
        if value != expect.is {
            return Err(format!(
                "vCPU {}, {what}: {}, expected {}",
                expect.vcpu,
                signed(value),
                signed(expect.is)
            ));
        }
    }
    Ok(())
}

/// A result as a person reads it.
fn signed(value: u64) -> String {
    match value.cast_signed() {
        small @ -4095..=4095 => small.to_string(),
        _ => format!("{value:#x}"),
    }
}

/// Where a vCPU hangs: in a HLT whose wake-up was lost, most likely.
fn stuck_at(vcpu: usize, at: u64, ops: &[Op]) -> String {
    let page = script_page(apic_id(vcpu).0);
    let index = at.checked_sub(page).map(|offset| offset / record::SIZE);
    let op = index.and_then(|index| ops.get(usize::try_from(index).ok()?));
    match (index, op) {
        (Some(index), Some(op)) => format!(": at operation {index}, {op:?}"),
        _ => String::new(),
    }
}
