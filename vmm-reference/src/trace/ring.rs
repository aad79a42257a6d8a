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
    /// The scheduler of this process holds it back.
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
    began: Option<u64>,
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
            began: None,
        }
    }

    /// Adds one, and forgets the oldest if there is no room.
    #[inline]
    pub fn push(&mut self, event: Event) {
        if self.events.len() == self.capacity {
            self.events.pop_front();
            self.dropped += 1;
        }
        self.began.get_or_insert(event.at);
        self.events.push_back(event);
    }
}

/// Nanoseconds: one that may run at once is not held.
const HELD: u64 = 2_000;

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

    /// Does `wait`, and records that the vCPU was held if that took time.
    #[inline]
    pub fn held<T>(&mut self, wait: impl FnOnce() -> T) -> T {
        match &mut self.0 {
            None => wait(),
            Some(on) => {
                let from = on.now();
                let waited = wait();
                let to = on.now();
                if to - from >= HELD {
                    on.ring.push(Event {
                        at: from,
                        what: What::Held,
                    });
                    on.ring.push(Event {
                        at: to,
                        what: What::Running,
                    });
                }
                waited
            }
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
        let at = self.now();
        self.ring.push(Event { at, what });
    }

    fn now(&self) -> u64 {
        let at = self.to.epoch().elapsed().as_nanos();
        // 584 years.
        u64::try_from(at).unwrap_or(u64::MAX)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(on) = self.0.take() {
            let On { ring, to, vm, vcpu } = *on;
            to.leave(VcpuTrace {
                vm,
                vcpu,
                began: ring.began.unwrap_or(0),
                events: ring.events.into(),
                dropped: ring.dropped,
                switches: Vec::new(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Trace;
    use super::*;

    #[test]
    fn a_hold_is_recorded_if_it_took_time() {
        let collector = Collector::new(8);
        let mut recorder = collector.vm("").recorder(0);
        recorder.record(What::Running);
        assert_eq!(recorder.held(|| 7), 7);
        recorder.held(|| std::thread::sleep(std::time::Duration::from_millis(2)));
        drop(recorder);
        let events = &collector.take().vcpus[0].events;
        let what: Vec<What> = events.iter().map(|event| event.what).collect();
        assert!(what.ends_with(&[What::Held, What::Running]), "{what:?}");
        let [.., held, runs] = &events[..] else {
            panic!("{events:?}");
        };
        assert!(runs.at - held.at >= 2_000_000);
    }

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
        let vms = [collector.vm("a"), collector.vm("b")];
        let threads = [(1, 0), (0, 1), (0, 0)].map(|(vm, vcpu)| {
            let mut recorder = vms[vm].recorder(vcpu);
            std::thread::spawn(move || {
                recorder.record(What::Running);
                recorder.record(What::Kicks(vcpu));
            })
        });
        for thread in threads {
            thread.join().unwrap();
        }
        let trace = collector.take();
        assert_eq!(trace.names, ["a", "b"]);
        let all = trace.vcpus;
        let who: Vec<_> = all.iter().map(|t| (t.vm, t.vcpu, t.events.len())).collect();
        assert_eq!(who, [(0, 0, 2), (0, 1, 2), (1, 0, 2)]);
        assert!(all.iter().all(|t| t.events[0].at <= t.events[1].at));
        assert_eq!(collector.take(), Trace::default());
    }
}
