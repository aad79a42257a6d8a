//! The guests that live in this binary.
//!
//! - [`layout`]: the pages that guest and host share;
//! - [`code`]: the machine code, for the KVM backend;
//! - [`loops`]: one exit again and again, for `bench`;
//! - [`machine`]: the lock program once more as a state machine, for the hosted
//!   backend, over the same pages;
//! - [`program`]: what such a state machine is to that backend;
//! - [`script`]: the guest of the conformance list, both ways.

pub mod code;
pub mod layout;
pub mod loops;
pub mod machine;
pub mod program;
pub mod script;

/// An APIC ID that no VM of this binary gives to a vCPU: a kick for it reaches
/// nobody, and KVM answers 0 all the same.
pub const ABSENT_APIC_ID: u32 = 0x7fff_fffe;
