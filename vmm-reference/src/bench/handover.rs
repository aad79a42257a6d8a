//! Where the time of a hand-over goes: each part of a kick's way by itself, on
//! this host.

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use cpuid_features::{KvmFeatures, Selection};
use hypercall_abi::{Enforcement, KVM_HC_KICK_CPU, Mode, RawHypercall, dispatch};
use kvm_ioctls::Kvm;
use pv_lock_host::{ApicId, HaltScheduler, WakeReason};
use serde::Serialize;

use super::median;
use crate::backend::kvm::KvmVcpu;
use crate::backend::{BackendError, Exit, VcpuBackend as _, state};
use crate::cpuid::{self, CpuidError};
use crate::demo::cell::{CellError, calibrate};
use crate::demo::{Backend, BackendChoice, DemoError};
use crate::devices::Bus;
use crate::hypercall::{Calls, Kicks};
use crate::memory::{self, MemoryError};
use crate::payload::{ABSENT_APIC_ID, loops};
use crate::vm::{KvmVm, VmSetup};
use crate::way::{DoorKind, Halt, Way};

/// Batches of each measurement; the median counts.
const BATCHES: usize = 15;

/// Why a figure is missing.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// No usable KVM.
    #[error(transparent)]
    Host(#[from] DemoError),
    /// The guest's CPUID.
    #[error(transparent)]
    Cpuid(#[from] CpuidError),
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
    /// The guest left its loop.
    #[error("the guest left its loop by {0:?}")]
    Left(Exit),
    /// A measuring thread is gone.
    #[error("a measuring thread ended early")]
    Thread,
}

/// One part of the way.
#[derive(Clone, Debug, Serialize)]
pub struct Part {
    /// What.
    pub name: &'static str,
    /// Nanoseconds, the median of several batches.
    pub ns: f64,
}

const WAY: Way = Way {
    halt: Halt::Userspace,
    door: DoorKind::Port,
};

/// Measures all parts on /dev/kvm.
pub fn measure() -> Result<Vec<Part>, HandoverError> {
    let (backend, _) = Backend::choose(BackendChoice::Kvm)?;
    let Backend::Kvm { kvm, features, .. } = &backend else {
        return Ok(Vec::new());
    };
    let offered = cpuid::offer(*features, &cpuid::userspace_halts(1), &Selection::default())?;
    let round = 1e9 / calibrate(&backend, WAY, &offered)?.rounds_per_s();
    Ok(vec![
        Part {
            name: "guest: one spin round (5 instructions)",
            ns: round,
        },
        Part {
            name: "HLT exit, back to userspace and in again",
            ns: exits(kvm, loops::halts())?,
        },
        Part {
            name: "doorbell exit with registers and result, and in again",
            ns: exits(kvm, loops::doorbell_kicks())?,
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
fn time<E>(count: u32, mut operation: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    let mut batches = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let begin = Instant::now();
        for _ in 0..count {
            operation()?;
        }
        batches.push(begin.elapsed().as_nanos() as f64 / f64::from(count));
    }
    Ok(median(&mut batches))
}

/// A guest whose every few instructions are an exit.
fn exits(kvm: &Kvm, code: &[u8]) -> Result<f64, HandoverError> {
    let memory = Arc::new(memory::build(1, code)?);
    let vm = KvmVm::new(kvm, Arc::clone(&memory), VmSetup::new(WAY))?;
    let (host, features) = cpuid::supported(kvm)?;
    let offered = cpuid::offer(features, &cpuid::userspace_halts(1), &Selection::default())?;
    let mut vcpu: KvmVcpu = vm.vcpu(0, &cpuid::for_vcpu(&host, &offered, 0)?)?;
    let (rdi, rsi) = (memory::result_page(0), memory::PARAM_PAGE);
    state::long_mode(&vcpu, memory::PAGE_TABLES, memory::CODE, rdi, rsi)?;
    let bus = Bus::default();
    time(200, || match vcpu.run(&bus)? {
        Exit::Halt | Exit::Interrupted => Ok(()),
        Exit::Hypercall(call, _) => {
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
    let calls = Calls::new(Kicks::Userspace(scheduler.kicker()), &ids);
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
        black_box(kicker.kick(black_box(ApicId(0))));
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
            other.kick(ApicId(0));
        }
    });
    let result = time(2000, || {
        kicker.kick(ApicId(1));
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
