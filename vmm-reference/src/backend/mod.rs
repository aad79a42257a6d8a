//! What runs guest code: KVM, or a host thread.
//!
//! The two differ only below the trait [`VcpuBackend`]; the vCPU loop, the
//! dispatch of hypercalls and the scheduler above it are the same.
//!
//! - [`Exit`]: why a vCPU left the guest;
//! - [`ExitRequest`]: makes it leave; [`Interruptible`]: interrupts it, where KVM
//!   has no local APIC; [`PrivateIo`]: answers what is the vCPU's own;
//! - [`kvm`], with [`xen`] for the Xen intercept and [`run_states`] for what comes
//!   with it: vCPUs of /dev/kvm;
//! - [`hosted`]: vCPUs that are programs of this process;
//! - [`GuestImage`]: what a VM is started with; [`mod@long_mode`]: the start
//!   state of the embedded guests;
//! - [`registers`]: what a vCPU was doing when it failed; [`SavedVcpu`]: all of a
//!   vCPU of KVM, as values.

mod backend_error;
mod exit;
mod exit_request;
mod guest_image;
pub mod hosted;
mod injection;
mod interrupt;
pub mod kvm;
pub mod long_mode;
pub mod registers;
pub mod run_states;
mod saved;
pub(crate) mod x86;
pub mod xen;

pub use backend_error::{BackendError, ioctl};
pub use exit::{Exit, Interruptible, PrivateIo, VcpuBackend};
pub use exit_request::ExitRequest;
pub use guest_image::GuestImage;
pub use interrupt::exit_on_msrs;
pub use saved::SavedVcpu;
