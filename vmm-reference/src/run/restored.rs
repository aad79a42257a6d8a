//! A guest that goes on from a snapshot.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::RunError;
use super::config::RunConfig;
use crate::devices::output::Output;
use crate::host::KvmHost;
use crate::jail::{self, ThreadKind};
use crate::policy::Policy;
use crate::snapshot::{SavedPlatform, Snapshot, SnapshotError};
use crate::trace::VmTrace;
use crate::vm::{JailedThreads, Restore, Vm, VmHandle};

/// The VM in the snapshot at `path`, paused, and the snapshot.
pub(super) fn open(
    path: &Path,
    config: &RunConfig,
    host: &KvmHost,
    output: &Output,
    trace: Option<VmTrace>,
) -> Result<((Vm, JailedThreads), Snapshot), RunError> {
    let snapshot = Snapshot::open(path)?;
    // A file can name more vCPUs than KVM runs, which is refused below.
    let vcpus = snapshot.vm().vcpus.len().min(host.kvm.get_max_vcpus());
    let threads = JailedThreads::spawn(vcpus)?;
    let machine = &snapshot.vm().machine;
    let policy = match machine.platform {
        SavedPlatform::Pc => RunConfig {
            halt: machine.halt_kick.halt,
            ..config.clone()
        }
        .policy(),
        SavedPlatform::Bare | SavedPlatform::BareApics => Policy::default(),
    };
    let how = Restore {
        policy,
        output: output.clone(),
        trace,
    };
    let vm = Vm::restore(&snapshot, host, how)?;
    Ok(((vm, threads), snapshot))
}

/// Checks guest memory in the file while the guest runs: it is mapped and read as
/// the guest needs it, and reading all of it first would take as long as that was
/// to save. A damaged one ends the VM.
#[derive(Debug)]
pub(super) struct MemoryCheck {
    /// None: the system has no thread for it, and it is done at the end.
    thread: Option<JoinHandle<Option<Result<(), SnapshotError>>>>,
    snapshot: Snapshot,
    give_up: Arc<AtomicBool>,
}

impl MemoryCheck {
    /// Begins.
    pub(super) fn start(snapshot: Snapshot, vm: VmHandle) -> Self {
        let give_up = Arc::new(AtomicBool::new(false));
        let (checked, asked) = (snapshot.clone(), Arc::clone(&give_up));
        let thread = std::thread::Builder::new()
            .name("snapshot-check".to_string())
            .spawn(move || {
                // Where that is refused, so is the event loop's, and the guest ends.
                jail::enter(ThreadKind::Reader).ok()?;
                // Relaxed: the flag is all there is to see.
                let found = checked.check_memory(&|| asked.load(Ordering::Relaxed));
                if found.is_err() {
                    vm.ask_to_stop();
                }
                Some(found)
            });
        Self {
            thread: thread.ok(),
            snapshot,
            give_up,
        }
    }

    /// What it found: all of it, unless it is to be given up.
    pub(super) fn finish(self, give_up: bool) -> Result<(), SnapshotError> {
        // Relaxed: as above.
        self.give_up.store(give_up, Ordering::Relaxed);
        match self.thread.map(JoinHandle::join) {
            Some(Ok(Some(found))) => found,
            // A panic was reported, and says nothing of the memory.
            Some(Ok(None) | Err(_)) | None => self.snapshot.check_memory(&|| give_up),
        }
    }
}
