//! What this process counts of its vCPUs, beside KVM's counts: exits to it by
//! kind, what they were for, and what it delivered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use pv_lock_host::HaltScheduler;

macro_rules! events {
    ($($(#[$doc:meta])* $event:ident $name:literal)*) => {
        /// Something that happens on a vCPU's thread.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Event {
            $($(#[$doc])* $event,)*
        }

        impl Event {
            const ALL: &[(Self, &str)] = &[$((Self::$event, $name),)*];
        }
    };
}

events! {
    /// KVM_RUN ended with HLT.
    ExitHlt "exit_hlt"
    /// With a hypercall, by whichever transport.
    ExitHypercall "exit_hypercall"
    /// With an access to a port.
    ExitPio "exit_pio"
    /// With an access outside guest memory.
    ExitMmio "exit_mmio"
    /// With an access to an MSR.
    ExitMsr "exit_msr"
    /// Because a vector can be delivered now.
    ExitWindow "exit_window"
    /// By a signal, or before it began.
    ExitSignal "exit_signal"
    /// For another reason.
    ExitOther "exit_other"
    /// The guest wrote to the EOI register.
    ApicEoi "apic_eoi"
    /// The guest sent an interrupt by the ICR.
    ApicIpi "apic_ipi"
    /// The guest wrote the timer's initial count.
    ApicTimer "apic_timer"
    /// The guest's EOI was a write to memory (PV_EOI).
    DeferredEoi "apic_eoi_deferred"
    /// A vector was delivered.
    Interrupt "interrupts"
    /// An NMI was delivered.
    Nmi "nmis"
}

const COUNT: usize = Event::ALL.len();

/// The counts of one vCPU. Its thread alone counts.
#[derive(Debug)]
pub struct VcpuCounts([AtomicU64; COUNT]);

impl Default for VcpuCounts {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl VcpuCounts {
    /// Counts one.
    #[inline]
    pub fn count(&self, event: Event) {
        if let Some(count) = self.0.get(event as usize) {
            // One writer: no RMW. Relaxed, as all that follows: statistics.
            count.store(count.load(Relaxed) + 1, Relaxed);
        }
    }

    fn get(&self, event: Event) -> u64 {
        self.0
            .get(event as usize)
            .map_or(0, |count| count.load(Relaxed))
    }
}

/// What this process counted of a VM: of its vCPUs, and its scheduler of halts
/// and kicks.
#[derive(Clone, Debug)]
pub struct VmmStats {
    vcpus: Vec<Arc<VcpuCounts>>,
    scheduler: Arc<HaltScheduler>,
    before: BTreeMap<String, u64>,
}

impl VmmStats {
    /// Of these vCPUs, which this scheduler halts.
    pub fn new(vcpus: Vec<Arc<VcpuCounts>>, scheduler: Arc<HaltScheduler>) -> Self {
        Self {
            vcpus,
            scheduler,
            before: BTreeMap::new(),
        }
    }

    /// What was counted of the VM before, by the process that saved it.
    pub fn carry_on(&mut self, before: BTreeMap<String, u64>) {
        self.before = before;
    }

    /// The sums over the vCPUs, by name.
    pub fn sums(&self) -> BTreeMap<&'static str, u64> {
        let sum = |event| self.vcpus.iter().map(|vcpu| vcpu.get(event)).sum();
        let counted = Event::ALL.iter().map(|&(event, name)| (name, sum(event)));
        let scheduled = self.scheduler.counters().total();
        let halts_and_kicks = [
            ("halts", scheduled.halts),
            ("halts_kicked", scheduled.halts_kicked),
            ("halts_slept", scheduled.sleeps),
            ("kicks", scheduled.kicks()),
            ("kicks_woke", scheduled.kicks_woke),
            ("holds", scheduled.holds),
            ("held_us", scheduled.held_ns / 1_000),
        ];
        let with_before = |(name, value): (&'static str, u64)| {
            let before = self.before.get(name).copied().unwrap_or(0);
            (name, value.saturating_add(before))
        };
        counted.chain(halts_and_kicks).map(with_before).collect()
    }

    /// One count a line, for a person.
    pub fn text(&self) -> String {
        let sums = self.sums();
        let lines = sums.iter().map(|(name, value)| {
            let name = format!("vmm_{name}");
            format!("{name:<28} {value:>12}\n")
        });
        lines.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pv_lock_host::ApicId;

    #[test]
    fn counts_of_all_vcpus_are_summed_by_name() {
        let (scheduler, _parkers) = HaltScheduler::new(&[ApicId(0), ApicId(1)]).unwrap();
        scheduler.kicker().kick_by_host(ApicId(1));
        let vcpus = vec![
            Arc::new(VcpuCounts::default()),
            Arc::new(VcpuCounts::default()),
        ];
        for (index, &(event, _)) in Event::ALL.iter().enumerate() {
            for _ in 0..index {
                vcpus[0].count(event);
            }
            vcpus[1].count(event);
        }
        let stats = VmmStats::new(vcpus, Arc::new(scheduler));
        let sums = stats.sums();
        for (index, (_, name)) in Event::ALL.iter().enumerate() {
            assert_eq!(sums.get(name), Some(&(index as u64 + 1)), "{name}");
        }
        assert_eq!(sums.get("kicks"), Some(&1));
        assert!(
            stats
                .text()
                .contains("vmm_exit_hlt                            1\n")
        );
    }
}
