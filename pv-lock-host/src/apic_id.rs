//! The name a guest calls a vCPU by.

use core::fmt;

/// A local APIC ID, 32 bits wide as in x2APIC mode.
///
/// It is what a guest passes to `KVM_HC_KICK_CPU`, and it is not an index: ids
/// may be sparse, and a topology may leave holes in them.
///
/// ```
/// use pv_lock_host::ApicId;
///
/// assert_eq!(ApicId::from(0x101), ApicId(257));
/// assert_eq!(ApicId(257).to_string(), "257");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct ApicId(pub u32);

impl fmt::Display for ApicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl From<u32> for ApicId {
    fn from(id: u32) -> Self {
        Self(id)
    }
}
