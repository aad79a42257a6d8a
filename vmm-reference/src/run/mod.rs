//! `vmm-reference run`: boots a guest, with its serial console on standard
//! input and output.

mod console;
mod guest;
pub mod machine;

use std::io;
use std::time::Duration;

use pv_lock_host::{BuildError, KvmKickError};
use vmm_sys_util::eventfd::EventFd;

use crate::backend::BackendError;
use crate::boot::BootError;
use crate::config::{ConfigError, RunConfig};
use crate::control::{ControlError, Server, Socket};
use crate::cpuid::CpuidError;
use crate::devices::output::Output;
use crate::devices::serial::Com1;
use crate::host::{self, HostError};
use crate::memory::MemoryError;
use crate::signals;
use crate::stats::StatsError;
use crate::tell;
use crate::terminal::RawMode;
use crate::threads::VcpuThreads;
use crate::vcpu::Ended;
use crate::vmm::{Vmm, VmmError, Waited};
use console::Console;
use guest::{Guest, StatsOnSignal};
use machine::Machine;

/// How long the guest's last words may take to be written.
const FLUSH_LIMIT: Duration = Duration::from_millis(300);

/// Why a guest could not be run, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No KVM.
    #[error(transparent)]
    Host(#[from] HostError),
    /// This host can't give what was asked for.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The kernel, the initrd or the command line.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The CPUID.
    #[error(transparent)]
    Cpuid(#[from] CpuidError),
    /// KVM.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// KVM's statistics.
    #[error(transparent)]
    Stats(#[from] StatsError),
    /// The control socket.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Kicks of many vCPUs.
    #[error(transparent)]
    Kick(#[from] KvmKickError),
    /// The scheduler.
    #[error("halt/kick scheduler: {0}")]
    Scheduler(BuildError),
    /// The threads and the loop.
    #[error(transparent)]
    Vmm(#[from] VmmError),
    /// The system refused something.
    #[error("can't {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// A vCPU failed.
    #[error("vCPU {index}: {reason}")]
    Vcpu {
        /// Which.
        index: usize,
        /// What happened; registers on further lines.
        reason: String,
    },
}

impl RunError {
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
pub fn run(config: &RunConfig) -> Result<RunEnd, RunError> {
    let kvm = host::open_kvm()?;
    let output = Output::default();
    let machine = Machine::build(&kvm, config, output.clone())?;
    let stats_request = signals::install_stats().map_err(RunError::io("handle SIGUSR1"))?;
    let control = config.control.as_deref().map(Socket::bind).transpose()?;
    let raw = RawMode::enter().map_err(RunError::io("make the terminal raw"))?;
    let kicker = machine.scheduler.kicker();
    let mut vmm = Vmm::start(machine.vcpus, kicker, VcpuThreads::by_signal())?;
    // Not before the guest runs: what it prints meanwhile is kept.
    let writing = output.write_to(io::stdout());
    let (kicks, stats, bus) = (machine.kicks, machine.stats, machine.bus);
    let guest = Guest::new(vmm.handle(), kicks, stats, bus, vmm.started());
    let waited = writing
        .map_err(RunError::io("start the console"))
        .and_then(|()| supervise(&mut vmm, control, machine.com1, &guest, stats_request, &raw));
    if matches!(waited, Ok(Waited::Ended)) {
        output.flush_within(FLUSH_LIMIT);
    }
    // A vCPU that waits for its output to be read must come back.
    output.close();
    let ended = vmm.stop()?;
    output.flush_within(FLUSH_LIMIT);
    drop(raw);
    waited?;
    if config.stats {
        tell::text(&guest.kvm_stats()?.text());
    }
    verdict(ended)
}

/// Gives the loop its subscribers and runs it to the guest's end.
fn supervise(
    vmm: &mut Vmm,
    control: Option<Socket>,
    com1: Com1,
    guest: &Guest,
    stats_request: &'static EventFd,
    raw: &Option<RawMode>,
) -> Result<Waited, RunError> {
    let console = Console::new(com1, vmm.handle(), raw.is_some());
    vmm.subscribe(Box::new(console));
    vmm.subscribe(Box::new(StatsOnSignal {
        request: stats_request,
        guest: guest.clone(),
    }));
    if let Some(socket) = control {
        vmm.subscribe(Box::new(Server::new(socket, guest.clone())));
    }
    Ok(vmm.wait_first()?)
}

/// One answer for all vCPUs: a failure before an end, an end before a stop.
fn verdict(ended: Vec<Ended>) -> Result<RunEnd, RunError> {
    let mut end = RunEnd::Stopped;
    for (index, ended) in ended.into_iter().enumerate() {
        let (reason, registers) = match ended {
            Ended::Stopped => continue,
            Ended::Reset | Ended::PowerOff => {
                end = RunEnd::Down;
                continue;
            }
            Ended::ExitPort(value) => {
                end = RunEnd::ExitPort(value);
                continue;
            }
            Ended::TripleFault(Some(registers)) if registers.are_reset() => {
                let reason = "triple fault; KVM has reset its registers, as on AMD";
                (reason.to_string(), None)
            }
            Ended::TripleFault(registers) => ("triple fault".to_string(), registers),
            Ended::Failed(e, registers) => (e.to_string(), registers),
        };
        let registers = registers.map_or_else(String::new, |r| format!("\n{r}"));
        return Err(RunError::Vcpu {
            index,
            reason: format!("{reason}{registers}"),
        });
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
        let end = verdict(vec![Ended::Stopped, Ended::PowerOff]).unwrap();
        assert_eq!(end, RunEnd::Down);
        let error = verdict(vec![Ended::ExitPort(0), Ended::TripleFault(None)]).unwrap_err();
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
            verdict(vec![ended]).unwrap_err().to_string()
        };
        assert_eq!(fault(&registers).lines().count(), 1);
        registers.regs.rip = 0x10_0020;
        assert!(fault(&registers).contains("rip    0000000000100020"));
    }
}
