//! `vmm-reference run`: boots a guest, with its serial console on standard
//! input and output.

pub mod config;
mod console;
mod input;
mod operator;
mod restored;

use std::io;
use std::time::Duration;

use cpuid_features::{KvmFeatures, Negotiated};
use vmm_sys_util::eventfd::EventFd;

use crate::backend::xen;
use crate::boot::{BootError, BootImage, BootSource};
use crate::control::{ControlError, Server, Socket};
use crate::cpuid::CpuidError;
use crate::descriptor::Descriptor;
use crate::devices::output::Output;
use crate::devices::serial::Com1;
use crate::halt_mode::HaltMode;
use crate::host::{HostError, KvmHost};
use crate::jail::{self, JailError, ThreadKind};
use crate::signals::ending;
use crate::snapshot::{self, SnapshotError};
use crate::stats::StatsError;
use crate::terminal::RawMode;
use crate::trace::VmTrace;
use crate::trace::file::{TraceFile, TraceFileError};
use crate::vcpu::Ended;
use crate::vm::{JailedThreads, Platform, RunningVm, Vm, VmError, VmSpec, Waited};
use crate::{signals, stderr};
use config::{ConfigError, RunConfig, Source};
use console::Console;
use operator::{Operator, StatsOnSignal};
use restored::MemoryCheck;

/// How long the guest's last words may take to be written.
const FLUSH_LIMIT: Duration = Duration::from_millis(300);

