#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(feature = "std"), no_std)]
// Nothing but KVM's ioctls and its `kvm_run` need it.
#![cfg_attr(not(feature = "kvm"), forbid(unsafe_code))]

#[cfg(all(feature = "std", not(target_os = "linux")))]
compile_error!("with the feature `std` threads are parked on a Linux futex");

extern crate alloc;

mod apic_id;
mod builder;
mod convoy;
mod counters;
mod histogram;
mod kicker;
#[cfg(all(feature = "kvm", target_arch = "x86_64"))]
mod kvm;
#[cfg(feature = "std")]
mod linux;
mod load;
mod outcome;
mod parker;
#[cfg(feature = "std")]
mod pcpus;
mod platform;
mod polling;
mod saved;
mod scheduler;
mod shared;
mod slot;
mod state;
mod table;
mod yielding;

pub use apic_id::ApicId;
pub use builder::{BuildError, SchedulerBuilder};
pub use counters::{Counters, VcpuCounters};
pub use histogram::Histogram;
pub use kicker::Kicker;
#[cfg(all(feature = "kvm", target_arch = "x86_64"))]
pub use kvm::{ImmediateExit, KickFd, KvmKick, KvmKickError};
#[cfg(feature = "std")]
pub use linux::Linux;
pub use outcome::{Interruption, KickOutcome, Resumed, WakeReason};
pub use parker::VcpuParker;
#[cfg(feature = "std")]
pub use pcpus::Pcpus;
pub use platform::{DefaultPlatform, Place, Platform, Spin, Waited, Word};
pub use polling::{AdaptivePolling, Polling};
pub use saved::{SavedError, SavedScheduler, SavedVcpu};
pub use scheduler::{AttachError, HaltScheduler};
pub use yielding::{HoldPolicy, Yielding};
