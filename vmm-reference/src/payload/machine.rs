//! What the embedded guests' state machines share: programs for the hosted
//! backend, whose steps are those of the machine code, on the same pages.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use hypercall_abi::{KVM_HC_KICK_CPU, Mode, RawHypercall};
use vm_memory::{VolatileMemory as _, VolatileSlice};

use crate::backend::hosted::ProgramExit;
use crate::memory::MemoryError;

/// The atomic word at `offset` of a page.
pub(super) fn word<'a>(
    page: &'a VolatileSlice<'_, ()>,
    offset: u64,
) -> Result<&'a AtomicU64, MemoryError> {
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    page.get_atomic_ref(offset)
        .map_err(|e| MemoryError::Access(e.into()))
}

/// One more in a word that only its own vCPU writes: no other thread orders by it.
pub(super) fn bump(page: &VolatileSlice<'_, ()>, offset: u64) -> Result<(), MemoryError> {
    let word = word(page, offset)?;
    word.store(word.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    Ok(())
}

/// KVM_HC_KICK_CPU(0, APIC ID), from a kernel in 64-bit mode.
pub(super) fn kick(apic_id: u64) -> ProgramExit {
    ProgramExit::Hypercall(RawHypercall {
        nr: KVM_HC_KICK_CPU,
        args: [0, apic_id, 0, 0],
        mode: Mode::Bits64,
        cpl: 0,
    })
}

/// `rounds` of work that the compiler may not drop.
pub(super) fn work(rounds: u64) {
    for i in 0..rounds {
        black_box(i);
    }
}
