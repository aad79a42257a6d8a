//! The script guest of one case, loaded.

use std::sync::Arc;

use hypercall_abi::Mode;

use super::case::{CodeKind, Plan, UPPER};
use super::start;
use crate::backend::hosted::Program;
use crate::backend::kvm::KvmVcpu;
use crate::backend::{BackendError, GuestImage};
use crate::memory::{GuestMemory, MemoryError};
use crate::payload::image;
use crate::payload::script::script_machine::ScriptMachine;
use crate::payload::script::{self, Op, script_code};

/// A plan's lists of operations, in guest memory.
#[derive(Debug)]
pub struct ScriptImage<'a> {
    plan: &'a Plan,
    /// How the guest issues hypercalls, one of
    /// [`issue`](crate::payload::layout::issue).
    issue: u64,
    /// Its vCPUs have local APICs.
    apics: bool,
    memory: Arc<GuestMemory>,
}

impl<'a> ScriptImage<'a> {
    /// Loads `plan`, for vCPUs with local APICs or without.
    ///
    /// # Errors
    /// The mapping was refused.
    pub fn new(plan: &'a Plan, issue: u64, apics: bool) -> Result<Self, MemoryError> {
        let code = match plan.code {
            CodeKind::Kernel64 | CodeKind::User64 => script_code::script(),
            CodeKind::Kernel32 => script_code::call32(),
        };
        let vcpus = u32::try_from(plan.vcpus.len()).unwrap_or(u32::MAX);
        let memory = image::build(vcpus, code)?;
        start::prepare(&memory, plan.code)?;
        for (index, ops) in (0u32..).zip(&plan.vcpus) {
            script::install(&memory, index, ops, issue)?;
        }
        Ok(Self {
            plan,
            issue,
            apics,
            memory: Arc::new(memory),
        })
    }

    fn ops(&self, index: u32) -> &[Op] {
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        self.plan.vcpus.get(index).map_or(&[], Vec::as_slice)
    }
}

impl GuestImage for ScriptImage<'_> {
    fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    fn set_registers(&self, vcpu: &KvmVcpu, index: u32) -> Result<(), BackendError> {
        let ops = self.ops(index);
        start::set(vcpu, index, self.plan.code, ops, self.issue, self.apics)
    }

    fn program(&self, index: u32) -> Result<Box<dyn Program>, BackendError> {
        let (mode, cpl, upper) = match self.plan.code {
            CodeKind::Kernel64 => (Mode::Bits64, 0, 0),
            CodeKind::User64 => (Mode::Bits64, 3, 0),
            CodeKind::Kernel32 => (Mode::Bits32, 0, UPPER),
        };
        let memory = Arc::clone(&self.memory);
        Ok(Box::new(ScriptMachine::new(
            memory, index, mode, cpl, upper,
        )))
    }
}
