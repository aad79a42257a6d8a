//! One case in one column: a VM of its own, for a bounded time.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cpuid_features::{KvmFeatures, Selection};
use pv_lock_host::ApicId;
use vm_memory::{Bytes as _, GuestAddress};

use super::Verdict;
use super::case::{Case, CaseHost, Plan, Step, Trace};
use super::column::Column;
use super::in_flight::{self, Interrupts};
use super::script_image::ScriptImage;
use crate::halt_mode::HaltMode;
use crate::host::KvmHost;
use crate::memory::{self, GuestMemory};
use crate::payload::image::result_page;
use crate::payload::layout::issue;
use crate::payload::script::{self, BOARD, Op, VECTOR, record, result, script_page};
use crate::signals::ending;
use crate::transport::{HaltKick, Instruction, Transport};
use crate::vcpu::Ended;
use crate::vm::{Platform, RunningVm, Vm, VmParts, VmSpec, Waited};

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
pub enum CaseError {
    /// SIGINT or SIGTERM.
    Interrupted,
    /// The case failed before anything could be looked at.
    Failed(String),
}

fn failed(what: impl Display) -> CaseError {
    CaseError::Failed(what.to_string())
}

/// What happens beside a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beside {
    /// Nothing. The guest has local APICs where its vCPUs halt in KVM.
    Nothing,
    /// Nothing; it has local APICs.
    Apics,
    /// Interrupts without end for all of its vCPUs.
    Interrupts,
}

/// What a case came to in a column.
#[derive(Debug)]
pub struct Trial {
    /// The first failure, or the verdict on all of its runs.
    pub verdict: Verdict,
    /// One of them was with interrupts in flight.
    pub interrupts_in_flight: bool,
}

/// Runs `case` in a column of this host, which is possible here: alone, and with
/// interrupts in flight.
///
/// # Errors
/// A signal ended it, or its VM could not be had.
pub fn run(
    host: Option<&KvmHost>,
    halt_kick: HaltKick,
    column: &Column,
    case: &Case,
) -> Result<Trial, CaseError> {
    let host = host.filter(|_| halt_kick.transport != Transport::Hosted);
    let plan = |apics| {
        (case.plan)(&CaseHost {
            halt_kick,
            features: host.map_or(KvmFeatures::empty(), |host| host.features),
            apics,
        })
    };
    let run = |plan: &Plan, beside| {
        match run_plan(host, halt_kick, column.instruction, plan, beside, LIMIT) {
            Ok(Ok(())) => Ok(None),
            // What was to end and did not come to its end says nothing.
            _ if ending::is_asked() => Err(CaseError::Interrupted),
            Ok(Err(why)) => Ok(Some(Verdict::Fail(why))),
            Err(e) => Err(e),
        }
    };
    let mut trial = Trial {
        verdict: Verdict::Pass,
        interrupts_in_flight: false,
    };
    let alone = plan(halt_kick.halt == HaltMode::Kernel);
    if let Ok(alone) = &alone
        && let Some(fail) = run(alone, Beside::Nothing)?
    {
        trial.verdict = fail;
        return Ok(trial);
    }
    let (beside, plan) = match (plan(true), alone) {
        (Ok(with_apics), alone) => match in_flight::plan(&with_apics) {
            Some(plan) => (Beside::Interrupts, plan),
            None if alone.is_err() => (Beside::Apics, with_apics),
            None => return Ok(trial),
        },
        (Err(_), Ok(_)) => return Ok(trial),
        (Err(_), Err(why)) => {
            trial.verdict = Verdict::NotPossible(why.to_string());
            return Ok(trial);
        }
    };
    trial.interrupts_in_flight = beside == Beside::Interrupts;
    trial.verdict = match run(&plan, beside)? {
        None => Verdict::Pass,
        Some(Verdict::Fail(why)) if trial.interrupts_in_flight => {
            Verdict::Fail(format!("with interrupts in flight: {why}"))
        }
        Some(fail) => fail,
    };
    Ok(trial)
}

/// Runs a plan, and says how it was not as expected.
pub(super) fn run_plan(
    host: Option<&KvmHost>,
    halt_kick: HaltKick,
    instruction: Instruction,
    plan: &Plan,
    beside: Beside,
    limit: Duration,
) -> Result<Result<(), String>, CaseError> {
    let mut run = TrialRun::start(host, halt_kick, instruction, plan, beside, limit)?;
    let interrupts = match beside {
        Beside::Interrupts => Some(Interrupts::start(&run.parts).map_err(failed)?),
        Beside::Nothing | Beside::Apics => None,
    };
    let outcome = run.drive(plan);
    // Whatever the outcome, no thread stays behind.
    let interrupted = interrupts.map_or(Ok(()), Interrupts::stop);
    let memory = Arc::clone(&run.parts.memory);
    let ends = run.vm.stop().map_err(failed)?;
    outcome?;
    interrupted.map_err(failed)?;
    Ok(check(plan, &memory, &ends, limit))
}

/// A case's VM, running.
struct TrialRun {
    vm: RunningVm,
    parts: Arc<VmParts>,
    /// KVM halts its vCPUs.
    halts_in_kvm: bool,
    deadline: Instant,
}

