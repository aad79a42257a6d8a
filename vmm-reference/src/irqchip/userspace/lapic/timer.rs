//! The timer: a count that goes down, once or again and again.

use serde::{Deserialize, Serialize};

/// Ticks a second before division: one a nanosecond, as in KVM and QEMU.
pub const TIMER_HZ: u64 = 1_000_000_000;
/// The shortest period, in nanoseconds. As KVM's `min_timer_period_us`: without
/// it a guest could have the host do nothing but tick.
pub const MIN_PERIOD_NS: u64 = 200_000;

/// Bits of the divide configuration register that count.
pub(super) const DIVIDE_WRITABLE: u32 = 0b1011;

/// A local APIC's timer. Times are the caller's, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Timer {
    initial: u32,
    divide: u32,
    /// When the count reaches 0; none if it has stopped there.
    deadline: Option<u64>,
}

impl Timer {
    pub(super) fn initial(&self) -> u32 {
        self.initial
    }

    pub(super) fn divide(&self) -> u32 {
        self.divide
    }

    /// By how much ticks are divided: bits 3, 1 and 0 as a number n stand for
    /// 2^(n + 1), but 7 for 1.
    fn divisor(&self) -> u64 {
        let n = (self.divide >> 1 & 4) | (self.divide & 3);
        1 << ((n + 1) & 7)
    }

    /// A whole count, in nanoseconds.
    fn whole(&self) -> u64 {
        u64::from(self.initial) * self.divisor()
    }

    fn period(&self) -> u64 {
        self.whole().max(MIN_PERIOD_NS)
    }

    /// Writes the initial count: starts the timer, or stops it with 0.
    pub(super) fn start(&mut self, initial: u32, periodic: bool, now: u64) {
        self.initial = initial;
        let length = if periodic {
            self.period()
        } else {
            self.whole()
        };
        self.deadline = (initial != 0).then(|| now.saturating_add(length));
    }

    /// Writes the divide configuration. A running count goes on from where it
    /// is, at the new speed.
    pub(super) fn set_divide(&mut self, value: u32, now: u64) {
        let count = self.current(now);
        self.divide = value & DIVIDE_WRITABLE;
        if self.deadline.is_some() {
            let left = u64::from(count) * self.divisor();
            self.deadline = Some(now.saturating_add(left));
        }
    }

    /// The current count.
    pub(super) fn current(&self, now: u64) -> u32 {
        let left = self.deadline.map_or(0, |at| at.saturating_sub(now));
        // Rounded up: it is 0 only when it has expired. A period that was
        // stretched to the shortest begins with the initial count, standing.
        let count = left.div_ceil(self.divisor());
        u32::try_from(count).map_or(self.initial, |count| count.min(self.initial))
    }

    /// Lets time pass: whether the count has reached 0 since the last time.
    /// Periods that went by unseen are one.
    pub(super) fn expire(&mut self, periodic: bool, now: u64) -> bool {
        let Some(late) = self.deadline.and_then(|at| now.checked_sub(at)) else {
            return false;
        };
        let period = self.period();
        // In step with the expiry, and at most a period ahead of `now`.
        let next = (now - late % period).saturating_add(period);
        self.deadline = periodic.then_some(next);
        true
    }

    /// When it expires next.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// Whether this could have come about by writes.
    pub(super) fn is_valid(&self) -> bool {
        self.divide & !DIVIDE_WRITABLE == 0 && (self.initial != 0 || self.deadline.is_none())
    }

    /// The same on another clock: `from` there is `to` here.
    pub(super) fn rebase(&mut self, from: u64, to: u64) {
        if let Some(deadline) = &mut self.deadline {
            *deadline = to.saturating_add(deadline.saturating_sub(from));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timer(divide: u32) -> Timer {
        let mut timer = Timer::default();
        timer.set_divide(divide, 0);
        timer
    }

    /// SDM, "Divide Configuration Register".
    #[test]
    fn the_eight_divisors() {
        let table = [
            (0b0000, 2),
            (0b0001, 4),
            (0b0010, 8),
            (0b0011, 16),
            (0b1000, 32),
            (0b1001, 64),
            (0b1010, 128),
            (0b1011, 1),
        ];
        for (bits, divisor) in table {
            assert_eq!(timer(bits).divisor(), divisor);
            // Bit 2 and those above 3 do not count.
            assert_eq!(timer(bits | 0b0100).divisor(), divisor);
            assert_eq!(timer(bits | !0b1011).divisor(), divisor);
        }
    }

    #[test]
    fn one_shot_counts_down_and_stops() {
        let mut timer = timer(0b0011);
        timer.start(1000, false, 50);
        assert_eq!(timer.deadline(), Some(50 + 16_000));
        assert_eq!(timer.current(50), 1000);
        assert_eq!(timer.current(50 + 8_000), 500);
        assert_eq!(timer.current(50 + 15_999), 1);
        assert_eq!(timer.current(50 + 16_000), 0);
        assert!(!timer.expire(false, 50 + 15_999));
        assert!(timer.expire(false, 50 + 16_000));
        assert!(!timer.expire(false, u64::MAX));
        assert_eq!((timer.current(60_000), timer.deadline()), (0, None));
        assert_eq!(timer.initial(), 1000);
    }

    #[test]
    fn periodic_goes_on_in_step() {
        let mut timer = timer(0b1011);
        timer.start(300_000, true, 0);
        assert!(timer.expire(true, 300_000));
        assert_eq!(timer.deadline(), Some(600_000));
        assert_eq!(timer.current(300_000), 300_000);
        // Late by several periods: one expiry, and in step with the first.
        assert!(timer.expire(true, 1_500_007));
        assert_eq!(timer.deadline(), Some(1_800_000));
        assert!(!timer.expire(true, 1_500_008));
    }

    #[test]
    fn short_periods_are_stretched_and_single_shots_are_not() {
        let mut timer = timer(0b1011);
        timer.start(1, true, 0);
        assert_eq!(timer.deadline(), Some(MIN_PERIOD_NS));
        assert_eq!(timer.current(0), 1, "not more than the initial count");
        timer.start(1, false, 0);
        assert_eq!(timer.deadline(), Some(1));
    }

    #[test]
    fn zero_stops_it() {
        let mut timer = timer(0b1011);
        timer.start(10, false, 0);
        timer.start(0, false, 5);
        assert_eq!((timer.deadline(), timer.current(5)), (None, 0));
        assert!(!timer.expire(false, 100));
    }

    #[test]
    fn a_new_divisor_takes_the_count_over() {
        let mut timer = timer(0b1011);
        timer.start(1000, false, 0);
        timer.set_divide(0b0011, 400);
        assert_eq!(timer.current(400), 600);
        assert_eq!(timer.deadline(), Some(400 + 600 * 16));
    }

    /// No value makes it overflow, nor a clock at its end.
    #[test]
    fn extremes() {
        for initial in [1, u32::MAX] {
            for divide in [0b1010, 0b1011] {
                for now in [0, u64::MAX - 1, u64::MAX] {
                    for periodic in [false, true] {
                        let mut timer = timer(divide);
                        timer.start(initial, periodic, now);
                        timer.expire(periodic, u64::MAX);
                        timer.set_divide(0, u64::MAX);
                        timer.rebase(u64::MAX, u64::MAX);
                        assert!(timer.current(0) <= initial);
                    }
                }
            }
        }
    }
}
