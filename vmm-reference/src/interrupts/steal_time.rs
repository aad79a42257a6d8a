//! Steal time, served here: how long a vCPU could have run and did not, and whether
//! that is so right now.
//!
//! ```text
//! struct kvm_steal_time (arch/x86/include/uapi/asm/kvm_para.h), 64 bytes, aligned
//!  0  u64   steal      ns in which the vCPU could have run, and did not
//!  8  u32   version    odd while steal is written
//! 12  u32   flags      0
//! 16  u8    preempted  bit 0: it could run now, and does not
//! 17        padding
//! ```
//!
//! KVM keeps this record itself but under the Xen intercept: there it keeps Xen's
//! [run states](run_states), and no one else hears when the host preempts a vCPU
//! in the guest. Their record is as long as the end of this one from `preempted`
//! on, so it is put there: its first byte, the state, is 0 or 1 just as `preempted`
//! has to be, and KVM itself writes it at the moment in which it changes. The
//! nanoseconds that KVM counts as runnable are taken over into `steal` before each
//! run. The scheduler's holds are added here: they are no wait for a pCPU to KVM.
//!
//! A halted vCPU does not count as preempted, as in KVM since Linux 5.19.
//!
//! What this can't serve is PV_TLB_FLUSH, which asks for a flush in bit 1 of
//! `preempted`: KVM writes the state over it without a look.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};

use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _};

use crate::backend::{BackendError, Interruptible, run_states};
use crate::memory::GuestMemory;

/// `MSR_KVM_STEAL_TIME`.
pub(super) const MSR: u32 = cpuid_features::msr::STEAL_TIME.index;
/// Bit 0: on. Bits 5:1 are reserved, bits 63:6 are the record's GPA.
const ENABLED: u64 = 1;
const RESERVED: u64 = 0x3e;

const STEAL: u64 = 0;
const VERSION: u64 = 8;
const PREEMPTED: u64 = 16;
const BYTES: u64 = 64;

const _: () = assert!(
    PREEMPTED + run_states::BYTES == BYTES && run_states::STATE == 0,
    "KVM's state is where `preempted` is, and its record ends with this one"
);

/// A vCPU's record.
#[derive(Debug)]
pub(super) struct StealTime {
    memory: Arc<GuestMemory>,
    msr: u64,
    /// Where it is, if it is on and that is memory.
    at: Option<GuestAddress>,
    /// KVM is not told yet where it is.
    moved: bool,
    /// What KVM had counted as runnable at the last look.
    seen: Option<u64>,
    /// Since when its vCPU is held.
    held_since: Option<u64>,
    /// How long it was held, as far as the record does not have it, in ns.
    held: u64,
}

impl StealTime {
    pub(super) fn new(memory: Arc<GuestMemory>) -> Self {
        Self {
            memory,
            msr: 0,
            at: None,
            moved: false,
            seen: None,
            held_since: None,
            held: 0,
        }
    }

    pub(super) fn read(&self) -> u64 {
        self.msr
    }

    /// WRMSR; false is #GP: a reserved bit. An address without memory is none, as
    /// for KVM; nothing is written then.
    pub(super) fn write(&mut self, value: u64) -> bool {
        if value & RESERVED != 0 {
            return false;
        }
        let at = GuestAddress(value & !(ENABLED | RESERVED));
        // Memory is whole pages, and the record is aligned.
        let there = value & ENABLED != 0 && self.memory.address_in_range(at);
        self.msr = value;
        (self.at, self.moved) = (there.then_some(at), true);
        true
    }

    /// INIT turns it off.
    ///
    /// # Errors
    /// KVM refused.
    pub(super) fn reset(&mut self, vcpu: &mut dyn Interruptible) -> Result<(), BackendError> {
        // Also if it was turned off just now: KVM may not know that yet.
        if self.at.is_some() || self.moved {
            vcpu.set_run_states(None)?;
        }
        (self.msr, self.at, self.moved) = (0, None, false);
        Ok(())
    }

