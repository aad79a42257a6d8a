//! The scheduler's policies, and the scheduler that a VM gets: the only place
//! that builds one for a VM.

use std::time::Duration;

use pv_lock_host::{
    AdaptivePolling, ApicId, BuildError, HaltScheduler, Polling, VcpuParker, Yielding,
};

use crate::halt_mode::HaltMode;
use crate::threads::VcpuThreads;

/// What stands in for KVM's directed yield behind a kick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum YieldPolicy {
    /// Nothing: the host's scheduler decides.
    Nothing,
    /// The kicker's thread yields its pCPU.
    Sched,
    /// As many vCPUs run as there are pCPUs, each on one of them; a kicker gives
    /// its pCPU to the vCPU that it kicked, and steps back.
    Cap,
}

/// How a halted vCPU waits before its thread sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PollPolicy {
    /// It sleeps at once.
    Off,
    /// It looks for a kick for 50 us.
    Fixed,
    /// KVM's adaptive window, but not on an overcommitted host.
    Adaptive,
}

/// Policies of the halt/kick scheduler, for vCPUs that halt in this process.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// What follows a kick.
    pub yielding: YieldPolicy,
    /// What precedes a sleep.
    pub polling: PollPolicy,
}

impl Default for Policy {
    /// What measures best on overcommitted hosts: docs/POLICIES.md.
    fn default() -> Self {
        Self {
            yielding: YieldPolicy::Cap,
            polling: PollPolicy::Off,
        }
    }
}

impl Policy {
    /// The scheduler of a VM, and a parker for each vCPU. The APIC IDs `ids` are
    /// the vCPUs' indexes in `threads`.
    ///
    /// Where KVM halts the vCPUs, the scheduler pauses and stops them and has no
    /// policy: as far as it knows, a vCPU that sleeps in KVM runs, and a policy
    /// would count it.
    ///
    /// # Errors
    /// No vCPU, or too many.
    pub fn scheduler(
        self,
        halt: HaltMode,
        ids: &[ApicId],
        threads: &VcpuThreads,
    ) -> Result<(HaltScheduler, Vec<VcpuParker>), BuildError> {
        let builder = HaltScheduler::builder();
        let builder = match halt {
            HaltMode::Kernel => builder
                .yielding(Yielding::Nothing)
                // Nothing that it does depends on their number: do not go and ask.
                .host_cpus(1),
            HaltMode::Userspace => builder
                .yielding(match self.yielding {
                    YieldPolicy::Nothing => Yielding::Nothing,
                    YieldPolicy::Sched => Yielding::SchedYield,
                    YieldPolicy::Cap => Yielding::Cap(threads.cap()),
                })
                .polling(match self.polling {
                    PollPolicy::Off => Polling::Off,
                    PollPolicy::Fixed => Polling::Fixed(Duration::from_micros(50)),
                    PollPolicy::Adaptive => Polling::Adaptive(AdaptivePolling::default()),
                }),
        };
        builder.build(ids)
    }
}
