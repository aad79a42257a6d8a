//! A vCPU's local APIC, on the vCPU's thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pv_lock_host::ApicId;
use serde::{Deserialize, Serialize};

use super::controllers::Controllers;
use super::pv_eoi::{self, PvEoi};
use super::timer::{RunTimer, now};
use crate::backend::x86::IA32_APIC_BASE;
use crate::backend::{BackendError, Interruptible, PrivateIo};
use crate::irqchip::userspace::{Effect, Features, InvalidState, Lapic, LapicState, Register};
use crate::memory::GuestMemory;
use crate::stats::{Event, VcpuCounts};

/// Where the I/O APIC's page is, and its size.
const IO_APIC: u64 = 0xfec0_0000;
const PAGE: u64 = 0x1000;

/// A vCPU's local APIC and its way to the others.
#[derive(Debug)]
pub struct VcpuApic {
    lapic: Lapic,
    controllers: Arc<Controllers>,
    timer: RunTimer,
    /// There if the guest was offered it.
    pv_eoi: Option<PvEoi>,
    counts: Arc<VcpuCounts>,
}

/// The state of a local APIC of this process, with its vCPU's PV_EOI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedApic {
    lapic: LapicState,
    /// MSR_KVM_PV_EOI_EN. That the guest may leave an EOI to memory is taken back
    /// before a save.
    pv_eoi: u64,
}

/// What a vCPU that is about to run the guest has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Run it.
    Run,
    /// Wait for a SIPI.
    Wait,
    /// INIT of the bootstrap processor: the machine starts anew.
    Reset,
}

/// What a halted vCPU has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhileHalted {
    /// Run: an interrupt that it takes, or an NMI, or a SIPI.
    Wake,
    /// Sleep, until then at most.
    Sleep(Option<Instant>),
    /// The machine starts anew.
    Reset,
}

impl VcpuApic {
    /// The local APIC with this ID. None if there is none.
    pub fn new(
        controllers: Arc<Controllers>,
        id: ApicId,
        features: Features,
        counts: Arc<VcpuCounts>,
    ) -> Option<Self> {
        Some(Self {
            lapic: controllers.lapic(id, features)?,
            controllers,
            timer: RunTimer::default(),
            pv_eoi: None,
            counts,
        })
    }

    /// Which serves PV_EOI, by this memory.
    #[must_use]
    pub fn with_pv_eoi(mut self, memory: Arc<GuestMemory>) -> Self {
        self.pv_eoi = Some(PvEoi::new(memory));
        self
    }

    /// On from the start, and its vCPU runs without a SIPI.
    #[must_use]
    pub fn started(mut self) -> Self {
        self.lapic.start();
        self
    }

    /// First of all after an exit, before anything looks at priorities: the guest
    /// may have ended the interrupt in service.
    fn settle(&mut self) {
        if self.pv_eoi.as_mut().is_some_and(PvEoi::take_back) {
            self.counts.count(Event::DeferredEoi);
            let effect = self.lapic.eoi();
            self.carry_out(effect);
        }
    }

    /// When the vCPU, which is about to run, next has to take an interrupt, by the
    /// monotonic clock in nanoseconds; 0 if one waits. IF is not asked: a guest that
    /// has it off for a moment would take the interrupt then.
    pub fn due(&mut self, vcpu: &mut dyn Interruptible) -> Option<u64> {
        self.look(vcpu);
        self.lapic.due(now())
    }

    /// What the guest did since the last look: ended an interrupt, or wrote CR8,
    /// which has but a part of the TPR.
    fn look(&mut self, vcpu: &mut dyn Interruptible) {
        self.settle();
        let cr8 = vcpu.cr8();
        if !self.lapic.waits_for_sipi() && cr8 != self.lapic.cr8() {
            self.lapic.set_cr8(cr8);
        }
    }

    /// Its vCPU runs no more: gives the kernel's timer back, on the thread that it
    /// interrupts. The registers stay, for whoever looks at them afterwards.
    pub fn end(&mut self) {
        self.timer = RunTimer::default();
    }

    /// It waits for a SIPI: nothing else starts its vCPU.
    pub fn waits_for_sipi(&self) -> bool {
        self.lapic.waits_for_sipi()
    }

    /// Before each run of the guest: delivers what can be delivered, and sees to
    /// it that the run ends when more can.
    ///
    /// # Errors
    /// KVM refused something.
    pub fn before_run(&mut self, vcpu: &mut dyn Interruptible) -> Result<Readiness, BackendError> {
        self.look(vcpu);
        let work = self.lapic.scan(now());
        if work.init && !self.lapic.waits_for_sipi() && work.sipi.is_none() {
            return Ok(Readiness::Reset);
        }
        if work.init {
            self.reset(vcpu)?;
        }
        if let Some(page) = work.sipi {
            vcpu.startup(page)?;
        }
        if self.lapic.waits_for_sipi() {
            return Ok(Readiness::Wait);
        }
        if work.nmi {
            vcpu.nmi()?;
            self.counts.count(Event::Nmi);
        }
        if let Some(vector) = work.interrupt
            && vcpu.accepts_interrupt()
        {
            // Acknowledged exactly here: from now on it is KVM's.
            self.lapic.acknowledge(vector);
            vcpu.interrupt(vector)?;
            self.counts.count(Event::Interrupt);
        }
        vcpu.want_window(self.lapic.deliverable().is_some());
        vcpu.set_cr8(self.lapic.cr8());
        self.timer.arm(self.lapic.deadline());
        if let Some(pv_eoi) = &mut self.pv_eoi {
            pv_eoi.give(&self.lapic);
        }
        Ok(Readiness::Run)
    }