impl TrialRun {
    fn start(
        host: Option<&KvmHost>,
        halt_kick: HaltKick,
        instruction: Instruction,
        plan: &Plan,
        beside: Beside,
        limit: Duration,
    ) -> Result<Self, CaseError> {
        let apics = beside != Beside::Nothing;
        let vcpus = u32::try_from(plan.vcpus.len()).map_err(failed)?;
        let spec = VmSpec {
            pv: Selection {
                off: plan.mask,
                ..Selection::default()
            },
            enforce_features: !plan.lenient,
            map_gpa_range: plan.map_gpa_range,
            platform: match apics {
                true => Platform::BareApics,
                false => Platform::Bare,
            },
            ..VmSpec::bare(vcpus, halt_kick)
        };
        let issue = issue::by(halt_kick.transport, instruction);
        let image = ScriptImage::new(plan, issue, apics || spec.kvm_irqchip()).map_err(failed)?;
        let vm = Vm::build(&spec, host, &image).map_err(failed)?;
        let (vm, parts) = vm.start().map_err(failed)?;
        Ok(Self {
            deadline: vm.started() + limit,
            halts_in_kvm: halt_kick.halt == HaltMode::Kernel,
            vm,
            parts: Arc::new(parts),
        })
    }

    /// Does the plan's steps and waits for the guest's end.
    fn drive(&mut self, plan: &Plan) -> Result<(), CaseError> {
        for &step in &plan.steps {
            match step {
                Step::Await(word, value) => {
                    while !self.reached(word, value)? && self.goes_on(LOOK)? {}
                }
                Step::Asleep(vcpu) => self.asleep(vcpu)?,
                Step::Halts(vcpu, count) => {
                    let at = result_page(apic_id(vcpu).0) + result::HALTS;
                    let halts = |run: &Self| memory::read_word(&run.parts.memory, at);
                    while halts(self).map_err(failed)? < count && self.goes_on(LOOK)? {}
                }
                Step::Linger => {
                    self.goes_on(WHILE)?;
                }
                Step::Set(word, value) => {
                    let at = GuestAddress(BOARD + script::word(word));
                    // Release: as the guest's own `xchg`.
                    self.parts
                        .memory
                        .store(value.to_le(), at, Ordering::Release)
                        .map_err(failed)?;
                }
                Step::Kick(vcpu) => drop(self.parts.kicks.kick(apic_id(vcpu))),
                Step::Interrupt(vcpu) => {
                    let parts = &self.parts;
                    parts.interrupt(apic_id(vcpu), VECTOR).map_err(failed)?;
                }
                Step::PauseUntil(word, value) => {
                    let mut go_on = true;
                    while go_on && !self.reached(word, value)? {
                        self.vm.handle().pause().map_err(failed)?;
                        go_on = self.goes_on(PAUSE)?;
                        self.vm.handle().resume();
                        go_on &= self.goes_on(PAUSE)?;
                    }
                }
            }
        }
        match self.vm.wait(self.deadline).map_err(failed)? {
            Waited::Interrupted => Err(CaseError::Interrupted),
            Waited::AllEnded | Waited::Ended | Waited::Failed | Waited::Deadline => Ok(()),
        }
    }

    fn reached(&self, word: u64, value: u64) -> Result<bool, CaseError> {
        let at = GuestAddress(BOARD + script::word(word));
        // Acquire: what the guest did before it set the word is seen after it.
        let now: u64 = self
            .parts
            .memory
            .load(at, Ordering::Acquire)
            .map_err(failed)?;
        Ok(u64::from_le(now) >= value)
    }

    /// Lets `time` pass. Whether there is any use in waiting on.
    fn goes_on(&mut self, time: Duration) -> Result<bool, CaseError> {
        let until = Instant::now() + time;
        match self.vm.wait(until.min(self.deadline)).map_err(failed)? {
            Waited::Deadline => Ok(Instant::now() < self.deadline),
            Waited::AllEnded | Waited::Ended | Waited::Failed => Ok(false),
            Waited::Interrupted => Err(CaseError::Interrupted),
        }
    }

    /// Until KVM says that the vCPU blocks; where nobody says so, for a while.
    fn asleep(&mut self, vcpu: usize) -> Result<(), CaseError> {
        let limit = Instant::now() + ASLEEP_LIMIT;
        while self.halts_in_kvm && Instant::now() < limit {
            match self.parts.stats.as_ref().and_then(|s| s.is_blocking(vcpu)) {
                Some(true) => return Ok(()),
                Some(false) if self.goes_on(LOOK)? => {}
                _ => break,
            }
        }
        self.goes_on(WHILE)?;
        Ok(())
    }
}

fn apic_id(vcpu: usize) -> ApicId {
    // A plan has at most `script::MAX_VCPUS` of them.
    ApicId(u32::try_from(vcpu).unwrap_or(u32::MAX))
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
                let each: Vec<String> = (0..plan.vcpus.len())
                    .map(|vcpu| {
                        let read = |offset| read(vcpu, offset).unwrap_or_default();
                        format!("{}/{}", read(result::HALTS), read(result::INTERRUPTS))
                    })
                    .collect();
                return Err(format!(
                    "vCPU {vcpu} did not come to its end within {limit:?}{op}; \
                     halts/interrupts so far: {}",
                    each.join(", ")
                ));
            }
            other => return Err(format!("vCPU {vcpu}: {other}")),
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
            Trace::Slot(slot) => (script::slot(slot), format!("slot {slot}")),
            Trace::Interrupts => (result::INTERRUPTS, "interrupts".to_string()),
            Trace::Halts => (result::HALTS, "HLTs".to_string()),
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
