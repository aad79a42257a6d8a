//! Where the time of a hand-over goes: each part of a kick by itself, on
//! this host.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use cpuid_features::KvmFeatures;
use hypercall_abi::{Enforcement, KVM_HC_KICK_CPU, Mode, RawHypercall, dispatch};
use pv_lock_host::{ApicId, HaltScheduler, WakeReason};
use serde::Serialize;

use super::median;
use crate::backend::{BackendError, Exit, VcpuBackend as _};
use crate::demo::cell::{CellError, calibrate};
use crate::demo::{Backend, BackendKind, DemoError};
use crate::devices::Bus;
use crate::halt_mode::HaltMode;
use crate::host::KvmHost;
use crate::hypercall::Calls;
use crate::jail::{self, JailError, ThreadKind};
use crate::kicks::Kicks;
use crate::memory::MemoryError;
use crate::payload::image::CodeImage;
use crate::payload::{ABSENT_APIC_ID, loops};
use crate::signals::ending::{self, Interrupted};
use crate::transport::{HaltKick, Transport};
use crate::vm::{Vm, VmError, VmSpec};

/// Batches of each measurement; the median counts.
const BATCHES: usize = 15;

/// Why a figure is missing.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The main thread can't be put into the jail.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// No usable KVM.
    #[error(transparent)]
    Host(#[from] DemoError),
    /// The guest's VM.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// The guest's memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The guest's vCPU.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The guest's speed.
    #[error(transparent)]
    Cell(#[from] CellError),
    /// The scheduler of a measurement.
    #[error("halt/kick scheduler: {0}")]
    Scheduler(pv_lock_host::BuildError),
    /// A signal ended it.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The guest left its loop.
    #[error("the guest left its loop by {0:?}")]
    Left(Exit),
    /// A measuring thread is gone.
    #[error("a measuring thread ended early")]
    Thread,
}

/// One part of a hand-over.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// What happens in it.
    pub name: &'static str,
    /// Its time in nanoseconds, the median of several batches.
    pub ns: f64,
}

const HALT_KICK: HaltKick = HaltKick {
    halt: HaltMode::Userspace,
    transport: Transport::Port,
};

/// Measures all parts on /dev/kvm.
pub fn measure() -> Result<Vec<Part>, HandoverError> {
    let (backend, _) = Backend::choose(Some(BackendKind::Kvm))?;
    jail::enter(ThreadKind::Builder)?;
    let Some(host) = backend.host() else {
        return Ok(Vec::new());
    };
    let speed = calibrate(&backend, &VmSpec::bare(1, HALT_KICK))?;
    let round = 1e9 / speed.rounds_per_s();
    Ok(vec![
        Part {
            name: "guest: one spin round (5 instructions)",
            ns: round,
        },
        Part {
            name: "HLT exit, back to userspace and in again",
            ns: exits(host, loops::halts())?,
        },
        Part {
            name: "doorbell exit with registers and result, and in again",
            ns: exits(host, loops::doorbell_kicks())?,
        },
        Part {
            name: "decode and dispatch of the kick",
            ns: dispatched()?,
        },
        Part {
            name: "kick of a running vCPU and its halt (latched)",
            ns: latched()?,
        },
        Part {
            name: "kick of a parked vCPU until it runs (futex wake)",
            ns: woken()?,
        },
    ])
}

/// Nanoseconds of one call of `operation`.
fn time<E: From<Interrupted>>(
    count: u32,
    mut operation: impl FnMut() -> Result<(), E>,
) -> Result<f64, E> {
    let mut batches = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        ending::check()?;
        let begin = Instant::now();
        for _ in 0..count {
            operation()?;
        }
        batches.push(begin.elapsed().as_nanos() as f64 / f64::from(count));
    }
    Ok(median(&mut batches))
}

/// A guest whose every few instructions are an exit.
fn exits(host: &KvmHost, code: &[u8]) -> Result<f64, HandoverError> {
    let image = CodeImage::new(1, code)?;
    let vm = Vm::build(&VmSpec::bare(1, HALT_KICK), Some(host), &image)?;
    let mut vcpu = vm.into_kvm_vcpus().pop().ok_or(HandoverError::Thread)?;
    let bus = Bus::default();
    time(200, || match vcpu.run(&bus, &mut ())? {
        Exit::Halt | Exit::Interrupted => Ok(()),
        Exit::Hypercall(call) => {
            black_box(call);
            vcpu.set_result(0);
            Ok(())
        }
        other => Err(HandoverError::Left(other)),
    })
}

/// What happens between the exit and the scheduler.
fn dispatched() -> Result<f64, HandoverError> {
    let ids = [ApicId(0)];
    let (scheduler, mut parkers) = HaltScheduler::new(&ids).map_err(HandoverError::Scheduler)?;
    let mut parker = parkers.remove(0);
    let calls = Calls::new(Kicks::new(scheduler.kicker(), None), &ids);
    let call = RawHypercall {
        nr: KVM_HC_KICK_CPU,
        args: [0, ABSENT_APIC_ID.into(), 0, 0],
        mode: Mode::Bits64,
        cpl: 0,
    };
    let enforced = Enforcement::Enforced(KvmFeatures::PV_UNHALT);
    time(100_000, || {
        black_box(dispatch(
            black_box(&call),
            enforced,
            &mut calls.by(&mut parker),
        ));
        Ok(())
    })
}

/// Both ends of a kick on one thread.
fn latched() -> Result<f64, HandoverError> {
    let ids = [ApicId(0)];
    let (scheduler, mut parkers) = HaltScheduler::new(&ids).map_err(HandoverError::Scheduler)?;
    let (kicker, mut parker) = (scheduler.kicker(), parkers.remove(0));
    time(100_000, || {
        black_box(kicker.kick_by_host(black_box(ApicId(0))));
        black_box(parker.halt());
        Ok(())
    })
}

/// Half of a ping-pong of two threads that kick each other.
fn woken() -> Result<f64, HandoverError> {
    let ids = [ApicId(0), ApicId(1)];
    let (scheduler, mut parkers) = HaltScheduler::new(&ids).map_err(HandoverError::Scheduler)?;
    let (kicker, mut pong, mut ping) = (scheduler.kicker(), parkers.remove(1), parkers.remove(0));
    let other = scheduler.kicker();
    let thread = std::thread::spawn(move || {
        while pong.halt() == WakeReason::Kicked {
            other.kick_by_host(ApicId(0));
        }
    });
    let result = time(2000, || {
        kicker.kick_by_host(ApicId(1));
        match ping.halt() {
            WakeReason::Kicked => Ok(()),
            _ => Err(HandoverError::Thread),
        }
    });
    kicker.stop_all();
    thread.join().map_err(|_| HandoverError::Thread)?;
    Ok(result? / 2.0)
}

/// The table, and what follows from it.
pub fn text(parts: &[Part]) -> String {
    let mut out = String::new();
    for part in parts {
        // Writing to a String does not fail.
        let _ = writeln!(out, "{:<55} {:>10.1} ns", part.name, part.ns);
    }
    out
}
