//! Descriptors across an exec: none, but the three standard ones.

#![expect(unsafe_code, reason = "close_range has no safe wrapper")]

/// All that are open now are closed by an exec. Ours are from the start; this is for
/// those of dependencies, and for what this program was started with.
pub(super) fn close_on_exec() {
    let flags = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
    // SAFETY: with this flag nothing is closed, so that no owner of a descriptor is
    // deceived. A kernel before 5.11 refuses it; exec is in no filter anyway.
    let _ = unsafe { libc::close_range(3, libc::c_uint::MAX, flags) };
}
