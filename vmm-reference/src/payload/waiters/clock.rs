//! The host's side of the clock that a guest reads by RDTSC.

#![expect(unsafe_code, reason = "RDTSC is an intrinsic that is declared unsafe")]

use std::time::Instant;

/// A clock that ticks as a guest's does, some constant apart.
#[derive(Clone, Copy, Debug)]
pub enum HostClock {
    /// The host's TSC: KVM adds an offset to it, or none.
    Tsc,
    /// Nanoseconds after this, the clock of a hosted guest.
    Since(Instant),
}

impl HostClock {
    /// Its ticks now.
    pub fn now(self) -> u64 {
        match self {
            // SAFETY: every x86-64 CPU has RDTSC, and Linux lets a process execute
            // it unless it has asked the kernel otherwise (PR_SET_TSC), which
            // nothing here does; it reads a counter and touches no memory.
            Self::Tsc => unsafe { core::arch::x86_64::_rdtsc() },
            Self::Since(epoch) => u64::try_from(epoch.elapsed().as_nanos()).unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::HostClock;
    use std::time::Instant;

    #[test]
    fn clocks_go_forward() {
        for clock in [HostClock::Tsc, HostClock::Since(Instant::now())] {
            let before = clock.now();
            std::thread::sleep(std::time::Duration::from_millis(1));
            assert!(clock.now() > before, "{clock:?}");
        }
    }
}
