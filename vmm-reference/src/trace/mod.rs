//! What each vCPU did when: opt-in, bounded, and made into a file that a trace
//! viewer opens.
//!
//! - [`ring`]: the events of one vCPU, recorded by its own thread;
//! - [`spans`]: events as states with a begin and an end, and kicks as arrows;
//! - [`switches`]: what the kernel says of the vCPUs' threads;
//! - [`chrome`]: the Chrome JSON trace format, which Perfetto opens; [`mod@file`]: `--trace`.

pub mod chrome;
pub mod file;
pub mod ring;
pub mod spans;
pub mod switches;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::thread::Pid;

pub use ring::{Event, Recorder, What};
pub use spans::{Place, Switch};
pub use switches::Switches;

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
    /// When its first event was, dropped or not.
    pub began: u64,
    /// When its thread was on which pCPU, oldest first; empty: not recorded.
    pub switches: Vec<Switch>,
}

/// A trace: vCPUs in the order of VMs and indexes, and the VMs' names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// By VM.
    pub names: Vec<String>,
    /// What each vCPU recorded.
    pub vcpus: Vec<VcpuTrace>,
}

/// Records the vCPUs of one VM.
#[derive(Clone, Debug)]
pub struct VmTrace {
    collector: Collector,
    vm: u32,
}

impl VmTrace {
    /// A recorder for the thread of the vCPU with this index.
    pub fn recorder(&self, vcpu: u32) -> Recorder {
        let ring = ring::Ring::new(self.collector.capacity);
        Recorder::on(ring, self.collector.clone(), self.vm, vcpu)
    }

    /// Records from now on when these threads, by index, are on a pCPU.
    ///
    /// # Errors
    /// The kernel does not allow it.
    pub fn watch(&self, threads: &[Pid]) -> io::Result<Switches> {
        Switches::of(threads, &self.collector)
    }

    /// Adds what was watched.
    pub fn add(&self, switches: Switches) {
        let mut inner = self.collector.lock();
        for (vcpu, switches) in (0..).zip(switches.take()) {
            inner.switches.push((self.vm, vcpu, switches));
        }
    }
}

/// Where recorders leave what they recorded, for one VM or several.
#[derive(Clone, Debug)]
pub struct Collector {
    epoch: Instant,
    capacity: usize,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    names: Vec<String>,
    done: Vec<VcpuTrace>,
    switches: Vec<(u32, u32, Vec<Switch>)>,
}

impl Collector {
    /// For rings of `capacity` events a vCPU (24 bytes each); time counts from
    /// now.
    pub fn new(capacity: usize) -> Self {
        Self {
            epoch: Instant::now(),
            capacity,
            inner: Arc::default(),
        }
    }

    /// Time 0 of all its events.
    pub fn epoch(&self) -> Instant {
        self.epoch
    }

    /// One more VM, by this name.
    pub fn vm(&self, name: impl Into<String>) -> VmTrace {
        let mut inner = self.lock();
        let vm = u32::try_from(inner.names.len()).unwrap_or(u32::MAX);
        inner.names.push(name.into());
        drop(inner);
        VmTrace {
            collector: self.clone(),
            vm,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing that can panic runs under the lock but the allocator's.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave(&self, trace: VcpuTrace) {
        self.lock().done.push(trace);
    }

    /// What all recorders that are gone recorded.
    pub fn take(&self) -> Trace {
        let Inner {
            names,
            done: mut vcpus,
            switches,
        } = std::mem::take(&mut *self.lock());
        vcpus.sort_by_key(|trace| (trace.vm, trace.vcpu));
        for (vm, vcpu, switches) in switches {
            let of = |trace: &&mut VcpuTrace| (trace.vm, trace.vcpu) == (vm, vcpu);
            if let Some(trace) = vcpus.iter_mut().find(of) {
                trace.switches = switches;
            }
        }
        Trace { names, vcpus }
    }
}
