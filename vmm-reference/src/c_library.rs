//! What this program does to the C library, for a quick start (`ci/boot-time`) and
//! little memory.

#![expect(
    unsafe_code,
    reason = "a setting of the C library, and a function in place of one of its"
)]

/// One arena of the allocator for all threads. An own one for each, as is usual,
/// costs a vCPU's thread five system calls and two pages at its start; it
/// allocates nothing while its guest runs. To be called before the first thread
/// is started.
pub fn share_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt changes settings of the allocator, under its lock; no
    // memory of ours is involved. If it refuses, all is as before.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// A large piece of memory goes back to the system when it is freed. As is usual, the
/// allocator keeps what is as large as one that was freed before: after its second
/// snapshot a VM would have the buffer's MiB for ever. To be called with
/// [`share_one_arena`].
pub fn give_back_large_pieces() {
    /// glibc's own at the start, which is not moved any more once it is set.
    #[cfg(target_env = "gnu")]
    const LARGE: libc::c_int = 128 << 10;
    #[cfg(target_env = "gnu")]
    // SAFETY: as above.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// `pow`, which indicatif alone calls, for its estimate of a speed. With one of our
/// own, the mathematical library is not loaded at each start.
// SAFETY: no other function of this program has the name, and it has the signature
// and the meaning of the C library's.
#[unsafe(no_mangle)]
pub extern "C" fn pow(x: f64, y: f64) -> f64 {
    libm::pow(x, y)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_the_power() {
        assert_eq!(super::pow(2.0, 10.0), 1024.0);
        assert_eq!(0.25_f64.powf(std::hint::black_box(-0.5)), 2.0);
    }
}
