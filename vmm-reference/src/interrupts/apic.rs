//! A vCPU's local APIC, on the vCPU's thread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pv_lock_host::ApicId;
use serde::{Deserialize, Serialize};

use super::controllers::Controllers;
use super::pv_eoi::{self, PvEoi};
use super::steal_time::{self, StealTime};
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
    /// There if the guest was offered it, and KVM does not serve it.
    steal_time: Option<StealTime>,
    counts: Arc<VcpuCounts>,
}

/// The state of a local APIC of this process, with its vCPU's PV_EOI and steal time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedApic {
    lapic: LapicState,
    /// MSR_KVM_PV_EOI_EN. That the guest may leave an EOI to memory is taken back
    /// before a save.
    pv_eoi: u64,
    /// MSR_KVM_STEAL_TIME; 0 where KVM serves it. What was stolen is in guest memory.
    steal_time: u64,
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
            steal_time: None,
            counts,
        })
    }

    /// Which serves PV_EOI, by this memory.
    #[must_use]
    pub fn with_pv_eoi(mut self, memory: Arc<GuestMemory>) -> Self {
        self.pv_eoi = Some(PvEoi::new(memory));
        self
    }

    /// Which serves steal time, in this memory, by what KVM records of run states.
    #[must_use]
    pub fn with_steal_time(mut self, memory: Arc<GuestMemory>) -> Self {
        self.steal_time = Some(StealTime::new(memory));
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

    /// When the vCPU, which is about to be held, next has to take an interrupt, by the
    /// monotonic clock in nanoseconds; 0 if one waits. IF is not asked: a guest that
    /// has it off for a moment would take the interrupt then.
    pub fn due(&mut self, vcpu: &mut dyn Interruptible) -> Option<u64> {
        self.look(vcpu);
        let now = now();
        if let Some(steal_time) = &mut self.steal_time {
            // No hold if KVM can't be told.
            if steal_time.before_sleep(vcpu).is_err() {
                return Some(0);
            }
            steal_time.hold(now);
        }
        self.lapic.due(now)
    }

    /// The vCPU's thread is about to sleep: for a pause; halts and holds see to that
    /// themselves.
    ///
    /// # Errors
    /// KVM refused something.
    pub fn before_sleep(&mut self, vcpu: &mut dyn Interruptible) -> Result<(), BackendError> {
        match &self.steal_time {
            Some(steal_time) => steal_time.before_sleep(vcpu),
            None => Ok(()),
        }
    }

    /// The vCPU is not held, or no longer.
    pub fn let_go(&mut self) {
        if let Some(steal_time) = &mut self.steal_time {
            steal_time.let_go(now);
        }
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
        if let Some(steal_time) = &mut self.steal_time {
            steal_time.before_run(vcpu)?;
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
        self.before_sleep(vcpu)?;
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
        if let Some(steal_time) = &mut self.steal_time {
            steal_time.reset(vcpu)?;
        }
        vcpu.init()
    }

    /// Its state, for a vCPU that does not run.
    pub fn save(&mut self) -> SavedApic {
        self.settle();
        SavedApic {
            lapic: self.lapic.save(now()),
            pv_eoi: self.pv_eoi.as_ref().map_or(0, PvEoi::read),
            steal_time: self.steal_time.as_ref().map_or(0, StealTime::read),
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
        for (index, value) in [
            (pv_eoi::MSR, saved.pv_eoi),
            (steal_time::MSR, saved.steal_time),
        ] {
            // One that is not served has no value but that of a reset.
            if !self.write_pv(index, value).unwrap_or(false) && value != 0 {
                return Err(BackendError::Msr { index, value });
            }
        }
        Ok(())
    }

    /// RDMSR of one of KVM's own that is served here; None is #GP.
    fn read_pv(&self, index: u32) -> Option<Option<u64>> {
        match index {
            pv_eoi::MSR => Some(self.pv_eoi.as_ref().map(PvEoi::read)),
            steal_time::MSR => Some(self.steal_time.as_ref().map(StealTime::read)),
            _ => None,
        }
    }

    /// WRMSR of one of KVM's own that is served here: whether it is taken.
    fn write_pv(&mut self, index: u32, value: u64) -> Option<bool> {
        match index {
            pv_eoi::MSR => Some(self.pv_eoi.as_mut().is_some_and(|pv| pv.write(value))),
            steal_time::MSR => Some(self.steal_time.as_mut().is_some_and(|pv| pv.write(value))),
            _ => None,
        }
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
        match self.read_pv(index) {
            Some(value) => value,
            None => self.lapic.read_msr(index, now()).ok(),
        }
    }

    fn msr_write(&mut self, index: u32, value: u64) -> bool {
        self.settle();
        if let Some(taken) = self.write_pv(index, value) {
            return taken;
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
