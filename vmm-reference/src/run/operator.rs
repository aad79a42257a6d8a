//! A running guest as its operator sees it: by the control socket, by SIGUSR1,
//! by `--stats`.

use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use pv_lock_host::ApicId;
use serde_json::{Value, json};
use vmm_sys_util::eventfd::EventFd;

use crate::control::{Request, Target};
use crate::devices::output::Output;
use crate::stats::{KvmStats, StatsError};
use crate::vm::{VmHandle, VmParts};
use crate::{signals, snapshot};

/// All that an operator can ask of.
#[derive(Clone, Debug)]
pub(super) struct Operator(Rc<Parts>);

#[derive(Debug)]
struct Parts {
    vm: VmHandle,
    parts: VmParts,
    started: Instant,
}

/// The counters in a line of statistics, by KVM's names.
const LINE: &[&str] = &[
    "exits",
    "halt_exits",
    "halt_wakeup",
    "hypercalls",
    "directed_yield_attempted",
    "directed_yield_successful",
];

impl Operator {
    pub(super) fn new(vm: VmHandle, parts: VmParts, started: Instant) -> Self {
        Self(Rc::new(Parts { vm, parts, started }))
    }

    /// KVM's counts, summed over the vCPUs.
    fn kvm_stats(&self) -> Result<KvmStats, StatsError> {
        match &self.0.parts.stats {
            Some(stats) => stats.sums(),
            None => Ok(KvmStats::default()),
        }
    }

    /// All counts, one a line.
    pub(super) fn stats_text(&self) -> Result<String, StatsError> {
        Ok(self.kvm_stats()?.text() + &self.0.parts.vmm_stats.text())
    }

    /// Writes the VM to a file. It goes on afterwards, unless it was paused.
    fn snapshot(&self, path: &Path) -> Result<Value, String> {
        let Parts { vm, parts, .. } = &*self.0;
        if parts.bus.has_test_device() {
            return Err("a VM with --test-device has no snapshot".to_string());
        }
        let begin = Instant::now();
        let was_paused = vm.is_paused();
        if !was_paused {
            vm.pause().map_err(|e| e.to_string())?;
        }
        let give_up = || signals::is_asked_to_stop();
        let unfinished = parts
            .save(vm)
            .and_then(|saved| Ok(snapshot::begin(path, &saved, &parts.memory, &give_up)?));
        // It does not wait for the disk.
        let paused = begin.elapsed();
        if !was_paused {
            vm.resume();
        }
        let unfinished = unfinished.map_err(|e| e.to_string())?;
        let written = unfinished.finish(&give_up).map_err(|e| e.to_string())?;
        Ok(json!({
            "bytes": written.bytes,
            "state_bytes": written.state_bytes,
            "seconds": begin.elapsed().as_secs_f64(),
            "paused_seconds": paused.as_secs_f64(),
        }))
    }

    /// Some of them in one line.
    fn stats_line(&self) -> String {
        let mut line = format!("stats: {:.3} s", self.0.started.elapsed().as_secs_f64());
        let kvm = self.kvm_stats().unwrap_or_default();
        for (name, value) in LINE.iter().filter_map(|name| Some((name, kvm.get(name)?))) {
            line.push_str(&format!(", {name} {value}"));
        }
        line.push_str(&format!(
            ", unclaimed {}",
            self.0.parts.bus.unclaimed_accesses()
        ));
        line
    }
}

impl Target for Operator {
    fn handle(&mut self, request: Request) -> Result<Value, String> {
        let Parts { vm, parts, started } = &*self.0;
        match request {
            Request::Status => {
                let uptime = u64::try_from(started.elapsed().as_millis());
                Ok(json!({
                    "vcpus": vm.states(),
                    "uptime_ms": uptime.unwrap_or(u64::MAX),
                }))
            }
            Request::Stats => {
                let kvm = self.kvm_stats().map_err(|e| e.to_string())?;
                Ok(
                    json!({ "kvm": kvm, "vmm": parts.vmm_stats.sums(), "unclaimed": parts.bus.unclaimed_accesses() }),
                )
            }
            Request::Pause => match vm.pause() {
                Ok(()) => Ok(json!({})),
                Err(e) => Err(e.to_string()),
            },
            Request::Resume => {
                vm.resume();
                Ok(json!({}))
            }
            Request::Kick { apic_id } => {
                let delivered = parts.kicks.kick(ApicId(apic_id));
                Ok(json!({ "delivered": delivered }))
            }
            Request::Stop => {
                vm.ask_to_stop();
                Ok(json!({}))
            }
            Request::Snapshot { path } => self.snapshot(&path),
        }
    }
}

/// Prints a line of statistics whenever SIGUSR1 comes.
#[derive(Debug)]
pub(super) struct StatsOnSignal {
    request: &'static EventFd,
    /// What `--stats` prints comes before the line.
    all: bool,
    operator: Operator,
    /// Standard error, on a thread of its own: nobody has to read it, and the loop
    /// must not wait.
    lines: Output,
    lost: u64,
}

impl StatsOnSignal {
    /// Prints to `lines`.
    pub(super) fn new(
        request: &'static EventFd,
        all: bool,
        operator: Operator,
        lines: Output,
    ) -> Self {
        Self {
            request,
            all,
            operator,
            lines,
            lost: 0,
        }
    }

    fn print(&mut self) {
        let mut line = String::new();
        // A count that can't be read is missing in the line too.
        if let (true, Ok(text)) = (self.all, self.operator.stats_text()) {
            line = text;
        }
        line.push_str("vmm-reference: ");
        line.push_str(&self.operator.stats_line());
        if self.lost > 0 {
            line.push_str(&format!(", {} lines before this one lost", self.lost));
        }
        line.push('\n');
        if self.lines.offer(line.as_bytes()) {
            self.lost = 0;
        } else {
            self.lost += 1;
        }
    }
}

impl MutEventSubscriber for StatsOnSignal {
    fn init(&mut self, ops: &mut EventOps) {
        // A valid descriptor, added once.
        let _ = ops.add(Events::new(self.request, EventSet::IN));
    }

    fn process(&mut self, events: Events, _ops: &mut EventOps) {
        if events.fd() == self.request.as_raw_fd() && self.request.read().is_ok() {
            self.print();
        }
    }
}