    /// Its vCPU's thread is about to sleep, for a halt, a hold or a pause. That time is
    /// no wait for a pCPU, as which KVM would count it if it thought that the host has
    /// preempted the vCPU since it left the guest.
    ///
    /// # Errors
    /// KVM refused to be told.
    pub(super) fn before_sleep(&self, vcpu: &mut dyn Interruptible) -> Result<(), BackendError> {
        let Some(at) = self.at.filter(|_| !self.moved) else {
            return Ok(());
        };
        // Relaxed: KVM wrote it on this thread.
        match self
            .memory
            .load::<u8>(GuestAddress(at.0 + PREEMPTED), Relaxed)
        {
            Ok(run_states::RUNNABLE) => vcpu.set_running(),
            _ => Ok(()),
        }
    }

    /// Its vCPU is about to be held.
    pub(super) fn hold(&mut self, now: u64) {
        self.held_since.get_or_insert(now);
        self.set_preempted(run_states::RUNNABLE);
    }

    /// If it was held, it no longer is.
    pub(super) fn let_go(&mut self, now: impl FnOnce() -> u64) {
        if let Some(since) = self.held_since.take() {
            self.held = self.held.saturating_add(now().saturating_sub(since));
            self.set_preempted(0);
        }
    }

    /// The thread's own byte while its vCPU is out of KVM_RUN.
    fn set_preempted(&self, value: u8) {
        if let Some(at) = self.at {
            // Relaxed: it publishes nothing; a vCPU that waits for this one sees it
            // sooner or later, and a late look costs time alone.
            let at = GuestAddress(at.0 + PREEMPTED);
            // It was memory when the guest named it; memory does not go away.
            let _ = self.memory.store(value, at, Relaxed);
        }
    }

    /// Before each run.
    ///
    /// # Errors
    /// KVM refused to write its record there.
    pub(super) fn before_run(&mut self, vcpu: &mut dyn Interruptible) -> Result<(), BackendError> {
        if std::mem::take(&mut self.moved) {
            let at = self.at.map(|at| at.0 + PREEMPTED);
            vcpu.set_run_states(at)?;
            // What KVM counted before is nothing of this record's.
            (self.seen, self.held) = (None, 0);
        } else if let Some(at) = self.at {
            self.bring_up_to_date(at);
        }
        Ok(())
    }

    /// Adds what was stolen since the last look.
    fn bring_up_to_date(&mut self, at: GuestAddress) {
        let field = |offset| GuestAddress(at.0 + offset);
        let runnable = field(PREEMPTED + run_states::RUNNABLE_NS);
        // Relaxed: KVM wrote it on this thread. The guest can write anything there,
        // which changes its own record only.
        let Ok(runnable) = self.memory.load::<u64>(runnable, Relaxed) else {
            return;
        };
        let waited = match self.seen.replace(runnable) {
            Some(before) => runnable.saturating_sub(before),
            None => 0,
        };
        let stolen = waited.saturating_add(std::mem::take(&mut self.held));
        if stolen != 0 {
            // All of it is memory, by `write`.
            let _ = self.add(field(STEAL), field(VERSION), stolen);
        }
    }

    /// A vCPU that reads the record meanwhile sees an odd version, or another one
    /// behind its read than before, and reads it again (`kvm_steal_clock` in
    /// `arch/x86/kernel/kvm.c`).
    fn add(
        &self,
        steal: GuestAddress,
        version: GuestAddress,
        ns: u64,
    ) -> Result<(), vm_memory::GuestMemoryError> {
        // Relaxed: this thread alone writes both.
        let before: u64 = self.memory.load(steal, Relaxed)?;
        let odd = self.memory.load::<u32>(version, Relaxed)? | 1;
        self.memory.store(odd, version, Relaxed)?;
        // Release: who sees the new time sees the odd version too.
        self.memory.store(before.wrapping_add(ns), steal, Release)?;
        // Release: publishes the time to who sees the even version.
        self.memory.store(odd.wrapping_add(1), version, Release)
    }
}

#[cfg(test)]
mod tests;
