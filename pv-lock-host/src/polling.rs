//! Waiting awake for a while before sleeping: halt polling.
//!
//! A sleep and a wake-up cost several microseconds; a kick that comes sooner is
//! served faster by a vCPU that is still looking. The rules are KVM's
//! (`virt/kvm/kvm_main.c`, `kvm_vcpu_halt`), and one that KVM does not have:
//! nobody polls while more vCPUs of the VM want to run than there are host
//! CPUs, for then the poll takes its CPU from the very vCPU that it waits for.

use core::time::Duration;

/// How long a halted vCPU looks for a kick before its thread sleeps.
///
/// ```
/// use std::time::Duration;
/// use pv_lock_host::{ApicId, HaltScheduler, Polling};
///
/// let polling = Polling::Fixed(Duration::from_micros(20));
/// let (scheduler, parkers) = HaltScheduler::builder().polling(polling).build(&[ApicId(0)])?;
/// # Ok::<(), pv_lock_host::BuildError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Polling {
    /// No polling: the thread sleeps at once.
    Off,
    /// Polling for this long at each halt.
    Fixed(Duration),
    /// Polling for as long as it has been useful lately, by a window for each
    /// vCPU.
    Adaptive(AdaptivePolling),
}

/// KVM's parameters of adaptive polling, by KVM's names; the default values are
/// those of KVM on x86.
///
/// ```
/// use std::time::Duration;
/// use pv_lock_host::{AdaptivePolling, Polling};
///
/// let mut adaptive = AdaptivePolling::default(); // KVM's on x86
/// adaptive.max = Duration::from_micros(50);
/// let polling = Polling::Adaptive(adaptive);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct AdaptivePolling {
    /// `halt_poll_ns`: the longest window. Zero: no polling.
    pub max: Duration,
    /// `halt_poll_ns_grow`: factor of growth. Zero: the window never grows.
    pub grow: u32,
    /// `halt_poll_ns_grow_start`: the smallest window that is not zero.
    pub grow_start: Duration,
    /// `halt_poll_ns_shrink`: divisor of shrinking. Zero: the window becomes
    /// zero at once.
    pub shrink: u32,
}

impl Default for AdaptivePolling {
    fn default() -> Self {
        Self {
            max: Duration::from_micros(200),
            grow: 2,
            grow_start: Duration::from_micros(10),
            shrink: 2,
        }
    }
}

/// The polling state of one vCPU: arithmetic only, no clock.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Window {
    Fixed(u64),
    Adaptive { ns: u64, rule: Rule },
}

/// [`AdaptivePolling`] in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    max: u64,
    grow: u64,
    grow_start: u64,
    shrink: u64,
}

impl Window {
    pub(crate) fn new(polling: Polling) -> Self {
        match polling {
            Polling::Off => Self::Fixed(0),
            Polling::Fixed(window) => Self::Fixed(nanos(window)),
            Polling::Adaptive(p) => Self::Adaptive {
                ns: 0,
                rule: Rule {
                    max: nanos(p.max),
                    grow: p.grow.into(),
                    grow_start: nanos(p.grow_start),
                    shrink: p.shrink.into(),
                },
            },
        }
    }

    /// Whether the length of a halt matters.
    pub(crate) const fn adapts(&self) -> bool {
        matches!(self, Self::Adaptive { .. })
    }

    /// How long the halt that begins now may poll, in ns.
    #[inline]
    pub(crate) fn begin(&mut self) -> u64 {
        match self {
            Self::Fixed(ns) => *ns,
            Self::Adaptive { ns, rule } => {
                *ns = (*ns).min(rule.max);
                *ns
            }
        }
    }

    /// A halt that was allowed to poll took `halted` ns, poll and sleep.
    #[inline]
    pub(crate) fn end(&mut self, halted: u64) {
        if let Self::Adaptive { ns, rule } = self {
            *ns = rule.next(*ns, halted);
        }
    }
}

impl Rule {
    /// The window after a halt of `halted` ns that had the window `ns`.
    fn next(&self, ns: u64, halted: u64) -> u64 {
        if self.max == 0 {
            0
        } else if halted <= ns {
            ns
        } else if ns > 0 && halted > self.max {
            self.shrunk(ns)
        } else if ns < self.max && halted < self.max {
            self.grown(ns)
        } else {
            ns
        }
    }

    /// Not clamped to the maximum here: [`Window::begin`] does, as KVM does.
    fn grown(&self, ns: u64) -> u64 {
        if self.grow == 0 {
            ns
        } else {
            ns.saturating_mul(self.grow).max(self.grow_start)
        }
    }

    fn shrunk(&self, ns: u64) -> u64 {
        match ns.checked_div(self.shrink) {
            Some(less) if less >= self.grow_start => less,
            _ => 0,
        }
    }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: u64 = 1_000;

    fn adaptive(p: AdaptivePolling) -> Window {
        Window::new(Polling::Adaptive(p))
    }

    /// Windows that follow on halts of these lengths.
    fn windows(mut window: Window, halts: &[u64]) -> Vec<u64> {
        halts
            .iter()
            .map(|&halted| {
                window.begin();
                window.end(halted);
                window.begin()
            })
            .collect()
    }

    /// Values worked out by hand from the rules of `kvm_vcpu_halt` and the
    /// parameters 200000/2/10000/2 (KVM's documentation, halt-polling.rst).
    #[test]
    fn kvm_rules_with_kvm_defaults() {
        let default = AdaptivePolling::default();
        // Short halts grow it: 0, 10, 20, 40, 80, 160, then 320 clamped to 200.
        assert_eq!(
            windows(adaptive(default), &[199 * US; 7]),
            [10, 20, 40, 80, 160, 200, 200].map(|us| us * US)
        );
        // A halt within the window leaves it.
        assert_eq!(
            windows(adaptive(default), &[50 * US, 9 * US, 10 * US]),
            [10 * US; 3]
        );
        // Long halts shrink it, and below the start it is nothing.
        assert_eq!(
            windows(
                adaptive(default),
                &[50 * US, 50 * US, 50 * US, 201 * US, 201 * US, 201 * US]
            ),
            [10, 20, 40, 20, 10, 0].map(|us| us * US)
        );
        // Exactly the maximum neither grows nor shrinks.
        assert_eq!(
            windows(adaptive(default), &[200 * US, 50 * US, 200 * US]),
            [0, 10 * US, 10 * US]
        );
    }

    #[test]
    fn zero_parameters_mean_what_they_mean_in_kvm() {
        let default = AdaptivePolling::default();
        let no_max = AdaptivePolling {
            max: Duration::ZERO,
            ..default
        };
        assert_eq!(windows(adaptive(no_max), &[50 * US; 3]), [0; 3]);
        let no_grow = AdaptivePolling { grow: 0, ..default };
        assert_eq!(windows(adaptive(no_grow), &[50 * US; 3]), [0; 3]);
        let no_shrink = AdaptivePolling {
            shrink: 0,
            ..default
        };
        assert_eq!(
            windows(adaptive(no_shrink), &[50 * US, 50 * US, 201 * US]),
            [10 * US, 20 * US, 0]
        );
    }

    #[test]
    fn no_parameter_overflows() {
        let huge = AdaptivePolling {
            max: Duration::MAX,
            grow: u32::MAX,
            grow_start: Duration::MAX,
            shrink: u32::MAX,
        };
        windows(adaptive(huge), &[0, 1, u64::MAX - 1, u64::MAX, 1]);
    }
}