    /// While the guest is halted, whenever something was announced: whether that
    /// ends the halt.
    ///
    /// # Errors
    /// KVM refused something.
    pub fn while_halted(
        &mut self,
        vcpu: &mut dyn Interruptible,
    ) -> Result<WhileHalted, BackendError> {
        self.look(vcpu);
        let now = now();
        let work = self.lapic.scan(now);
        if work.init && !self.lapic.waits_for_sipi() && work.sipi.is_none() {
            return Ok(WhileHalted::Reset);
        }
        if work.init {
            self.reset(vcpu)?;
        }
        if let Some(page) = work.sipi {
            vcpu.startup(page)?;
            return Ok(WhileHalted::Wake);
        }
        if self.lapic.waits_for_sipi() {
            return Ok(WhileHalted::Sleep(None));
        }
        if work.nmi {
            vcpu.nmi()?;
            self.counts.count(Event::Nmi);
            return Ok(WhileHalted::Wake);
        }
        // With interrupts off neither a vector nor the timer ends a halt.
        if !vcpu.interrupts_enabled() {
            return Ok(WhileHalted::Sleep(None));
        }
        if work.interrupt.is_some() {
            return Ok(WhileHalted::Wake);
        }
        let deadline = self.lapic.deadline();
        Ok(WhileHalted::Sleep(deadline.map(|at| {
            Instant::now() + Duration::from_nanos(at.saturating_sub(now))
        })))
    }

    /// INIT, of which the local APIC has done its part.
    fn reset(&mut self, vcpu: &mut dyn Interruptible) -> Result<(), BackendError> {
        if let Some(pv_eoi) = &mut self.pv_eoi {
            pv_eoi.reset();
        }
        vcpu.init()
    }

    /// Its state, for a vCPU that does not run.
    pub fn save(&mut self) -> SavedApic {
        self.settle();
        SavedApic {
            lapic: self.lapic.save(now()),
            pv_eoi: self.pv_eoi.as_ref().map_or(0, PvEoi::read),
        }
    }

    /// Puts a saved state in. What was posted to it meanwhile stays.
    ///
    /// # Errors
    /// A value that no local APIC has.
    pub fn restore(&mut self, saved: &SavedApic) -> Result<(), BackendError> {
        let restored = self.lapic.restore(saved.lapic.clone(), now());
        restored
            .map_err(|InvalidState { register, value }| BackendError::Apic { register, value })?;
        let taken = match &mut self.pv_eoi {
            Some(pv_eoi) => pv_eoi.write(saved.pv_eoi),
            None => saved.pv_eoi == 0,
        };
        let (index, value) = (pv_eoi::MSR, saved.pv_eoi);
        taken
            .then_some(())
            .ok_or(BackendError::Msr { index, value })
    }

    fn count(&self, written: Option<Register>) {
        match written {
            Some(Register::Eoi) => self.counts.count(Event::ApicEoi),
            Some(Register::Icr) => self.counts.count(Event::ApicIpi),
            Some(Register::InitialCount) => self.counts.count(Event::ApicTimer),
            None => {}
        }
    }

    fn carry_out(&self, effect: Option<Effect>) {
        match effect {
            Some(Effect::Send(message)) => {
                self.controllers.send(&message, Some(self.lapic.id()));
            }
            Some(Effect::Eoi(vector)) => self.controllers.eoi(vector),
            None => {}
        }
    }

    /// The offset in the local APIC's page, which is each vCPU's own.
    fn in_page(&self, gpa: u64) -> Option<u64> {
        within(gpa, self.lapic.page()?)
    }
}

fn within(gpa: u64, page: u64) -> Option<u64> {
    gpa.checked_sub(page).filter(|&offset| offset < PAGE)
}

impl PrivateIo for VcpuApic {
    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) -> bool {
        self.settle();
        if let Some(offset) = self.in_page(gpa) {
            self.lapic.read_page(offset, data, now());
        } else if let Some(offset) = within(gpa, IO_APIC) {
            self.controllers.ioapic().read(offset, data);
        } else {
            return false;
        }
        true
    }

    fn mmio_write(&mut self, gpa: u64, data: &[u8]) -> bool {
        self.settle();
        if let Some(offset) = self.in_page(gpa) {
            self.count(Register::at(offset));
            let effect = self.lapic.write_page(offset, data, now());
            self.carry_out(effect);
        } else if let Some(offset) = within(gpa, IO_APIC) {
            let message = self.controllers.ioapic().write(offset, data);
            if let Some(message) = message {
                self.controllers.send(&message, None);
            }
        } else {
            return false;
        }
        true
    }

    fn msr_read(&mut self, index: u32) -> Option<u64> {
        self.settle();
        if index == pv_eoi::MSR {
            return self.pv_eoi.as_ref().map(PvEoi::read);
        }
        self.lapic.read_msr(index, now()).ok()
    }

    fn msr_write(&mut self, index: u32, value: u64) -> bool {
        self.settle();
        if index == pv_eoi::MSR {
            return self.pv_eoi.as_mut().is_some_and(|pv| pv.write(value));
        }
        if index == IA32_APIC_BASE {
            return self.lapic.write_base(value, now()).is_ok();
        }
        self.count(Register::of_msr(index));
        match self.lapic.write_msr(index, value, now()) {
            Ok(effect) => {
                self.carry_out(effect);
                true
            }
            Err(_) => false,
        }
    }
}

#[cfg(test)]
mod tests;
