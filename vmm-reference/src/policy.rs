//! The scheduler's policies, and the scheduler that a VM gets: the only place
//! that builds one for a VM.

use std::sync::Arc;
use std::time::Duration;

use pv_lock_host::{
    AdaptivePolling, ApicId, BuildError, HaltScheduler, HoldPolicy, Polling, VcpuParker, Yielding,
};

use crate::halt_mode::HaltMode;

/// What stands in for KVM's directed yield behind a kick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum YieldPolicy {
    /// Nothing: the host's scheduler decides.
    Nothing,
    /// The kicker's thread yields its pCPU.
    Sched,
    /// Members of a lock convoy are held back while more vCPUs want to run than
    /// there are pCPUs; nobody else waits.
    #[value(alias = "cap")]
    Hold,
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
            yielding: YieldPolicy::Hold,
            polling: PollPolicy::Off,
        }
    }
}

/// Counts the vCPUs of a VM that sleep in a halt in KVM.
pub type HaltedInKvm = Arc<dyn Fn() -> usize + Send + Sync>;

impl Policy {
    /// The scheduler of a VM, and a parker for each vCPU, in the order of `ids`.
    ///
    /// Where KVM halts the vCPUs the scheduler pauses and stops them, and a policy
    /// has something to do only if the guest's kicks come through this process:
    /// `halted` is given then. Otherwise there is none: as far as the scheduler
    /// knows, a vCPU that sleeps in KVM runs, and a policy would count it.
    ///
    /// # Errors
    /// No vCPU, or too many.
    pub fn scheduler(
        self,
        halt: HaltMode,
        halted: Option<HaltedInKvm>,
        ids: &[ApicId],
    ) -> Result<(HaltScheduler, Vec<VcpuParker>), BuildError> {
        let builder = HaltScheduler::builder();
        let builder = match (halt, halted) {
            (HaltMode::Kernel, Some(halted)) => builder
                .yielding(self.after_kick(HELD_IN_KVM))
                .halts_elsewhere(halted),
            (HaltMode::Kernel, None) => builder
                .yielding(Yielding::Nothing)
                // Nothing that it does depends on their number: do not go and ask.
                .pcpus(1),
            (HaltMode::Userspace, _) => {
                let builder = builder.yielding(self.after_kick(HoldPolicy::default().longest));
                builder.polling(match self.polling {
                    PollPolicy::Off => Polling::Off,
                    PollPolicy::Fixed => Polling::Fixed(Duration::from_micros(50)),
                    PollPolicy::Adaptive => Polling::Adaptive(AdaptivePolling::default()),
                })
            }
        };
        builder.build(ids)
    }

    fn after_kick(self, longest: Duration) -> Yielding {
        let mut hold = HoldPolicy::default();
        hold.longest = longest;
        match self.yielding {
            YieldPolicy::Nothing => Yielding::Nothing,
            YieldPolicy::Sched => Yielding::SchedYield,
            YieldPolicy::Hold => Yielding::Hold(hold),
        }
    }
}

/// The longest hold of a vCPU that halts in KVM. It is asked for interrupts
/// meanwhile, every 4 ms.
const HELD_IN_KVM: Duration = Duration::from_millis(20);
