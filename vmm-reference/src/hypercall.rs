//! What this VMM does for a hypercall: a kick goes to whoever halts the vCPUs,
//! every other call keeps the ABI's answer for "not here", -KVM_ENOSYS.

use std::sync::Arc;

use hypercall_abi::{HypercallHandler, HypercallResult, KickCpu, MapGpaRange, SchedYield, SendIpi};
use pv_lock_host::{ApicId, VcpuParker};

use crate::interrupts::Controllers;
use crate::kicks::Kicks;

/// The hypercall handlers of one VM.
#[derive(Clone, Debug)]
pub struct Calls {
    kicks: Kicks,
    /// Destinations of a broadcast.
    everyone: Arc<[ApicId]>,
    map_gpa_range: bool,
    /// There if this process has the VM's interrupt controllers.
    controllers: Option<Arc<Controllers>>,
}

impl Calls {
    /// Calls that reach the vCPUs with these APIC IDs.
    pub fn new(kicks: Kicks, everyone: &[ApicId]) -> Self {
        Self {
            kicks,
            everyone: everyone.into(),
            map_gpa_range: false,
            controllers: None,
        }
    }

    /// Whether KVM_HC_MAP_GPA_RANGE is served, by agreeing: this VMM's guests
    /// share all of their memory with it anyway.
    pub fn with_map_gpa_range(mut self, served: bool) -> Self {
        self.map_gpa_range = served;
        self
    }

    /// With KVM_HC_SEND_IPI, by these controllers.
    #[must_use]
    pub fn with_controllers(mut self, controllers: Option<Arc<Controllers>>) -> Self {
        self.controllers = controllers;
        self
    }

    /// The handlers for calls of this vCPU's guest.
    pub fn by<'a>(&'a self, parker: &'a mut VcpuParker) -> CallsBy<'a> {
        CallsBy {
            calls: self,
            parker,
        }
    }
}

/// [`Calls`] of one vCPU.
#[derive(Debug)]
pub struct CallsBy<'a> {
    calls: &'a Calls,
    parker: &'a mut VcpuParker,
}

impl HypercallHandler for CallsBy<'_> {
    fn kick_cpu(&mut self, call: KickCpu) -> HypercallResult {
        // As KVM: the flags are ignored, a kick for nobody is no error, and 0xff
        // is everyone.
        let Calls {
            kicks, everyone, ..
        } = self.calls;
        if call.destination() == KickCpu::BROADCAST {
            for &id in everyone.iter() {
                kicks.kick(id);
            }
        } else {
            kicks.kick_by(self.parker, ApicId(call.destination()));
        }
        Ok(0)
    }

    fn send_ipi(&mut self, call: SendIpi) -> HypercallResult {
        let Some(controllers) = &self.calls.controllers else {
            return Err(hypercall_abi::KvmErrno::ENOSYS);
        };
        let sent = controllers.send_pv(&call.check()?, self.parker.apic_id().0);
        Ok(sent as u64)
    }

    fn sched_yield(&mut self, _call: SchedYield) -> HypercallResult {
        // KVM yields to the target; a process can only yield.
        std::thread::yield_now();
        Ok(0)
    }

    fn map_gpa_range(&mut self, call: MapGpaRange) -> HypercallResult {
        if !self.calls.map_gpa_range {
            return Err(hypercall_abi::KvmErrno::ENOSYS);
        }
        call.check().map(|_| 0)
    }
}
