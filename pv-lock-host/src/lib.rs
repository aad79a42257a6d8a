#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("pv-lock-host parks threads on a Linux futex");

mod apic_id;
mod builder;
mod counters;
#[cfg(not(any(loom, shuttle)))]
mod futex;
mod gate;
mod histogram;
mod kicker;
#[cfg(feature = "kvm")]
mod kvm;
mod outcome;
mod parker;
mod polling;
mod saved;
mod scheduler;
mod slot;
mod state;
mod sync;
mod table;
mod yielding;

pub use apic_id::ApicId;
pub use builder::{BuildError, SchedulerBuilder};
pub use counters::{Counters, VcpuCounters};
pub use histogram::Histogram;
pub use kicker::Kicker;
#[cfg(feature = "kvm")]
pub use kvm::{KickFd, KvmKick, KvmKickError};
pub use outcome::{KickOutcome, Resumed, WakeReason};
pub use parker::VcpuParker;
pub use polling::{AdaptivePolling, Polling};
pub use saved::{SavedError, SavedScheduler, SavedVcpu};
pub use scheduler::HaltScheduler;
pub use yielding::{RunCap, Yielding};
