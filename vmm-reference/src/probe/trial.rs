//! A few instructions on one vCPU, for a bounded time.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use vmm_sys_util::signal::Killable as _;

use super::ProbeError;
use crate::backend::kvm::KvmVcpu;
use crate::backend::{BackendError, Exit, VcpuBackend as _, xen};
use crate::devices::Bus;
use crate::halt_mode::HaltMode;
use crate::host::{KvmHost, Virtualization};
use crate::jail::{self, ThreadKind};
use crate::payload::image::CodeImage;
use crate::payload::{ABSENT_APIC_ID, calls};
use crate::signals::{self, ending};
use crate::transport::{HaltKick, Instruction, Transport};
use crate::vm::{Vm, VmSpec};

/// A few instructions, even emulated ones, take far less.
const LIMIT: Duration = Duration::from_millis(300);
/// How long a vCPU that was asked to leave the guest may take.
const LEAVE_LIMIT: Duration = Duration::from_secs(5);
/// Put into RAX by the trial, to see that it arrives: no answer of KVM's.
const ANSWER: u64 = 0x5eed;

/// Which hypercall transports this host has, and whether halts come out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transports {
    /// The hypercall instruction that comes back with KVM's answer, if one does.
    pub instruction: Option<Instruction>,
    /// That instruction comes to this process as KVM_EXIT_XEN, with its
    /// registers, and takes the answer back.
    pub xen: bool,
    /// A write to the doorbell port does so.
    pub port: bool,
    /// HLT comes to this process.
    pub hlt_exits: bool,
}

/// Tries them all; a second or so on a host where an instruction never
/// completes.
///
/// # Errors
/// The trial itself failed.
pub fn transports(host: &KvmHost) -> Result<Transports, ProbeError> {
    signals::install()?;
    // The processor's own first: KVM rewrites the other one, if it can.
    let order = match Virtualization::here() {
        Virtualization::Svm => [Instruction::Vmmcall, Instruction::Vmcall],
        _ => [Instruction::Vmcall, Instruction::Vmmcall],
    };
    let mut instruction = None;
    for candidate in order {
        if run(host, Transport::Kvm, candidate)?.halted_with == Some(0) {
            instruction = Some(candidate);
            break;
        }
    }
    // One that does not complete with KVM's answer does not exit either.
    let xen = match instruction {
        Some(instruction) if xen::offered(&host.kvm) => {
            run(host, Transport::Xen, instruction)?.answered()
        }
        _ => false,
    };
    let port = run(host, Transport::Port, Instruction::Vmcall)?;
    Ok(Transports {
        instruction,
        xen,
        port: port.answered(),
        hlt_exits: port.halted_with.is_some(),
    })
}

/// What became of the trial guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Trial {
    /// The hypercall came out, with the right registers.
    called: bool,
    /// RAX at the HLT behind it.
    halted_with: Option<u64>,
}

impl Trial {
    fn answered(self) -> bool {
        self.called && self.halted_with == Some(ANSWER)
    }
}

/// A kick for nobody by this transport, then HLT; ends there, or after
/// [`LIMIT`].
fn run(
    host: &KvmHost,
    transport: Transport,
    instruction: Instruction,
) -> Result<Trial, ProbeError> {
    ending::check()?;
    let code = match (transport, instruction) {
        (Transport::Port | Transport::Hosted, _) => calls::doorbell_kick(),
        (Transport::Xen | Transport::Kvm, Instruction::Vmcall) => calls::vmcall(),
        (Transport::Xen | Transport::Kvm, Instruction::Vmmcall) => calls::vmmcall(),
    };
    let halt_kick = HaltKick {
        halt: HaltMode::Userspace,
        transport,
    };
    let image = CodeImage::new(1, code)?;
    let vm = Vm::build(&VmSpec::bare(1, halt_kick), Some(host), &image)?;
    let Some(vcpu) = vm.into_kvm_vcpus().pop() else {
        return Ok(Trial::default());
    };
    let exit_request = vcpu.exit_request();
    let (report, reports) = channel();
    let thread = std::thread::Builder::new()
        .name("probe".to_string())
        .spawn(move || {
            // The receiver waits for as long as this thread may take.
            let jailed = jail::enter(ThreadKind::Vcpu).map_err(BackendError::from);
            let _ = report.send(jailed.and_then(|()| drive(vcpu)));
        })?;
    let mut result = reports.recv_timeout(LIMIT);
    if matches!(result, Err(RecvTimeoutError::Timeout)) {
        exit_request.set();
        // It fails only for a thread that has just ended.
        let _ = thread.kill(signals::vcpu_signal());
        result = reports.recv_timeout(ending::at_most(LEAVE_LIMIT));
    }
    if result.is_err() {
        // Then it had no time to leave.
        ending::check()?;
    }
    let trial = result.map_err(|_| ProbeError::Stuck)??;
    // It has reported: nothing but its return is left.
    let _ = thread.join();
    ending::check()?;
    Ok(trial)
}

/// Runs the guest to its HLT, or until it is asked to leave.
fn drive(mut vcpu: KvmVcpu) -> Result<Trial, BackendError> {
    let (bus, exit_request) = (Bus::default(), vcpu.exit_request());
    let mut trial = Trial::default();
    loop {
        match vcpu.run(&bus, &mut ()) {
            Ok(Exit::Hypercall(call)) => {
                trial.called = call.nr == hypercall_abi::KVM_HC_KICK_CPU
                    && call.args.get(1) == Some(&u64::from(ABSENT_APIC_ID));
                vcpu.set_result(ANSWER);
            }
            Ok(Exit::Halt) => {
                trial.halted_with = Some(vcpu.rax());
                return Ok(trial);
            }
            Ok(Exit::Shutdown | Exit::Bus(_)) => return Ok(trial),
            Ok(Exit::Interrupted) => {}
            // A host that refuses the instruction does not complete it.
            Err(BackendError::Internal { .. } | BackendError::Unexpected { .. }) => {
                return Ok(trial);
            }
            Err(e) => return Err(e),
        }
        if exit_request.take() {
            return Ok(trial);
        }
    }
}
