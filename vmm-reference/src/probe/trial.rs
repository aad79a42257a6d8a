//! A few instructions on one vCPU, for a bounded time.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError, channel};
use std::time::Duration;

use cpuid_features::{KvmFeatures, Selection};
use kvm_ioctls::Kvm;
use vmm_sys_util::signal::Killable as _;

use super::ProbeError;
use crate::backend::{BackendError, Exit, VcpuBackend as _, Via, state};
use crate::cpuid;
use crate::devices::Bus;
use crate::payload::{ABSENT_APIC_ID, code};
use crate::vm::{KvmVm, VmSetup};
use crate::way::{DoorKind, Halt, Instruction, Way};
use crate::{memory, signals};

/// A few instructions, even emulated ones, take far less.
const LIMIT: Duration = Duration::from_millis(300);
/// Between two signals to a vCPU that does not come back.
const NUDGE_INTERVAL: Duration = Duration::from_millis(5);
/// Signals to a vCPU before it is given up.
const NUDGES: u32 = 200;
/// Put into RAX by the trial, to see that it arrives: no answer of KVM's.
const ANSWER: u64 = 0x5eed;

/// Which doors a guest can come through, and whether its halts do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doors {
    /// This instruction comes back with KVM's answer.
    pub instruction: Option<Instruction>,
    /// This instruction comes to this process as KVM_EXIT_XEN, with its
    /// registers, and takes the answer back.
    pub xen: Option<Instruction>,
    /// The doorbell port does so.
    pub port: bool,
    /// HLT comes to this process.
    pub hlt_exits: bool,
}

/// Tries them all; a second or so on a host where an instruction never
/// completes.
pub fn doors(kvm: &Kvm) -> Result<Doors, ProbeError> {
    signals::install()?;
    let both = [Instruction::Vmcall, Instruction::Vmmcall];
    // The processor's own first: KVM rewrites the other one, if it can.
    let order = match crate::host::vendor() {
        "svm" => [both[1], both[0]],
        _ => both,
    };
    let mut instruction = None;
    for candidate in order {
        if run(kvm, DoorKind::Kvm(candidate))?.halted_with == Some(0) {
            instruction = Some(candidate);
            break;
        }
    }
    // One that does not complete with KVM's answer does not exit either.
    let mut xen = None;
    if let Some(candidate) = instruction
        && crate::backend::xen::offered(kvm)
        && run(kvm, DoorKind::Xen(candidate))?.answered(Via::Xen)
    {
        xen = Some(candidate);
    }
    let port = run(kvm, DoorKind::Port)?;
    Ok(Doors {
        instruction,
        xen,
        port: port.answered(Via::Port),
        hlt_exits: port.halted_with.is_some(),
    })
}

/// How a trial ended.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    /// Its hypercall came this way, with the right registers.
    came: Option<Via>,
    /// It came to its HLT, with this in RAX.
    halted_with: Option<u64>,
}

impl Outcome {
    fn answered(self, via: Via) -> bool {
        self.came == Some(via) && self.halted_with == Some(ANSWER)
    }
}

/// A kick for nobody through `door`, then HLT; ends there, or after [`LIMIT`].
fn run(kvm: &Kvm, door: DoorKind) -> Result<Outcome, ProbeError> {
    let code = match door {
        DoorKind::Port | DoorKind::Hosted => code::doorbell_kick(),
        DoorKind::Xen(Instruction::Vmcall) | DoorKind::Kvm(Instruction::Vmcall) => code::vmcall(),
        DoorKind::Xen(Instruction::Vmmcall) | DoorKind::Kvm(Instruction::Vmmcall) => {
            code::vmmcall()
        }
    };
    let memory = Arc::new(memory::build(1, code)?);
    let halt = Halt::Userspace;
    let vm = KvmVm::new(kvm, memory, VmSetup::new(Way { halt, door }))?;
    let (host, _) = cpuid::supported(kvm)?;
    let support = cpuid::userspace_halts(1);
    let offered = cpuid::offer(KvmFeatures::empty(), &support, &Selection::default())?;
    let mut vcpu = vm.vcpu(0, &cpuid::for_vcpu(&host, &offered, 0)?)?;
    let (rdi, rsi) = (memory::result_page(0), memory::PARAM_PAGE);
    state::long_mode(&vcpu, memory::PAGE_TABLES, memory::CODE, rdi, rsi)?;

    let (report, reports) = channel();
    let (go_on, gone) = channel::<()>();
    let thread = std::thread::Builder::new()
        .name("probe".to_string())
        .spawn(move || {
            let bus = Bus::default();
            let mut outcome = Outcome::default();
            let result = loop {
                match vcpu.run(&bus) {
                    Ok(Exit::Hypercall(call, via)) => {
                        let right = call.nr == hypercall_abi::KVM_HC_KICK_CPU
                            && call.args.get(1) == Some(&u64::from(ABSENT_APIC_ID));
                        outcome.came = right.then_some(via);
                        vcpu.set_result(ANSWER);
                    }
                    Ok(Exit::Halt) => {
                        outcome.halted_with = Some(vcpu.rax());
                        break Ok(outcome);
                    }
                    // Asked to give up: the sender is gone.
                    Ok(_) if gone.try_recv() == Err(TryRecvError::Disconnected) => {
                        break Ok(outcome);
                    }
                    Ok(Exit::Shutdown | Exit::Bus(_)) => break Ok(outcome),
                    Ok(Exit::Interrupted) => {}
                    // A host that refuses the instruction does not complete it.
                    Err(BackendError::Internal { .. } | BackendError::Unexpected { .. }) => {
                        break Ok(outcome);
                    }
                    Err(e) => break Err(e),
                }
            };
            // The receiver waits for as long as this thread may take.
            let _ = report.send(result);
        })?;

    let mut result = reports.recv_timeout(LIMIT);
    drop(go_on);
    for _ in 0..NUDGES {
        if !matches!(result, Err(RecvTimeoutError::Timeout)) {
            break;
        }
        // It fails only for a thread that has just ended.
        let _ = thread.kill(signals::vcpu_signal());
        result = reports.recv_timeout(NUDGE_INTERVAL);
    }
    let outcome = result.map_err(|_| ProbeError::Stuck)??;
    // It has reported: nothing but its return is left.
    let _ = thread.join();
    Ok(outcome)
}
