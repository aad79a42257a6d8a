//! A vCPU's events: a ring of its own, so that recording takes no lock and no
//! atomic, and forgets the oldest when it is full.

use std::collections::VecDeque;

use super::{Collector, VcpuTrace};

/// What happened to a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Its thread goes into the guest, or handles what it left it for.
    Running,
    /// It halted.
    Halted,
    /// The cap holds it back: it waits for a place.
    Held,
    /// It is paused.
    Paused,
    /// Its guest kicked the vCPU with this APIC ID.
    Kicks(u32),
    /// It is at its end.
    Ended,
}

/// An event and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds after the collector's epoch.
    pub at: u64,
    /// What.
    pub what: What,
}

/// The last events of a vCPU.
#[derive(Clone, Debug)]
pub struct Ring {
    events: VecDeque<Event>,
    capacity: usize,
    dropped: u64,
}

impl Ring {
    /// Room for `capacity` events, at least one; taken at once, so that
    /// recording never waits for memory.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self {
            events: VecDeque::with_capacity(capacity),
            capacity,
            dropped: 0,
        }
    }

    /// Adds one, and forgets the oldest if there is no room.
    #[inline]
    pub fn push(&mut self, event: Event) {
        if self.events.len() == self.capacity {
            self.events.pop_front();
            self.dropped += 1;
        }
        self.events.push_back(event);
    }
}

/// A vCPU's recorder: off unless somebody wants a trace, and then one branch.
#[derive(Debug, Default)]
pub struct Recorder(Option<Box<On>>);

#[derive(Debug)]
struct On {
    ring: Ring,
    to: Collector,
    vm: u32,
    vcpu: u32,
}

impl Recorder {
    /// Records nothing.
    pub const OFF: Self = Self(None);

    pub(super) fn on(ring: Ring, to: Collector, vm: u32, vcpu: u32) -> Self {
        Self(Some(Box::new(On { ring, to, vm, vcpu })))
    }

    /// Records `what`, now.
    #[inline]
    pub fn record(&mut self, what: What) {
        if let Some(on) = &mut self.0 {
            on.record(what);
        }
    }

    /// Whether it records.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }
}

impl On {
    #[inline(never)]
    fn record(&mut self, what: What) {
        let at = self.to.epoch().elapsed().as_nanos();
        // 584 years.
        let at = u64::try_from(at).unwrap_or(u64::MAX);
        self.ring.push(Event { at, what });
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(on) = self.0.take() {
            let On { ring, to, vm, vcpu } = *on;
            to.leave(VcpuTrace {
                vm,
                vcpu,
                events: ring.events.into(),
                dropped: ring.dropped,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_forgets_the_oldest() {
        let mut ring = Ring::new(3);
        for at in 0..5 {
            ring.push(Event {
                at,
                what: What::Halted,
            });
        }
        let kept: Vec<u64> = ring.events.iter().map(|event| event.at).collect();
        assert_eq!((kept, ring.dropped), (vec![2, 3, 4], 2));
    }

    #[test]
    fn recorders_leave_what_they_recorded() {
        let collector = Collector::new(8);
        let mut off = Recorder::OFF;
        off.record(What::Running);
        drop(off);
        let threads = [(1, 0), (0, 1), (0, 0)].map(|(vm, vcpu)| {
            let mut recorder = collector.recorder(vm, vcpu);
            std::thread::spawn(move || {
                recorder.record(What::Running);
                recorder.record(What::Kicks(vcpu));
            })
        });
        for thread in threads {
            thread.join().unwrap();
        }
        let all = collector.take();
        let who: Vec<_> = all.iter().map(|t| (t.vm, t.vcpu, t.events.len())).collect();
        assert_eq!(who, [(0, 0, 2), (0, 1, 2), (1, 0, 2)]);
        assert!(all.iter().all(|t| t.events[0].at <= t.events[1].at));
        assert!(collector.take().is_empty());
    }
}
