//! Capabilities of a thread, dropped.

use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities,
};

use super::JailError;

/// The calling thread has none any more, and can get none: with no_new_privs not by
/// exec either, so that the bounding set need not be emptied, which would take a
/// capability.
pub(super) fn drop_all() -> Result<(), JailError> {
    // A kernel before 4.3 has no ambient ones.
    let _ = clear_ambient_capability_set();
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(JailError::refused("drop capabilities"))
}
