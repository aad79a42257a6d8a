//! Interrupts in flight: a case once more while every vCPU is interrupted all the
//! time. What is expected stays the same.
//!
//! Where the guest's interrupts are off, vectors wait in its local APIC, and none may
//! end a HLT or take a kick with it. Lists without a plain HLT run with interrupts on
//! instead: the handler runs between any two instructions, and in front of the answer
//! to a call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pv_lock_host::ApicId;

use super::case::{CodeKind, Plan};
use crate::backend::BackendError;
use crate::memory;
use crate::payload::image::result_page;
use crate::payload::script::{Op, VECTOR, VECTORS, result};
use crate::vm::VmParts;

/// How often it is looked whether the handlers have run; the shortest time from one
/// round of interrupts to the next.
const PERIOD: Duration = Duration::from_micros(200);

/// How long a round waits for the handlers: where the guest's interrupts are off, they
/// do not run.
const PATIENCE: Duration = Duration::from_millis(1);

/// The case's plan for a guest that is interrupted meanwhile. None if it counts
/// interrupts, or HLTs with interrupts on, itself.
pub(super) fn plan(plan: &Plan) -> Option<Plan> {
    let any = |wanted: fn(&Op) -> bool| plan.vcpus.iter().flatten().any(wanted);
    if any(|op| matches!(op, Op::HaltInterrupts(_))) {
        return None;
    }
    let mut plan = plan.clone();
    // A HLT by itself is one with interrupts off. Other code than that of CPL 0 in
    // 64-bit mode has no way into the handler.
    if plan.code == CodeKind::Kernel64 && !any(|op| matches!(op, Op::Halt)) {
        for ops in &mut plan.vcpus {
            // Not before some have come in, more than there are classes of vectors: they
            // were ended at the local APIC.
            ops.splice(0..0, [Op::HaltInterrupts(3), Op::InterruptsOn]);
        }
    }
    Some(plan)
}

/// A thread that interrupts all vCPUs of a VM, again and again.
#[derive(Debug)]
pub(super) struct Interrupts {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), BackendError>>,
}

impl Interrupts {
    /// Begins.
    ///
    /// # Errors
    /// The system refused a thread.
    pub(super) fn start(parts: &Arc<VmParts>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (parts, stopped) = (Arc::clone(parts), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("interrupts".to_string())
            .spawn(move || interrupt(&parts, &stopped))?;
        Ok(Self { stop, thread })
    }

    /// Ends. What KVM refused meanwhile.
    pub(super) fn stop(self) -> Result<(), BackendError> {
        // Relaxed: it only says "end", and the join is behind it.
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or(Ok(()))
    }
}

fn interrupt(parts: &VmParts, stop: &AtomicBool) -> Result<(), BackendError> {
    // The case's own vector stays its own.
    for vector in (VECTOR + 2..VECTORS.end).cycle() {
        // Relaxed: see `stop`.
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let before: Vec<u64> = parts
            .apic_ids
            .iter()
            .map(|&id| handled(parts, id))
            .collect();
        let sent = Instant::now();
        for &id in &parts.apic_ids {
            parts.interrupt(id, vector)?;
        }
        let waits = || {
            let ids = parts.apic_ids.iter().zip(&before);
            sent.elapsed() < PATIENCE
                && ids
                    .into_iter()
                    .any(|(&id, &before)| handled(parts, id) == before)
        };
        while waits() {
            std::thread::sleep(PERIOD);
        }
        // As long again for the lists: on a slow host an interrupt takes longer than
        // any fixed period, and the vCPUs would do nothing else.
        std::thread::sleep(sent.elapsed().max(PERIOD));
    }
    Ok(())
}

/// Runs of a vCPU's interrupt handler.
fn handled(parts: &VmParts, id: ApicId) -> u64 {
    let at = result_page(id.0) + result::INTERRUPTS;
    // Every vCPU of a case has its page.
    memory::read_word(&parts.memory, at).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ops: &[Op]) -> Option<Vec<Op>> {
        let one = Plan {
            vcpus: vec![ops.to_vec()],
            ..Plan::default()
        };
        plan(&one).map(|plan| plan.vcpus.concat())
    }

    #[test]
    fn interrupts_are_on_unless_the_list_needs_them_off() {
        let until = Op::HaltUntil(1, 1);
        let on = [Op::HaltInterrupts(3), Op::InterruptsOn, until];
        assert_eq!(of(&[until]), Some(on.to_vec()));
        let off = [until, Op::Halt];
        assert_eq!(of(&off), Some(off.to_vec()));
        assert_eq!(of(&[Op::HaltInterrupts(1)]), None);
    }
}
