//! Guest memory in core dumps: none. What a guest keeps is its owner's, and a dump
//! goes to whoever looks after the host.

#![expect(unsafe_code, reason = "madvise is given an address")]

use rustix::mm::{Advice, madvise};
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

use super::GuestMemory;

/// Leaves it out.
pub(super) fn leave_out(memory: &GuestMemory) {
    for region in memory.iter() {
        let Ok(len) = usize::try_from(region.len()) else {
            continue;
        };
        // SAFETY: the range is one mapping, which lives as long as `memory`, and the
        // advice changes nothing that can be read or written there. It fails for no
        // such mapping.
        let _ = unsafe { madvise(region.as_ptr().cast(), len, Advice::LinuxDontDump) };
    }
}