/// Why a guest could not be run, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no usable KVM.
    #[error(transparent)]
    Host(#[from] HostError),
    /// This host can't give what was asked for.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The kernel, the initrd or the command line.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// No CPUID can be made for the guest.
    #[error(transparent)]
    Cpuid(#[from] CpuidError),
    /// The VM can't be built, started or stopped.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The snapshot to go on with.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// KVM's statistics can't be read.
    #[error(transparent)]
    Stats(#[from] StatsError),
    /// `--stats`, and KVM has none of some vCPU.
    #[error("{0}")]
    NoStats(String),
    /// The event loop can't be put into the jail.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// The file for the trace.
    #[error(transparent)]
    Trace(#[from] TraceFileError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The system refused something.
    #[error("can't {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The error that it returned.
        source: io::Error,
    },
    /// A vCPU failed.
    #[error("vCPU {index}: {reason}")]
    Vcpu {
        /// The vCPU's index.
        index: usize,
        /// What happened.
        reason: String,
        /// The vCPU's registers, on lines of their own; empty if there are none.
        registers: String,
    },
}

impl RunError {
    /// More lines, beside the one that says what happened.
    pub fn details(&self) -> &str {
        match self {
            Self::Vcpu { registers, .. } => registers,
            _ => "",
        }
    }

    fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}

/// How a guest's run ended without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// It turned the machine off or reset it.
    Down,
    /// It wrote this value to the exit port.
    ExitPort(u8),
    /// It was asked to end: by a signal, by Ctrl-A x or by the control socket.
    Stopped,
}

impl RunEnd {
    /// The process's exit status.
    pub fn status(self) -> u8 {
        match self {
            Self::Down | Self::Stopped => 0,
            // As QEMU's isa-debug-exit.
            Self::ExitPort(value) => (value << 1) | 1,
        }
    }
}

/// Boots the guest and runs it to its end.
///
/// # Errors
/// It could not be booted, or it failed.
pub fn run(config: &RunConfig) -> Result<RunEnd, RunError> {
    // Before anything that takes time or changes the terminal: a request to end is
    // followed in order from here on, and SIGUSR1 ends nothing.
    signals::install().map_err(RunError::io("handle SIGTERM"))?;
    let stats_request = signals::install_stats().map_err(RunError::io("handle SIGUSR1"))?;
    let output = Output::default();
    // It goes into the jail while the VM is built. Nothing is there to write before
    // the guest runs.
    output
        .write_to("console", Descriptor(io::stdout()))
        .map_err(RunError::io("start the console"))?;
    let end = run_with(config, stats_request, &output);
    // The console ends with the guest.
    output.close();
    end
}

/// [`run`], with a console that writes what is put into `output`.
fn run_with(
    config: &RunConfig,
    stats_request: &'static EventFd,
    output: &Output,
) -> Result<RunEnd, RunError> {
    let host = KvmHost::open()?;
    let trace = config.trace.as_deref().map(TraceFile::create).transpose()?;
    let vm_trace = trace.as_ref().map(|trace| trace.collector().vm("run"));
    let built = match &config.source {
        Source::Boot(boot) => {
            booted(config, boot, &host, output, vm_trace.clone()).map(|built| (built, None))
        }
        Source::Snapshot(path) => restored::open(path, config, &host, output, vm_trace.clone())
            .map(|(built, snapshot)| (built, Some(snapshot))),
    };
    let ((vm, threads), mut restored) = match built {
        // It was asked to end before it began.
        Err(RunError::Vm(VmError::Interrupted(_))) => return Ok(RunEnd::Stopped),
        built => built?,
    };
    let missing = vm.parts().stats.as_ref().and_then(|stats| stats.missing());
    if let (true, Some(missing)) = (config.stats, missing) {
        return Err(RunError::NoStats(missing.to_string()));
    }
    let control = config.control.as_deref().map(Socket::bind).transpose()?;
    let raw = RawMode::enter().map_err(RunError::io("make the terminal raw"))?;
    let (mut vm, mut parts) = vm.start_on(threads)?;
    let check = restored.take().map(|snapshot| {
        vm.handle().resume();
        MemoryCheck::start(snapshot, vm.handle())
    });
    let com1 = parts.com1.take();
    let watched = vm_trace.as_ref().and_then(|trace| {
        let switches = trace.watch(&parts.threads()).ok()?;
        Some((trace, switches))
    });
    let operator = Operator::new(vm.handle(), parts, vm.started());
    // In the jail there are no new threads.
    let lines = Output::default();
    let writing = lines.write_to("stats", Descriptor(io::stderr()));
    let stats = StatsOnSignal::new(stats_request, config.stats, operator.clone(), lines.clone());
    let waited = writing
        .map_err(RunError::io("start the thread of SIGUSR1"))
        .and_then(|()| supervise(&mut vm, control, com1, &operator, stats, &raw));
    if matches!(waited, Ok(Waited::Ended)) {
        output.flush_within(ending::at_most(FLUSH_LIMIT));
    }
    if matches!(waited, Ok(Waited::Interrupted)) {
        // However it was asked: nobody who does not read holds it up.
        ending::begin();
    }
    // A vCPU that waits for its output to be read must come back.
    output.close();
    let ended = vm.stop()?;
    let intact = check.map(|check| check.finish(matches!(waited, Ok(Waited::Interrupted))));
    output.flush_within(ending::at_most(FLUSH_LIMIT));
    lines.flush_within(ending::at_most(FLUSH_LIMIT));
    if let Some((trace, switches)) = watched {
        trace.add(switches);
    }
    if let Some(trace) = trace {
        trace.write()?;
    }
    drop(raw);
    if let Some(e) = output.take_error().filter(|e| !is_expected(e)) {
        stderr::message(format_args!(
            "the guest's output is lost, from some point on: standard output: {e}"
        ));
    }
    waited?;
    intact.unwrap_or(Ok(()))?;
    if config.stats {
        stderr::raw(&operator.stats_text()?);
    }
    verdict(&ended)
}

/// A VM, and threads for its vCPUs that began before it was built.
type Built = (Vm, JailedThreads);

/// A VM with a guest to boot. What the selection of features changed is said.
fn booted(
    config: &RunConfig,
    boot: &BootSource,
    host: &KvmHost,
    output: &Output,
    trace: Option<VmTrace>,
) -> Result<Built, RunError> {
    config.check(host.kvm.get_max_vcpus())?;
    // It fits, as it is no more than KVM runs.
    let threads = JailedThreads::spawn(usize::try_from(config.cpus).unwrap_or(usize::MAX))?;
    let memory = config.memory.bytes();
    let image = BootImage::load(boot, memory, config.cpus, config.hardware())?;
    let spec = VmSpec {
        vcpus: config.cpus,
        halt_kick: config.halt_kick(image.format(), xen::offered(&host.kvm))?,
        policy: config.policy(),
        pv: config.pv,
        enforce_features: true,
        map_gpa_range: false,
        platform: Platform::Pc(output.clone()),
        x2apic: config.x2apic,
        test_device: config.test_device,
        trace,
    };
    let effects = spec.effects_of_pv(Some(host))?;
    let vm = Vm::build(&spec, Some(host), &image)?;
    effects.iter().for_each(stderr::message);
    if let Some(why) = no_pv_locks(config, &vm.parts().negotiated, &effects) {
        stderr::message(why);
    }
    Ok((vm, threads))
}

/// Why a guest of several vCPUs that halt in this process runs without PV
/// spinlocks, unless `shown` has it already: nobody asked for that.
fn no_pv_locks(config: &RunConfig, offered: &Negotiated, shown: &[String]) -> Option<String> {
    let wanted = config.halt == HaltMode::Userspace && config.cpus > 1;
    let decision = offered.reason(KvmFeatures::PV_UNHALT)?;
    let missing = !offered.features.contains(KvmFeatures::PV_UNHALT);
    let why = decision.to_string();
    (wanted && missing && !shown.contains(&why)).then_some(why)
}

/// Gives the loop its subscribers and runs it to the guest's end.
fn supervise(
    vm: &mut RunningVm,
    control: Option<Socket>,
    com1: Option<Com1>,
    operator: &Operator,
    stats: StatsOnSignal,
    raw: &Option<RawMode>,
) -> Result<Waited, RunError> {
    if let Some(com1) = com1 {
        let console = Console::new(com1, vm.handle(), raw.is_some());
        let console = console.map_err(RunError::io("read standard input"))?;
        vm.subscribe(Box::new(console));
    }
    vm.subscribe(Box::new(stats));
    let kind = match &control {
        Some(_) => ThreadKind::Operated,
        None => ThreadKind::EventLoop,
    };
    if let Some(socket) = control {
        snapshot::prepare();
        let server = Server::new(socket, operator.clone());
        let server = server.map_err(RunError::io("serve the control socket"))?;
        vm.subscribe(Box::new(server));
    }
    // All that is opened is open.
    jail::enter(kind)?;
    Ok(vm.wait_first()?)
}

/// Whoever read it has gone, or reads no more: that is the reader's affair.
fn is_expected(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, Interrupted};
    matches!(error.kind(), BrokenPipe | Interrupted)
}

