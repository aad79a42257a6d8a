//! `run`'s arguments.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use cpuid_features::Selection;
use rustix::process::Pid;

use super::AnyError;
use super::auto::{self, Auto};
use super::jail::JailArgs;
use crate::boot::BootSource;
use crate::halt_mode::HaltMode;
use crate::jail::user::{self, User};
use crate::policy::YieldPolicy;
use crate::run::config::{MemorySize, RunConfig, Source};
use crate::run::{self, RunEnd};
use crate::signals::ending;
use crate::stderr;
use crate::transport::Transport;

/// Boot a guest with its serial console on standard input and output.
///
/// Linux (bzImage, or an uncompressed vmlinux), or a multiboot 1 program. On a
/// terminal, Ctrl-A x ends the VM; SIGUSR1 prints a line of statistics. Status:
/// 0 the guest turned itself off or reset, or the VM was asked to end;
/// (v << 1) | 1 after a write of v to port 0xf4; 1 an error.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Path of the kernel
    #[arg(long, value_name = "FILE", required_unless_present = "restore")]
    kernel: Option<PathBuf>,
    /// Go on with a VM from the snapshot at this path, in place of a boot; it says
    /// all else about the VM
    #[arg(
        long,
        value_name = "PATH",
        conflicts_with_all = ["kernel", "initrd", "cmdline", "cpus", "memory", "halt", "no_x2apic", "pv"]
    )]
    restore: Option<PathBuf>,
    /// Path of its initial RAM disk, or of a multiboot kernel's module
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Its command line
    #[arg(
        long,
        default_value = "console=ttyS0",
        allow_hyphen_values = true,
        value_name = "TEXT"
    )]
    cmdline: String,
    /// Number of vCPUs
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cpus: u32,
    /// Size of guest memory: 256M, 1G, 65536K, or bytes
    #[arg(long, default_value = "256M", value_name = "SIZE")]
    memory: MemorySize,
    /// Who puts a halted vCPU to sleep
    #[arg(long, default_value = "kernel")]
    halt: HaltMode,
    /// How the guest's hypercalls, its kicks among them, reach this process; auto:
    /// with --halt userspace as the guest makes them, else not at all: KVM serves
    /// them. With --halt kernel they are passed on to KVM
    #[arg(long, default_value = "auto", value_parser = auto::parser::<Transport>())]
    transport: Auto<Transport>,
    /// What stands in for KVM's directed yield after a kick that comes to this
    /// process; by default nothing with --halt userspace (Linux's waiters seldom halt,
    /// and holds gain nothing), else hold
    #[arg(long = "yield", value_enum, value_name = "POLICY")]
    yielding: Option<YieldPolicy>,
    /// With --halt userspace: the guest's local APICs have no x2APIC mode
    #[arg(long)]
    no_x2apic: bool,
    /// Paravirtual features by name, on and off
    #[arg(
        long,
        default_value = "",
        allow_hyphen_values = true,
        value_name = "+NAME,-NAME"
    )]
    pv: Selection,
    /// A device for test suites, as QEMU's pc-testdev: a byte to port 0x2000 + N sets
    /// GSI N, what is written to ports 0xe0 to 0xe3 and to 64 KiB at 0xff000000 is read
    /// back
    #[arg(long)]
    test_device: bool,
    /// Print counts of exits, halts, hypercalls and kicks at the end and at
    /// SIGUSR1, KVM's and this process's, on standard error
    #[arg(long)]
    stats: bool,
    /// Serve requests on a socket at this path, a JSON object a line: status,
    /// stats, pause, resume, kick, stop, snapshot
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// Write what each vCPU did to this file, for Perfetto: its last 20,000 events
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Become this user and this group, by number, once all that is needed is open:
    /// for who starts it as root. The control socket's directory is to be this user's,
    /// and so is one that snapshots are written to
    #[arg(long, value_name = "UID:GID", conflicts_with = "no_jail")]
    user: Option<User>,
    /// End when this process does, which has started this one
    #[arg(long, hide = true, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..), conflicts_with = "user")]
    parent: Option<i32>,
    #[command(flatten)]
    jail: JailArgs,
}

impl super::Subcommand for RunArgs {
    const NAME: &str = "run";
    const ABOUT: &str = "Boot a guest with its serial console on standard input and output";

    fn run(self) -> Result<ExitCode, AnyError> {
        self.jail.arm()?;
        self.user.into_iter().for_each(user::choose);
        // To be asked to end is one of its ordinary ends.
        let _ = ending::limit(RunEnd::Stopped.status());
        if let Some(parent) = self.parent.and_then(Pid::from_raw) {
            ending::with_parent(parent)?;
        }
        let config = RunConfig {
            source: match self.restore {
                Some(path) => Source::Snapshot(path),
                None => Source::Boot(BootSource {
                    // Without a snapshot the arguments have one.
                    kernel: self.kernel.unwrap_or_default(),
                    initrd: self.initrd,
                    cmdline: self.cmdline,
                }),
            },
            cpus: self.cpus,
            memory: self.memory,
            halt: self.halt,
            transport: self.transport.chosen(),
            yielding: self.yielding,
            x2apic: !self.no_x2apic,
            test_device: self.test_device,
            pv: self.pv,
            stats: self.stats,
            control: self.control,
            trace: self.trace,
        };
        Ok(match run::run(&config) {
            Ok(end) => ExitCode::from(end.status()),
            Err(e) => {
                stderr::message(&e);
                stderr::raw(e.details());
                ExitCode::FAILURE
            }
        })
    }
}
