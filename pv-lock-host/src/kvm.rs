//! What KVM is asked for by descriptor: kicks of vCPUs that halt inside KVM, and
//! vCPUs that leave the guest. No type of kvm-ioctls is part of it, so that any
//! version of it will do, and VMMs without it too.

mod immediate_exit;
mod ioctl;
mod kick;

pub use immediate_exit::ImmediateExit;
pub use kick::{KickFd, KvmKick, KvmKickError};
