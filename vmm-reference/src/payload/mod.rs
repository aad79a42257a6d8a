//! The guests that live in this binary.
//!
//! - [`layout`]: the pages that guest and host share;
//! - [`image`]: what lies where in their memory;
//! - `assembly`: where their machine code is made, and the pieces of it that they
//!   share; `machine`: what their state machines share;
//! - [`lock`]: the lock program, as a guest;
//! - [`lock_code`]: its machine code, for the KVM backend; for the hosted backend it
//!   is the study's state machine, over the same pages;
//! - [`calls`]: one hypercall, for `probe`;
//! - [`loops`]: one exit again and again, for `bench`;
//! - [`script`]: the guest of the conformance list, both as code and machine;
//! - [`waiters`]: the study's guest, both too, in more ways than the lock program.

mod assembly;
pub mod calls;
pub mod image;
pub mod layout;
pub mod lock;
pub mod lock_code;
pub mod loops;
mod machine;
pub mod script;
pub mod waiters;

/// An APIC ID that no VM of this binary gives to a vCPU: a kick for it reaches
/// nobody, and KVM answers 0 all the same.
pub const ABSENT_APIC_ID: u32 = 0x7fff_fffe;
