//! A virtual machine: described, built, started, watched and ended.
//!
//! ```text
//!  VmSpec + KvmHost + GuestImage --Vm::build--> Vm --start--> RunningVm + VmParts
//! ```
//!
//! Every VM of this program is built here, for whichever command:
//!
//! - [`VmSpec`]: what it is to be;
//! - [`Vm`]: built, not started; [`VmParts`]: what its owner keeps of it;
//! - [`JailedThreads`]: threads for its vCPUs that begin while it is built;
//! - [`RunningVm`]: its threads, and the event loop that watches them;
//! - [`VmHandle`]: pauses, resumes and stops it from within that loop;
//! - `saved`: all of it as values, and back: [`VmParts::save`], [`Vm::restore`];
//! - `kvm_vm`, `pc`: what KVM is asked for, and in which order.

mod build;
mod handle;
mod jailed_threads;
mod kvm_vm;
mod pc;
mod running;
mod saved;
mod spec;
mod state;
mod vm_error;

pub use build::{Vm, VmParts};
pub use handle::{NotPaused, VmHandle};
pub use jailed_threads::JailedThreads;
pub use running::{RunningVm, Waited};
pub use saved::Restore;
pub use spec::{Platform, VmSpec};
pub use vm_error::VmError;
