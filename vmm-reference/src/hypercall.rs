//! What this VMM does for a hypercall: a kick goes to the halt/kick scheduler,
//! every other call keeps the ABI's answer for "not here", -KVM_ENOSYS.

use hypercall_abi::{HypercallHandler, HypercallResult, KickCpu, SchedYield};
use pv_lock_host::{ApicId, Kicker};

/// The handlers of one VM whose vCPUs halt in userspace.
#[derive(Clone, Debug)]
pub struct Calls {
    kicker: Kicker,
}

impl Calls {
    /// Calls that reach the vCPUs of `kicker`'s scheduler.
    pub fn new(kicker: Kicker) -> Self {
        Self { kicker }
    }
}

impl HypercallHandler for Calls {
    fn kick_cpu(&mut self, call: KickCpu) -> HypercallResult {
        // As KVM: the flags are ignored, and a kick for nobody is no error. The
        // yield behind the kick is the scheduler's policy.
        self.kicker.kick(ApicId(call.destination()));
        Ok(0)
    }

    fn sched_yield(&mut self, _call: SchedYield) -> HypercallResult {
        // KVM yields to the target; a process can only yield.
        std::thread::yield_now();
        Ok(0)
    }
}
