#![doc = include_str!("../README.md")]
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(test)]
extern crate std;

mod bits;
mod document;
mod dump;
mod hide;
pub mod kernel;
#[cfg(all(feature = "kvm-bindings", target_arch = "x86_64"))]
pub mod kvm;
mod leaf;
mod migrate;
pub mod msr;
#[cfg(target_arch = "x86_64")]
mod native;
mod negotiate;
pub mod print;
mod profile;
mod reason;
mod select;
mod since;
mod table;
mod verify;
mod write;

pub use bits::{KvmFeatures, KvmHints, Singles};
pub use document::Document;
pub use dump::{Dump, DumpEntry};
pub use hide::{Hidden, hide};
pub use leaf::{
    CpuidReader, CpuidRegs, HYPERVISOR_BASE_END, HYPERVISOR_BASE_STEP, KVM_CPUID_FEATURES,
    KVM_CPUID_SIGNATURE, KVM_SIGNATURE, KVM_SIGNATURE_WORDS, KvmLeaf, possible_bases,
};
pub use migrate::{Migration, migratable};
#[cfg(target_arch = "x86_64")]
pub use native::Native;
pub use negotiate::{
    Exclusion, HaltService, KickService, Leaves, NegotiateError, Negotiated, VmmSupport, negotiate,
    offer,
};
pub use profile::Profile;
pub use reason::{Bit, Decision, Outcome, Reason};
pub use select::{ParseSelectionError, Selection, SelectionFault, Token};
pub use since::Since;
pub use table::{
    Arch, FEATURES, FeatureRow, GuestConditions, HINTS, HintRow, LOONGARCH_CPUCFG_FEATURE,
    LOONGARCH_CPUCFG_SIGNATURE, LOONGARCH_FEATURES, POWERPC_FEATURES, Provider, feature_named,
    features_of,
};
pub use verify::{Verified, verify};
pub use write::{CpuidTable, WriteError, write, write_at};
