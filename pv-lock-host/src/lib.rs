#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(target_os = "linux"))]
compile_error!("pv-lock-host parks threads on a Linux futex");

mod apic_id;
mod builder;
mod futex;
mod kicker;
mod outcome;
mod parker;
mod scheduler;
mod slot;
mod state;
mod sync;
mod table;

pub use apic_id::ApicId;
pub use builder::{BuildError, SchedulerBuilder};
pub use kicker::Kicker;
pub use outcome::{KickOutcome, Resumed, WakeReason};
pub use parker::VcpuParker;
pub use scheduler::HaltScheduler;
