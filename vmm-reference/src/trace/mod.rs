//! What each vCPU did when: opt-in, bounded, and made into a file that a trace
//! viewer opens.
//!
//! - [`ring`]: the events of one vCPU, recorded by its own thread;
//! - [`spans`]: events as states with a begin and an end, and kicks as arrows;
//! - [`switches`]: what the kernel says of the vCPUs' threads;
//! - [`chrome`]: the Chrome JSON trace format, which Perfetto opens.

pub mod chrome;
pub mod ring;
pub mod spans;
pub mod switches;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

pub use ring::{Event, Recorder, What};

/// What one vCPU recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VcpuTrace {
    /// Its VM, counted from 0.
    pub vm: u32,
    /// Its index there, which is what a kick names.
    pub vcpu: u32,
    /// What happened, oldest first.
    pub events: Vec<Event>,
    /// Events before these that had no room.
    pub dropped: u64,
}

/// Where recorders leave what they recorded, for one VM or several.
#[derive(Clone, Debug)]
pub struct Collector {
    epoch: Instant,
    capacity: usize,
    done: Arc<Mutex<Vec<VcpuTrace>>>,
}

impl Collector {
    /// For rings of `capacity` events a vCPU (24 bytes each); time counts from
    /// now.
    pub fn new(capacity: usize) -> Self {
        Self {
            epoch: Instant::now(),
            capacity,
            done: Arc::default(),
        }
    }

    /// Time 0 of all its events.
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// A recorder for a vCPU's thread; what it recorded is left here when it is
    /// dropped.
    pub fn recorder(&self, vm: u32, vcpu: u32) -> Recorder {
        Recorder::on(ring::Ring::new(self.capacity), self.clone(), vm, vcpu)
    }

    fn leave(&self, trace: VcpuTrace) {
        // Nothing that can panic runs under the lock but the allocator's.
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.push(trace);
    }

    /// What all recorders that are gone recorded, in the order of VMs and vCPUs.
    pub fn take(&self) -> Vec<VcpuTrace> {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = std::mem::take(&mut *done);
        all.sort_by_key(|trace| (trace.vm, trace.vcpu));
        all
    }
}