/// One answer for all vCPUs: a failure before an end, an end before a stop.
fn verdict(ended: &[Ended]) -> Result<RunEnd, RunError> {
    let mut end = RunEnd::Stopped;
    for (index, ended) in ended.iter().enumerate() {
        match ended {
            Ended::Stopped => {}
            Ended::Reset | Ended::PowerOff => end = RunEnd::Down,
            Ended::ExitPort(value) => end = RunEnd::ExitPort(*value),
            Ended::TripleFault(_) | Ended::Failed(..) => {
                let registers = ended.registers().map(|r| format!("{r}\n"));
                return Err(RunError::Vcpu {
                    index,
                    reason: ended.to_string(),
                    registers: registers.unwrap_or_default(),
                });
            }
        }
    }
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::registers::Registers;
    use kvm_bindings::{kvm_regs, kvm_sregs};

    #[test]
    fn statuses() {
        assert_eq!(RunEnd::Down.status(), 0);
        assert_eq!(RunEnd::ExitPort(3).status(), 7);
        assert_eq!(RunEnd::ExitPort(0xff).status(), 0xff);
    }

    #[test]
    fn a_failure_goes_before_an_end() {
        let end = verdict(&[Ended::Stopped, Ended::PowerOff]).unwrap();
        assert_eq!(end, RunEnd::Down);
        let error = verdict(&[Ended::ExitPort(0), Ended::TripleFault(None)]).unwrap_err();
        assert_eq!(error.to_string(), "vCPU 1: triple fault");
    }

    #[test]
    fn registers_of_a_reset_are_not_passed_off_as_the_guest_s() {
        let mut registers = Registers {
            regs: kvm_regs::default(),
            sregs: kvm_sregs::default(),
        };
        registers.regs.rip = 0xfff0;
        registers.sregs.cs.selector = 0xf000;
        let fault = |registers: &Registers| {
            let ended = Ended::TripleFault(Some(Box::new(registers.clone())));
            let error = verdict(&[ended]).unwrap_err();
            assert_eq!(error.to_string().lines().count(), 1);
            error.details().to_string()
        };
        assert_eq!(fault(&registers), "");
        registers.regs.rip = 0x10_0020;
        assert!(fault(&registers).contains("rip    0000000000100020"));
    }
}
